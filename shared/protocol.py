"""HTTP/1.1 for uvicorn, with limits: `uvicorn --http shared.protocol:Protocol`.

uvicorn takes heads of any size, and waits for them and for bodies for as long as the other side likes; each slow client then
holds a connection for nothing. Here the head of a request, and then its body, must arrive within `read_timeout_ms`. A request
that arrives in one piece, as nearly all do, starts no timer.
"""

import asyncio
from typing import Any, Final, Literal

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import DaybookError, HeadTooLarge, MalformedRequest, RequestTimeout
from shared.http import ABORT, CLOSING, PROBLEM_JSON, STATUS, problem
from shared.ids import new_id

HEAD_BYTES_MAX: Final = 32_768
HEADERS_MAX: Final = 100
READ_TIMEOUT_MS: Final = 5_000
"""For apps without settings: those of the benchmarks."""


class OneWrite(asyncio.Transport):
    """A connection that holds back the head of an answer until its body comes: one packet and one system call, not two.

    uvicorn writes the head by itself. Where no body comes in the same turn of the loop, the head goes alone.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:  # type: ignore[override] # what uvicorn writes
        if self._held:
            self.transport.write(self._held + data)
            self._held = b""
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._held:
            self.transport.write(self._held)
            self._held = b""

    def close(self) -> None:
        self._flush()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()


class Protocol(HttpToolsProtocol):
    """One connection."""

    _part: Literal["head", "body"] | None = None
    """What of a request is arriving."""
    _head_bytes = 0
    _problem: type[DaybookError] = MalformedRequest
    _extensions: dict[str, Any]
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        settings = self.app_state.get("settings")
        self._read_seconds = getattr(settings, "read_timeout_ms", READ_TIMEOUT_MS) / 1000
        self._extensions = {CLOSING: asyncio.Event(), ABORT: transport.abort}
        self._one_write = OneWrite(transport, self.loop)
        # Also who says nothing at all is not waited for.
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._part
        if before != "body":
            self._head_bytes += len(data)
        super().data_received(data)
        if self._part == "head" and self._head_bytes > HEAD_BYTES_MAX:
            self._problem = HeadTooLarge
            self.send_400_response("")
        if self.transport.is_closing():
            self._expect(None)
        elif self._part is None and (self.cycle is None or self.cycle.response_complete):
            if self._deadline is None:  # an empty line, say: uvicorn waits no more for a request to begin
                self._expect("head")
        elif self._part != before or self._part is None:
            self._expect(self._part)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._part = "head"

    def shutdown(self) -> None:
        """Answers without an end are told to come to one."""
        self._extensions[CLOSING].set()
        super().shutdown()

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADERS_MAX or (self._head_bytes > HEAD_BYTES_MAX and self._size_of_head() > HEAD_BYTES_MAX):
            self._problem = HeadTooLarge
            raise ValueError  # seen by the parser, which has `send_400_response` called
        self._part = "body"
        self._head_bytes = 0
        super().on_headers_complete()
        self.cycle.transport = self._one_write

    def on_message_complete(self) -> None:
        self._part = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 # ours is a problem document
        """Answers what never becomes a whole request, and ends the connection."""
        part, self._part = self._part, None
        problem_type, self._problem = self._problem, MalformedRequest
        if self.cycle and not self.cycle.response_complete:
            if part != "body" or self.cycle.response_started or self.pipeline:
                self.transport.close()  # an answer is under way; another in the middle of it would be read as a part of it
                return
            self.cycle.disconnected = True  # what the app says to a request without its body comes too late
        request_id = new_id()
        body = orjson.dumps({**problem(problem_type()), "request_id": request_id})
        head = (
            f"HTTP/1.1 {STATUS[problem_type.code]} {problem_type.title()}\r\ncontent-type: {PROBLEM_JSON}\r\n"
            f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self._one_write.write(head.encode() + body)
        self._one_write.close()

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _expect(self, part: Literal["head", "body"] | None) -> None:
        """From here on, this part of a request has its time."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if part is not None:
            self._deadline = self.loop.call_later(self._read_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._part is None or (self._part == "body" and self.cycle.response_started):
            self.transport.close()  # nobody waits for an answer
            return
        self._problem = RequestTimeout
        self.send_400_response("")
