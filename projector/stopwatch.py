"""Measures how a worker spends its time on one read model: see `shared.read_models.worker_reports`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.read_models.worker_reports import Phase, PhaseTimes

FADING: Final = 0.8
"""The factor by which earlier times are multiplied after each report, so that a report mostly shows the last seconds."""


class Stopwatch:
    """Measures how long one follower spends in each phase. Only one phase runs at a time.

    `total_seconds` and `total_events` are the sums since the start.
    """

    def __init__(self) -> None:
        self._seconds: dict[Phase, float] = {"reading": 0.0, "folding": 0.0, "writing": 0.0}
        self._events = 0.0
        self.total_seconds: dict[Phase, float] = dict.fromkeys(self._seconds, 0.0)
        self.total_events = 0
        self._phase: Phase = "waiting"
        self._since = time.monotonic()

    @contextmanager
    def measured(self, phase: Phase) -> Iterator[None]:
        self._phase, self._since = phase, time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self._seconds[phase] += now - self._since
            self.total_seconds[phase] += now - self._since
            self._phase, self._since = "waiting", now

    def count(self, events: int) -> None:
        """Adds a number of events that were written."""
        self._events += events
        self.total_events += events

    def progress(self) -> PhaseTimes:
        """Returns the seconds of each phase and the number of events. Then multiplies these by `FADING` for the next report."""
        now = time.monotonic() - self._since
        seconds = {phase: total + (now if phase == self._phase else 0.0) for phase, total in self._seconds.items()}
        reported = PhaseTimes(self._phase, now, seconds["reading"], seconds["folding"], seconds["writing"], self._events)
        self._seconds = {phase: total * FADING for phase, total in self._seconds.items()}
        self._events *= FADING
        return reported
