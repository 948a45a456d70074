"""A small HTTP client for load: raw sockets, one request at a time on each connection. `python -m bench.client ORDER`.

It stands in for wrk where that is not installed, and sends at a given rate, which wrk cannot. It is slower than wrk, and so takes
more of the machine from what it measures.
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


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection(asyncio.Protocol):
    """Kept alive. Ask again only when the answer has come."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Raises:
        ConnectionError, TimeoutError: there is no answer.
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
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, self._body))


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Connection]]:
    address = urlsplit(url)
    host, port = str(address.hostname), address.port or 80
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, host, port))[1] for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


class Load(msgspec.Struct, frozen=True):
    """What a generator of load reports. Where requests had a time at which they were due, they are timed from then on."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class Order(msgspec.Struct, frozen=True):
    """Load on the server at `url`: as fast as it answers, or `per_second` requests, however long the answers take."""

    url: str
    workload: Workload
    connections: int
    seconds: float
    per_second: float | None = None


class Tally:
    """What the connections of a run have in common."""

    def __init__(self, order: Order) -> None:
        self.requests: Iterator[bytes] = order.workload.requests()
        self.took: list[float] = []
        self.errors = 0
        self._begin = perf_counter()
        self._end = self._begin + order.seconds
        self._interval = 1 / order.per_second if order.per_second else None
        self._sent = 0

    def next_due(self) -> float | None:
        """When the next request is to be sent; None when the run is over."""
        now = perf_counter()
        due = now if self._interval is None else self._begin + self._sent * self._interval
        self._sent += 1
        return due if max(now, due) < self._end else None

    async def send(self, connection: Connection, due: float) -> None:
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


async def put_under_load(order: Order) -> Load:
    async with connected(order.url, order.connections) as connections:
        tally = Tally(order)
        await asyncio.gather(*(_keep_asking(connection, tally) for connection in connections), return_exceptions=True)
        return tally.load()


async def _keep_asking(connection: Connection, tally: Tally) -> None:
    while (due := tally.next_due()) is not None:
        if (early := due - perf_counter()) > 0:
            await asyncio.sleep(early)
        await tally.send(connection, due)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least sample that so many percent of all are not above; NaN of nothing."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else math.nan


if __name__ == "__main__":
    load = uvloop.run(put_under_load(msgspec.json.decode(sys.argv[1], type=Order)))
    sys.stdout.write(msgspec.json.encode(load).decode() + "\n")
