"""An HTTP/1.1 protocol for uvicorn with limits: `uvicorn --http shared.web.protocol:Protocol`.

By itself, uvicorn accepts heads, trailers and chunk extensions of any size, waits for ever for heads and bodies, takes trailers
for headers, and takes the body of a request that asks for an upgrade for new requests. With this protocol:

- A head must arrive within `read_timeout_ms`, and then its body within the same time again. A request that arrives in one piece,
  as nearly all do, needs no timer.
- Everything that is read is bounded: a head, what a body has beside its content, what is read after the answer, and the requests
  that a client sends before it has read the answers to earlier ones.
- An upgrade is ignored (RFC 9110, 7.8), and so are trailers. A head that another reader could take differently is refused.
- The connection is not reset under an answer that the client has not read: see `_end`.
- From SIGTERM on, each answer ends its connection: see `shared.web.draining`.
"""

import asyncio
import re
import urllib.parse
from http import HTTPStatus
from typing import Any, Final, Literal

import httptools
import orjson
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.errors import DaybookError, HeadTooLarge, MalformedRequest, PayloadTooLarge, RequestTimeout
from shared.ids import new_id
from shared.web.answer_cycle import AnswerCycle
from shared.web.asgi_extensions import ABORT, CLOSING
from shared.web.problems import PROBLEM_JSON, STATUS, MethodNotAllowed, problem
from shared.web.transports import OneWrite, Unchunked

HEAD_BYTES_MAX: Final = 32_768
HEADERS_MAX: Final = 100
FRAMING_BYTES_MAX: Final = 16_384
"""The bytes beside the content of a body, such as sizes of chunks and trailers, that need no content to be allowed."""
FRAMING_BYTES_PER_BYTE: Final = 8
"""More bytes beside the content for each byte of the content. A chunk of one byte has five."""
DISCARDED_BYTES_MAX: Final = 16_777_216
"""The bytes that are read and discarded after an answer, so that the client can read the answer."""
PARSED_AT_ONCE: Final = 8_192
"""The bytes that are parsed at once. The requests in them are answered before more is parsed or read."""
READ_TIMEOUT_MS: Final = 5_000
"""The read timeout of apps that have no settings, such as the apps of the benchmarks, in milliseconds."""

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::\d*)?")
_NOTED: Final = frozenset({b"host", b"transfer-encoding", b"expect"})
"""The headers that say how to read the request."""
_SLASH: Final = re.compile("%2f", re.IGNORECASE)


def decoded_path(path: str) -> str:
    """Decodes a path with percent signs. An encoded slash stays encoded, because it does not separate parts of the path."""
    return "%2F".join(map(urllib.parse.unquote, _SLASH.split(path)))


