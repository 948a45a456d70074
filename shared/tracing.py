"""Opens traces if an endpoint is configured. A process without one imports nothing for them.

A trace shows what became of one request: a span for the request, and one for each read model that applied its events. The events
carry the trace from the command API to the worker, as `traceparent` in their metadata.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from shared.errors import SettingsInvalid
from shared.log.events import RecordedEvent
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

TRACEPARENT: Final = "traceparent"
"""The header of a request, and the member of an event's metadata, that name a trace and a span in it (W3C Trace Context)."""

TracedProcess = Literal["command-api", "query-api", "worker"]


class Traces(Protocol):
    """The spans of one process. `shared.open_telemetry` implements it."""

    def begin_request(self, scope: Mapping[str, Any]) -> "Span":
        """Begins the span of a request. It continues the caller's trace if the request names one."""

    def end_request(self, span: "Span", scope: Mapping[str, Any], status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Ends the span when the answer begins."""

    def event_metadata(self, span: "Span") -> dict[str, str]:
        """Returns what the metadata of the events of a request get: its `traceparent`, or nothing if the span is not sampled."""

    def applied(self, projection: str, events: Iterable[RecordedEvent], began_ns: int) -> None:
        """Records that a read model has applied these events, with a span for each request that recorded some of them.

        Each event has a `traceparent`. The spans begin at `began_ns` by `time.time_ns`, and end now.
        """

    def close(self) -> None:
        """Sends the spans that wait, for a bounded time."""


@asynccontextmanager
async def open_traces(settings: Settings, process: TracedProcess) -> AsyncIterator[Traces | None]:
    """Yields the traces of this process, or None if no endpoint is configured. At the end, sends the spans that wait.

    Raises:
        SettingsInvalid: the packages are not installed.
    """
    if settings.traces_url is None:
        yield None
        return
    try:
        module = import_module("shared.open_telemetry")
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[telemetry]'`"
        raise SettingsInvalid([f"DAYBOOK_TRACES_URL: {problem}"]) from None
    traces: Traces = module.OpenTelemetryTraces(settings.traces_url, process)
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)
