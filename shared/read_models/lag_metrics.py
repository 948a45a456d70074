"""The metrics of how far a read model is behind the log, which the worker and the query API both have."""

from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

_LABELS: Final = ["ledger", "projection"]


class LagFamilies:
    """Collects the samples of all read models. `families` has them."""

    def __init__(self) -> None:
        help_ = "Events that a read model has not applied yet."
        self._events = GaugeMetricFamily("daybook_projection_lag_events", help_, labels=_LABELS)
        help_ = "Age of the oldest event that a read model has not applied yet."
        self._seconds = GaugeMetricFamily("daybook_projection_lag_seconds", help_, labels=_LABELS)
        help_ = "1 if an error has stopped the read model, else 0."
        self._failed = GaugeMetricFamily("daybook_projection_failed", help_, labels=_LABELS)
        help_ = "Events that could not be applied to a read model."
        self._letters = GaugeMetricFamily("daybook_projection_dead_letters", help_, labels=_LABELS)
        self.families: list[Metric] = [self._events, self._seconds, self._failed, self._letters]

    def add(
        self, ledger_id: str, name: str, events: int | None, seconds: float | None, dead_letters: int, *, failed: bool
    ) -> None:
        """Adds a read model. An unknown lag is None, and gets no sample."""
        about = [ledger_id, name]
        if events is not None:
            self._events.add_metric(about, events)
        if seconds is not None:
            self._seconds.add_metric(about, seconds)
        self._failed.add_metric(about, float(failed))
        self._letters.add_metric(about, dead_letters)
