"""Real connections to our HTTP protocol, on which a test decides what each segment contains. They need no store."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from shared.web.protocol import Protocol

ANSWER_SECONDS: Final = 60


class SeenRequest(NamedTuple):
    """A request as an app sees it. Header names are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> list[bytes]:
        return [value for each, value in self.headers if each == name.encode()]


class RecordingApp:
    """An ASGI app that notes each request when all of it is there, and answers 200 with the number of the request.

    `/early` is answered before the body is read, `/streamed` without a length, and `/endless` never ends.
    """

    def __init__(self) -> None:
        self.seen: list[SeenRequest] = []
        self.aborted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/early":
            await _answer(send, 413, b"too large", (b"connection", b"close"))
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.aborted += 1
                return
            body += message["body"]
            more = message["more_body"]
        target = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        self.seen.append(SeenRequest(scope["method"], target, tuple(scope["headers"]), body))
        if scope["path"] in {"/streamed", "/endless"}:
            await self._stream(send, receive, endless=scope["path"] == "/endless")
        else:
            await _answer(send, 200, str(len(self.seen)).encode())

    async def _stream(self, send: Send, receive: Receive, *, endless: bool) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"part,", "more_body": True})
            await asyncio.sleep(0)
        if endless:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.aborted += 1
            await send({"type": "http.response.body", "body": b"nobody reads this", "more_body": True})
        else:
            await send({"type": "http.response.body", "body": b"end", "more_body": False})


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


class CountingProtocol(Protocol):
    """Our protocol, which also counts what it received and what it keeps, so that a test can wait for a segment."""

    received = 0
    is_lost = False

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        super().connection_lost(exc)

    @property
    def takes_no_more(self) -> bool:
        return self.is_lost or self.flow.read_paused or self.transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """True if a request that has arrived is not answered yet."""
        if self.is_lost or self._is_ending or self.transport.is_closing():
            return False
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete and not cycle.disconnected and self._part != "body"
        return is_answering or self.has_waiting()


class Listener:
    """A server on a free port of this machine. `protocols` are the connections that it accepted, in order."""

    def __init__(self, app: ASGIApp, state: Mapping[str, Any]) -> None:
        self._config = Config(app, http=CountingProtocol, ws="none", lifespan="off", log_config=None, access_log=False)
        self._config.load()
        self._state = ServerState()
        self._app_state = state
        self.protocols: list[CountingProtocol] = []
        self.port = 0

    def accept(self) -> CountingProtocol:
        protocol = CountingProtocol(self._config, self._state, dict(self._app_state))
        self.protocols.append(protocol)
        return protocol

    async def end(self) -> None:
        for protocol in self.protocols:
            if not protocol.is_lost:
                protocol.transport.abort()
        while not all(protocol.is_lost for protocol in self.protocols) or self._state.tasks:
            await asyncio.sleep(0)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Connection"]:
        before = len(self.protocols)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(ANSWER_SECONDS):
            while len(self.protocols) == before:
                await asyncio.sleep(0)
        try:
            yield Connection(reader, writer, self.protocols[before])
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def listening(
    app: ASGIApp, read_timeout_ms: int = 10_000, state: Mapping[str, Any] | None = None
) -> AsyncIterator[Listener]:
    """Serves an app with our protocol, and without a process of its own. `state` is what the lifespan of the app returned."""
    listener = Listener(app, state or {"settings": SimpleNamespace(read_timeout_ms=read_timeout_ms)})
    server = await asyncio.get_running_loop().create_server(listener.accept, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        await listener.end()
        await server.wait_closed()


class ReceivedAnswer(NamedTuple):
    """An answer as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """The client's end of a connection, with the server's protocol at its other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: CountingProtocol) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = protocol
        self._sent = 0

    async def send(self, *segments: bytes) -> None:
        """Sends segments, each after the server has read the one before, or reads no more."""
        for segment in segments:
            if self.writer.is_closing():
                return  # the server has closed the connection
            self.writer.write(segment)
            self._sent += len(segment)
            await asyncio.sleep(0)
            async with asyncio.timeout(ANSWER_SECONDS):
                while self.protocol.received < self._sent and not self.protocol.takes_no_more:
                    await asyncio.sleep(0)

    async def answers_so_far(self) -> list[ReceivedAnswer]:
        """Waits until each request that was sent is answered, closes the server's end, and returns all answers."""
        async with asyncio.timeout(ANSWER_SECONDS):
            for _ in range(3):  # a chunk's end in the last segment may only now wake the app
                await asyncio.sleep(0)
                while self.protocol.is_busy:
                    await asyncio.sleep(0)
        if not self.protocol.is_lost:
            self.protocol.transport.close()
        return await self.all_answers()

    async def answers(self, count: int) -> list[ReceivedAnswer]:
        """Reads this many answers, or all until the end of the connection if there are fewer."""
        parser = AnswerParser()
        async with asyncio.timeout(ANSWER_SECONDS):
            while len(parser.answers) < count and (data := await self.reader.read(65_536)):
                parser.feed(data)
        if len(parser.answers) < count:
            parser.end()
        return parser.answers

    async def all_answers(self) -> list[ReceivedAnswer]:
        """Reads answers until the server closes the connection."""
        parser = AnswerParser()
        async with asyncio.timeout(ANSWER_SECONDS):
            while data := await self.reader.read(65_536):
                parser.feed(data)
        parser.end()
        return parser.answers


class AnswerParser:
    """Parses answers strictly. Raises an error if the server sends anything that is not an answer."""

    def __init__(self) -> None:
        self.answers: list[ReceivedAnswer] = []
        self._parser = httptools.HttpResponseParser(self)
        self._until_the_end = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def end(self) -> None:
        """The connection has ended. This ends an answer that has no length of its own."""
        if self._until_the_end:
            self._until_the_end = False
            self._note()

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._until_the_end = not self._headers.keys() & {"content-length", "transfer-encoding"}

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._until_the_end = False
        self._note()

    def _note(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:  # an answer that is not only the beginning of one
            self.answers.append(ReceivedAnswer(status, self._headers, self._body))


def in_segments(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cuts data at these places."""
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]
