"""A trace goes from the caller through the command and its event to the read models, as a collector receives it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from query_api.app import create_app
from shared.settings import Settings
from tests.harness import questions
from tests.harness.clients import client_of, command_api

pytestmark = pytest.mark.services

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WAIT_SECONDS = 60


class ReceivedSpan(NamedTuple):
    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


class Collector:
    """A receiver of OTLP over HTTP on a free port, with all spans that it has got."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["Collector"]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name in the standard library
                """Writes nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
            serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            serving.start()
            try:
                yield self
            finally:
                server.shutdown()
                serving.join()

    def take(self, body: bytes) -> None:
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            [name] = [each.value.string_value for each in of_process.resource.attributes if each.key == "service.name"]
            for span in (span for scope in of_process.scope_spans for span in scope.spans):
                found = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                self.spans.append(ReceivedSpan(name, span.name, *ids, found))


async def test_a_trace_goes_from_the_caller_through_the_event_to_every_read_model(settings: Settings) -> None:
    with Collector().running() as collector:
        settings = settings.model_copy(update={"traces_url": collector.url})
        async with (
            command_api(settings) as api,
            questions.query_api(settings) as asked,
            questions.projecting(asked, settings),
        ):
            account_id = await api.account()
            before = await api.deposit(account_id, 5, traceparent=f"00-{TRACE}-{'1' * 16}-01")
            asked.position = int(before.headers["daybook-position"])
            for path in (f"/v1/accounts/{account_id}/balance", "/v1/transfers"):
                await asked.get(path)  # until then, the read models may be built
            deposited = await api.deposit(account_id, 5, traceparent=f"00-{TRACE}-{CALLER}-01")
            unsampled = await api.deposit(account_id, 5, traceparent=f"00-{TRACE}-{CALLER}-00")
            asked.position = int(unsampled.headers["daybook-position"])
            await asked.get(f"/v1/accounts/{account_id}/balance", traceparent=f"00-{TRACE}-{CALLER}-01")
            await asked.get("/v1/transfers")
            events = (await asked.get("/v1/events", {"type": "FundsDeposited"}))["items"]
        position = int(deposited.headers["daybook-position"])
    spans = [span for span in collector.spans if span.trace_id == TRACE]
    [command] = [span for span in spans if span.name == "POST /v1/deposits" and span.parent_id == CALLER]
    assert command.process == "daybook-command-api"
    assert command.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/deposits",
        "http.response.status_code": 201,
        "daybook.request_id": deposited.headers["request-id"],
        "daybook.position": position,
    }
    [query] = [span for span in spans if span.name == "GET /v1/accounts/{account_id}/balance"]
    assert (query.process, query.parent_id) == ("daybook-query-api", CALLER)
    applied = {span.name: span for span in spans if span.parent_id == command.span_id}
    assert {"apply balances", "apply transfers"} <= applied.keys()
    assert {(span.process, span.attributes["daybook.position"]) for span in applied.values()} == {("daybook-worker", position)}
    assert [event["metadata"].get("traceparent") for event in events[1:]] == [f"00-{TRACE}-{command.span_id}-01", None]


async def test_a_collector_that_is_away_delays_no_request_and_no_end(settings: Settings) -> None:
    began = time.monotonic()
    async with client_of(create_app(settings.model_copy(update={"traces_url": "http://127.0.0.1:9/v1/traces"}))) as client:
        assert (await client.get("/v1/projections")).status_code == 200
    assert time.monotonic() - began < WAIT_SECONDS
