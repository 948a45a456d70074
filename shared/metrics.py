"""`/metrics`, for Prometheus with a key that has `ops:admin`.

What is counted on the way of a request is counted by `tally`; Prometheus' forms are made when somebody asks. Of ledgers, a
caller sees its own.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.access import only
from shared.http import admit, problem_responses, same_ledger
from shared.tally import SECONDS, Tally

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
RULE: Final = only("ops:admin")
OTHER: Final = "other"

_METHODS: Final = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}

MoreFamilies = Callable[[Request, str], Awaitable[Iterable[Metric]]]
"""What else an app can tell about itself and about a ledger."""


class Requests:
    """How long requests took until their answer began, by method, route and status."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str, int], Tally] = {}

    def note(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        key = (scope["method"], scope["state"].get("route", OTHER), status)
        tally = self._tallies.get(key)
        if tally is None:
            # Methods are the caller's to make up.
            key = (key[0] if key[0] in _METHODS else OTHER, *key[1:])
            tally = self._tallies.setdefault(key, Tally(SECONDS))
        tally.note(seconds)

    def family(self) -> Metric:
        labels = ("method", "route", "status")
        family = HistogramMetricFamily("daybook_http_request_seconds", "Time until an answer began.", labels=labels)
        for (method, route, status), tally in self._tallies.items():
            family.add_metric((method, route, str(status)), [*tally.buckets()], tally.total)
        return family


def metrics_router(more: MoreFamilies) -> APIRouter:
    """The route. `more` adds what only this app knows."""
    router = APIRouter(tags=["operations"])
    problems = problem_responses("unauthorized", "forbidden", "rate-limited", "not-found", "store-unavailable")
    documentation: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"example": "daybook_commands_waiting 0.0"}}}
    }

    @router.get("/metrics", openapi_extra=RULE.documented(), responses=documentation | problems, response_class=Response)
    async def metrics(request: Request) -> Response:
        """What Prometheus asks for, about this process and the caller's ledger."""
        principal = await admit(request, RULE)
        ledger_id = same_ledger(request, principal)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Found([*_of_process(request), *await more(request, ledger_id)]))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE)

    return router


class _Found(Collector):
    """Families that were made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_process(request: Request) -> Iterator[Metric]:
    state = request.state
    yield InfoMetricFamily("daybook", "Which Daybook this is.", {"version": version("daybook")})
    yield state.requests.family()
    refusals = CounterMetricFamily("daybook_refusals", "Refused attempts, kept for auditors or lost.", labels=["outcome"])
    refusals.add_metric(["recorded"], state.refusals.recorded)
    refusals.add_metric(["dropped"], state.refusals.dropped)
    yield refusals
    alone = "Whether this process counts requests by itself, because Redis does not answer."
    yield GaugeMetricFamily("daybook_rate_limits_alone", alone, float(state.gate.counts_alone))
