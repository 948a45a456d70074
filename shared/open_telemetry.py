"""Spans of requests and of applied events, sent with OTLP over HTTP. Import it only through `shared.tracing`.

A thread of the SDK sends the spans. If the collector is slow or away, spans are dropped, and no request waits. The standard
variables, such as `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and `OTEL_EXPORTER_OTLP_HEADERS`, are read by the SDK.
"""

import os
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.log.events import RecordedEvent
from shared.tracing import TRACEPARENT, TracedProcess

SEND_SECONDS: Final = 2.0
"""The longest time that the end of a process waits for the collector."""
ERRORS_FROM: Final = 500
_METHODS: Final = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}
_W3C: Final = TraceContextTextMapPropagator()


class OpenTelemetryTraces:
    """Implements `shared.tracing.Traces`."""

    def __init__(self, url: str, process: TracedProcess) -> None:
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: f"daybook-{process}"}
        resource = Resource.create({SERVICE_VERSION: version("daybook"), **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=SEND_SECONDS)))
        self._tracer = self._provider.get_tracer("daybook")

    def close(self) -> None:
        self._provider.force_flush(int(SEND_SECONDS * 1_000))
        self._provider.shutdown()

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_request(self, scope: Mapping[str, Any]) -> Span:
        traceparent = dict(scope["headers"]).get(TRACEPARENT.encode(), b"").decode("latin-1")
        return self._tracer.start_span("request", _W3C.extract({TRACEPARENT: traceparent}), SpanKind.SERVER)

    def end_request(self, span: Span, scope: Mapping[str, Any], status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        # A span holds the route and never the path, which has ids of people's accounts.
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = scope["state"].get("route")
        span.update_name(f"{method} {route}" if route else method)
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("daybook.request_id", scope["state"]["request_id"])
        if route:
            span.set_attribute("http.route", route)
        for name, value in headers:
            if name.lower() == b"daybook-position":
                span.set_attribute("daybook.position", int(value))
        if status >= ERRORS_FROM:
            span.set_status(StatusCode.ERROR)
        span.end()

    def event_metadata(self, span: Span) -> dict[str, str]:
        context = span.get_span_context()
        if not context.trace_flags.sampled:
            return {}
        return {TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}

    # ── read models ──────────────────────────────────────────────────────────────────────────────────────────────────

    def applied(self, projection: str, events: Iterable[RecordedEvent], began_ns: int) -> None:
        ended_ns = time.time_ns()
        last = {event.metadata[TRACEPARENT]: event for event in events}
        for traceparent, event in last.items():
            span = self._tracer.start_span(
                f"apply {projection}",
                _W3C.extract({TRACEPARENT: traceparent}),
                SpanKind.CONSUMER,
                {"daybook.projection": projection, "daybook.ledger": event.ledger_id, "daybook.position": event.position},
                start_time=began_ns,
            )
            span.end(ended_ns)
