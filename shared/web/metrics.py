"""The route `/metrics` for Prometheus, which needs an API key with the scope `ops:admin`.

A caller sees only the metrics of its own ledger and of the process.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from shared.histogram import SECONDS, Histogram
from shared.identity.access import only
from shared.metrics_text import CONTENT_TYPE, metrics_text
from shared.web.admission import authorize, own_ledger_id
from shared.web.headers import SentRequest
from shared.web.openapi import problem_responses

RULE: Final = only("ops:admin")
OTHER: Final = "other"

_METHODS: Final = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}

MoreFamilies = Callable[[Request, str], Awaitable[Iterable[Metric]]]
"""Returns the metrics that only one of the apps has, for a request and a ledger id."""


class RequestDurations:
    """Histograms of the time from a request to the start of its answer, by method, route and status."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, str, int], Histogram] = {}

    def note(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        key = (scope["method"], scope["state"].get("route", OTHER), status)
        histogram = self._histograms.get(key)
        if histogram is None:
            # Callers can invent methods, which must not fill the memory.
            key = (key[0] if key[0] in _METHODS else OTHER, *key[1:])
            histogram = self._histograms.setdefault(key, Histogram(SECONDS))
        histogram.observe(seconds)

    def family(self) -> Metric:
        labels = ("method", "route", "status")
        family = HistogramMetricFamily(
            "daybook_http_request_seconds", "Time from a request to the start of its answer.", labels=labels
        )
        for (method, route, status), histogram in self._histograms.items():
            family.add_metric((method, route, str(status)), [*histogram.buckets()], histogram.total)
        return family


def metrics_router(more: MoreFamilies) -> APIRouter:
    """Returns the router of `/metrics`. `more` returns the metrics that only this app has."""
    router = APIRouter(tags=["operations"])
    problems = problem_responses("unauthorized", "forbidden", "rate-limited", "not-found", "store-unavailable")
    documentation: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"example": "daybook_commands_waiting 0.0"}}}
    }

    @router.get("/metrics", openapi_extra=RULE.documented(), responses=documentation | problems, response_class=Response)
    async def metrics(request: Request) -> Response:
        """Get the metrics of this process and of the caller's ledger in the format of Prometheus."""
        request.state.route = "/metrics"
        sent = SentRequest(request.scope)
        principal = await authorize(sent, RULE)
        ledger_id = own_ledger_id(sent, principal)
        families = [*_of_requests(request), *await more(request, ledger_id)]
        return Response(metrics_text(families), media_type=CONTENT_TYPE)

    return router


def _of_requests(request: Request) -> Iterator[Metric]:
    state = request.state
    yield state.requests.family()
    denials = CounterMetricFamily(
        "daybook_refusals",
        "Denied attempts: recorded for auditors, of these merged without details, displaced by newer ones, or dropped.",
        labels=["outcome"],
    )
    for outcome in ("recorded", "merged", "displaced", "dropped"):
        denials.add_metric([outcome], getattr(state.denials, outcome))
    yield denials
    alone = "1 if this process applies rate limits by itself because Redis does not answer, else 0."
    yield GaugeMetricFamily("daybook_rate_limits_alone", alone, float(state.authentication.counts_locally))
