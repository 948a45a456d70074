"""A small HTTP client that makes load, with one request at a time on each connection: `python -m bench.load_client ORDER`.

It is used if wrk is not installed, and for a given rate of requests, which wrk cannot send. It uses more processor time than wrk,
which leaves less for the measured processes.
"""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

from bench.workloads import Workload

ANSWER_SECONDS: Final = 10.0
FIRST_ERROR: Final = 400


class HttpReply(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class LoadConnection(asyncio.Protocol):
    """A kept-alive HTTP connection. Send the next request only after the answer to the last one."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpReply] | None = None

    async def ask(self, request: bytes) -> HttpReply:
        """Sends a request and returns its answer.

        Raises:
            ConnectionError, TimeoutError: the connection was lost before the answer.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError
        self._headers, self._body = {}, b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    # ── called by the event loop and by the parser ───────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport has `write`

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed by the server"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(HttpReply(self._parser.get_status_code(), self._headers, self._body))


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[LoadConnection]]:
    address = urlsplit(url)
    host, port = str(address.hostname), address.port or 80
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(LoadConnection, host, port))[1] for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


class Load(msgspec.Struct, frozen=True):
    """The report of a load generator. With a given rate, a request is timed from the moment when it should have been sent."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class LoadOrder(msgspec.Struct, frozen=True):
    """A load to put on the server at `url`: `per_second` requests per second, or as many as it answers if that is None."""

    url: str
    workload: Workload
    connections: int
    seconds: float
    per_second: float | None = None


class LoadRun:
    """The state that all connections of one load share."""

    def __init__(self, order: LoadOrder) -> None:
        self.requests: Iterator[bytes] = order.workload.requests()
        self.took: list[float] = []
        self.errors = 0
        self._begin = perf_counter()
        self._end = self._begin + order.seconds
        self._interval = 1 / order.per_second if order.per_second else None
        self._sent = 0

    def next_due(self) -> float | None:
        """Returns the time at which to send the next request, or None if the load is over."""
        now = perf_counter()
        due = now if self._interval is None else self._begin + self._sent * self._interval
        self._sent += 1
        return due if max(now, due) < self._end else None

    async def send(self, connection: LoadConnection, due: float) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await connection.ask(next(self.requests))
        except (OSError, TimeoutError):
            self.errors += 1
            raise
        self.took.append(perf_counter() - due)
        self.errors += answer.status >= FIRST_ERROR

    def load(self) -> Load:
        seconds = perf_counter() - self._begin
        took = sorted(self.took)
        return Load(len(took), seconds, percentile(took, 50) * 1000, percentile(took, 99) * 1000, self.errors)


async def put_under_load(order: LoadOrder) -> Load:
    async with connected(order.url, order.connections) as connections:
        tally = LoadRun(order)
        await asyncio.gather(*(_keep_asking(connection, tally) for connection in connections), return_exceptions=True)
        return tally.load()


async def _keep_asking(connection: LoadConnection, tally: LoadRun) -> None:
    while (due := tally.next_due()) is not None:
        if (early := due - perf_counter()) > 0:
            await asyncio.sleep(early)
        await tally.send(connection, due)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns a percentile: the smallest sample such that this percentage of all samples is not greater. NaN without samples."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else math.nan


if __name__ == "__main__":
    load = uvloop.run(put_under_load(msgspec.json.decode(sys.argv[1], type=LoadOrder)))
    sys.stdout.write(msgspec.json.encode(load).decode() + "\n")