class Protocol(HttpToolsProtocol):
    """An HTTP connection, with limits on the size and the duration of each part of a request."""

    _part: Literal["head", "body"] | None = None
    """The part of a request that is arriving now. None between requests."""
    _head_bytes = 0
    """No more bytes than these belong to the head that is arriving. Some may belong to the request before it."""
    _piece_bytes = 0
    _hosts = 0
    _host: bytes | None = None
    """The last valid value of Host on this connection, which is not checked again."""
    _is_chunked = False
    _is_upgrade = False
    _body_bytes_read = 0
    _body_bytes = 0
    _discarded_bytes = 0
    _unparsed = b""
    _answering: RequestResponseCycle | None = None
    """The request that is being answered, if others wait behind it."""
    _refusal: DaybookError | None = None
    """The answer to an invalid request, after which the connection ends. Nothing is parsed any more."""
    _is_ending = False
    _extensions: dict[str, Any]
    _deadline: asyncio.TimerHandle | None = None

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # the same type as in uvicorn
        super().connection_made(transport)
        self.flow = _ReadingPause(transport, self)
        settings = self.app_state.get("settings")
        self._read_seconds = getattr(settings, "read_timeout_ms", READ_TIMEOUT_MS) / 1000
        self._extensions = {CLOSING: asyncio.Event(), ABORT: transport.abort}
        self._readiness = self.app_state.get("readiness")
        self._one_write = OneWrite(transport, self.loop, self._end)
        # The time limit also applies to a client that sends nothing at all.
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._abandon(self._answering)
        self._forget_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Tells endless answers to stop, then shuts the connection down."""
        self._extensions[CLOSING].set()
        if self._is_ending:
            self.transport.close()
        else:
            super().shutdown()

    def _end(self) -> None:
        """Closes the connection after the last answer, so that the client gets the answer.

        A client may send a whole request before it reads anything. If we closed the connection before, the system would reset
        it, and the client would lose the answer. So this only tells the client that nothing follows. What it sends is read and
        discarded until it closes its end, for as long as a request may take, and up to `DISCARDED_BYTES_MAX`.
        """
        if self.transport.is_closing() or self._is_ending:
            return
        if self._part is None and self._refusal is None:
            self.transport.close()
            return
        self._is_ending = True
        self._part = None
        self._forget_waiting()
        self._expect(None)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(self._read_seconds, self.transport.abort)

    def _forget_waiting(self) -> None:
        """Forgets the requests that wait behind the one that is being answered."""
        self.pipeline.clear()
        self._unparsed = b""

    def _abandon(self, cycle: RequestResponseCycle | None) -> None:
        """Tells the app that nobody waits for its answer any more."""
        if cycle and not cycle.response_complete:
            cycle.disconnected = True  # from now on, uvicorn drops the app's own answer
            cycle.message_event.set()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._is_ending:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if self._unparsed or len(data) > PARSED_AT_ONCE:
            self._unparsed += data
            self._parse_waiting()
        else:
            self._parse(data)

    def has_waiting(self) -> bool:
        """True if requests, or bytes of them, wait until an earlier request is answered."""
        return bool(self.pipeline or self._unparsed)

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > DISCARDED_BYTES_MAX:
            self.transport.abort()

    def _parse_waiting(self) -> None:
        """Parses the bytes that wait, until a request waits for the answer to an earlier one."""
        self._unset_keepalive_if_required()
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece, self._unparsed = self._unparsed[:PARSED_AT_ONCE], self._unparsed[PARSED_AT_ONCE:]
            self._parse(piece)
        if self._unparsed:
            self.flow.pause_reading()
        elif self.flow.read_paused and not self.transport.is_closing() and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        before = self._part
        self._piece_bytes = len(data)
        if before == "body":
            self._body_bytes_read += len(data)
        else:
            self._head_bytes += len(data)
        error = self._feed(data)
        if error is None and self._part != "body" and self._head_bytes > HEAD_BYTES_MAX + PARSED_AT_ONCE:
            error = HeadTooLarge()
        if error is None and before == self._part == "body":
            error = self._unbounded_body(len(data))
        if error is not None:
            self._refuse(error)
        elif self.transport.is_closing():
            self._expect(None)
        elif self._part is None and (self.cycle is None or self.cycle.response_complete):
            if self._deadline is None:  # after an empty line, for example, uvicorn's own timer has stopped
                self._expect("head")
        elif self._part != before or self._part is None:
            self._expect(self._part)

    def _feed(self, data: bytes) -> DaybookError | None:
        """Feeds the parser. Returns the error that the data contain, after which nothing may be parsed any more."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser gives up, because the rest would be another protocol. As nothing is upgraded, it is the body.
                if self.parser.get_method() == b"CONNECT":
                    return MethodNotAllowed()
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError as invalid:
                cause = invalid.__context__
                return cause if isinstance(cause, DaybookError) else MalformedRequest()
            else:
                return None

    def _head_without_upgrade(self) -> bytes:
        start = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return start + b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade") + b"\r\n"

    def _unbounded_body(self, count: int) -> DaybookError | None:
        """Returns an error if the body that is arriving has too much beside its content. Bounds what nobody will read."""
        if self.cycle.response_complete:
            self._discard(count)
        elif self._body_bytes_read - self._body_bytes > FRAMING_BYTES_MAX + FRAMING_BYTES_PER_BYTE * self._body_bytes:
            return PayloadTooLarge("The body has too many trailers, chunk extensions or small chunks for its content.")
        return None

    # ── what the parser found; an error that is raised here is the answer ────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._part = "head"
        self._head_bytes, self._hosts = self._piece_bytes, 0
        self._is_chunked = self._is_upgrade = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "body":
            return  # a trailer
        name = name.lower()
        if name in _NOTED:
            self._note(name, value)
        self.headers.append((name, value))

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            if value != self._host:
                if not _HOST.fullmatch(value):
                    raise MalformedRequest("Host is not the name of a host.")
                self._host = value
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            if self._is_chunked or value.lower() != b"chunked":
                raise MalformedRequest("Transfer-Encoding can only be chunked.")
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADERS_MAX or self._is_too_large():
            raise HeadTooLarge
        if self.parser.should_upgrade():
            self._is_upgrade = True
            return
        version = self.parser.get_http_version()
        if version != "1.1":
            if version != "1.0" or self._is_chunked or self._hosts > 1:
                raise MalformedRequest("This is not a request of HTTP/1.1 or HTTP/1.0.")
            self.scope["http_version"] = version
            self.expect_100_continue = False
        elif self._hosts != 1:
            raise MalformedRequest("A request needs one Host.")
        self.scope["method"] = self.parser.get_method().decode()
        self._read_url()
        self._part = "body"
        self._head_bytes = self._body_bytes_read = self._body_bytes = 0
        self._begin_cycle(Unchunked(self._one_write) if version == "1.0" else self._one_write, version)

    def _is_too_large(self) -> bool:
        """True if the head is too large, wherever in a segment it began. Adds up its size only if that is possible."""
        if self._head_bytes <= HEAD_BYTES_MAX:
            return False
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX

    def _read_url(self) -> None:
        scope = self.scope
        if self.url == b"*" and scope["method"] == "OPTIONS":
            raw_path, query = self.url, b""
        else:
            url = httptools.parse_url(self.url)
            raw_path, query = url.path or b"/", url.query or b""
        path = raw_path.decode("ascii")
        scope["path"] = self.root_path + (decoded_path(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode() + raw_path
        scope["query_string"] = query

    def _begin_cycle(self, transport: asyncio.Transport, version: str) -> None:
        """Starts the app for this request, or lets the request wait until the one before is answered."""
        before = self.cycle
        self.cycle = AnswerCycle(
            scope=self.scope,
            transport=transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self._is_process_ending(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
            return
        if not self.pipeline:
            self._answering = before
        self.pipeline.appendleft((self.cycle, self.app))
        self.flow.pause_reading()

    def _is_process_ending(self) -> bool:
        """True if the client should send its next request to another process."""
        return self._readiness is not None and self._readiness.is_ending

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_upgrade:
            self._part = None
            super().on_message_complete()

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_response_complete(self) -> None:
        if self._is_ending or self.transport.is_closing():
            self.server_state.total_requests += 1
            return
        if self._refusal is not None and not self.pipeline:
            self.server_state.total_requests += 1
            self._answer_refusal(self._refusal)
            return
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self._unparsed:
            self.loop.call_soon(self._parse_waiting)
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def _refuse(self, error: DaybookError) -> None:
        """Answers an invalid or incomplete request with a problem document, after earlier requests have their answers.

        Then the connection ends, because nobody can know what its next bytes mean.
        """
        part, self._part = self._part, None
        self._refusal = error
        self._unparsed = b""
        self._expect(None)
        if self.cycle is None or self.cycle.response_complete:
            self._answer_refusal(error)
        elif part == "body" and self.pipeline:
            self.pipeline.popleft()  # the request with this body; the app has not seen it
        elif part == "body":
            is_answered = self.cycle.response_started
            self._abandon(self.cycle)
            if is_answered:
                self._one_write.close()  # the client would take a second answer for a part of the first
            else:
                self._answer_refusal(error)

    def _answer_refusal(self, error: DaybookError) -> None:
        request_id = new_id()
        body = orjson.dumps({**problem(error), "request_id": request_id})
        status = STATUS[error.code]
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {PROBLEM_JSON}\r\n"
            f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self._one_write.write(head.encode() + body)
        self._one_write.close()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expect(self, part: Literal["head", "body"] | None) -> None:
        """Starts the timer for this part of a request. If `part` is None, only stops the timer that runs."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if part is not None:
            self._deadline = self.loop.call_later(self._read_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._expect(self._part)  # we have not read what the client may have sent
        elif self._part is None:
            self.transport.close()  # no request waits for an answer
        elif self._part == "body" and self.cycle.response_started:
            self._abandon(self.cycle)
            self._one_write.close()
        else:
            self._refuse(RequestTimeout())


class _ReadingPause(FlowControl):
    """Pauses reading as uvicorn asks for it. Does not resume it while requests wait for the answers to earlier ones."""

    def __init__(self, transport: asyncio.Transport, protocol: Protocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if self.read_paused and not self._protocol.has_waiting():
            super().resume_reading()
