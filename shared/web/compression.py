"""Compresses large answers for clients that ask for it with `Accept-Encoding: gzip`.

These answers are never compressed: streams of events, which would be delayed; answers with a secret, whose size must not depend
on what else is in them; and answers with an ETag, which would have to differ from the ETag of the same answer uncompressed.
"""

import zlib
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.web.headers import qualities

COMPRESSED_BYTES_MIN: Final = 4_096
SECRECY: Final = "daybook.secrecy"
"""A route sets this member of the request's state before it answers with a secret."""

_LEVEL: Final = 1
_GZIP: Final = 31
_COMPRESSIBLE: Final = ("application/json", "application/problem+json", "application/x-ndjson", "text/html", "text/plain")


class Compression:
    """Middleware that compresses large answers of the routes that FastAPI serves."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, _Compressor(scope, send) if scope["type"] == "http" and _is_wanted(scope) else send)


def compressed_if_large(scope: Scope, response: Response, send: Send) -> Send:
    """Returns a `send` that compresses the response if it is large and the client wants that."""
    body = getattr(response, "body", None)  # a response that is sent in pieces has none
    if body is not None and len(body) < COMPRESSED_BYTES_MIN:
        return send
    return _Compressor(scope, send) if _is_wanted(scope) else send


def _is_wanted(scope: Scope) -> bool:
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept-encoding"]
    accepted = qualities(sent) if sent else {}
    return accepted.get("gzip", accepted.get("*", 0.0)) > 0


class _Compressor:
    """A `send` that holds the head of an answer back until it knows if the body is large."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._head: Message | None = None
        self._zlib: Any = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._is_compressible(Headers(raw=message["headers"])):
                self._head = message
            else:
                await self._send(message)
        elif self._head is not None:
            await self._begin(self._head, message)
        elif self._zlib is not None:
            await self._send_part(message)
        else:
            await self._send(message)

    def _is_compressible(self, headers: Headers) -> bool:
        media_type = headers.get("content-type", "").partition(";")[0]
        is_plain = not {"etag", "content-encoding"} & {*headers.keys()}
        return media_type in _COMPRESSIBLE and is_plain and not self._scope["state"].get(SECRECY)

    async def _begin(self, head: Message, message: Message) -> None:
        self._head = None
        is_whole = not message.get("more_body", False)
        if is_whole and len(message.get("body", b"")) < COMPRESSED_BYTES_MIN:
            await self._send(head)
            await self._send(message)
            return
        self._zlib = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        headers = [(name, value) for name, value in head["headers"] if name != b"content-length"]
        headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
        if is_whole:
            message = {**message, "body": self._compressed(message)}
            headers.append((b"content-length", str(len(message["body"])).encode()))
        await self._send({**head, "headers": headers})
        if is_whole:
            await self._send(message)
        else:
            await self._send_part(message)

    async def _send_part(self, message: Message) -> None:
        part = self._compressed(message)
        if part or not message.get("more_body", False):
            await self._send({**message, "body": part})

    def _compressed(self, message: Message) -> bytes:
        part: bytes = self._zlib.compress(message.get("body", b""))
        return part if message.get("more_body", False) else part + self._zlib.flush()
