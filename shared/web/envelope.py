"""Adds the headers that all answers have: request id, security headers, rate limits, and CORS headers if origins are allowed."""

import asyncio
from time import perf_counter
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.identity.denials import DENIAL_CODES
from shared.ids import new_id

_EVERYWHERE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_POLICY: Final = b"content-security-policy"
_STRICT_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
_DOCUMENTATION_POLICY: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"worker-src 'self' blob:; frame-ancestors 'none'"
)
"""The documentation pages start their scripts inline, and load everything from the API itself."""
_POLICIES: Final = {"/docs": _DOCUMENTATION_POLICY, "/redoc": _DOCUMENTATION_POLICY}
_TLS_HEADERS: Final = ((b"strict-transport-security", b"max-age=31536000"),)


class Envelope:
    """Middleware that applies `enveloped` to every request that goes through FastAPI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send if scope["type"] == "lifespan" else enveloped(scope, send))


class HeadAsGet:
    """Middleware that answers HEAD on every GET route: with the same status and headers, and without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        answered = asyncio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answered.set()

        async def receive_until_answered() -> Message:
            """Ends an answer that is sent in pieces, or that has no end, as if the client had left."""
            await answered.wait()
            return {"type": "http.disconnect"}

        await self.app({**scope, "method": "GET"}, receive_until_answered, send_head)


def enveloped(scope: Scope, send: Send) -> Send:
    """Gives the request an id. Returns a `send` that adds headers to the answer, and records its duration, denials and span."""
    request_id = new_id()
    state = scope.setdefault("state", {})
    state["request_id"] = request_id
    began = perf_counter()
    if traces := state.get("traces"):
        state["span"] = traces.begin_request(scope)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            limits = state.get("limit_headers", ())
            status = message["status"]
            if status in DENIAL_CODES and "denials" in state:
                state["denials"].record(scope, status)
            if "requests" in state:
                state["requests"].note(scope, status, perf_counter() - began)
            if traces:
                traces.end_request(state["span"], scope, status, message.get("headers", ()))
            policy = state.get("content_policy") or _POLICIES.get(scope["path"], _STRICT_POLICY)
            added = ((b"request-id", request_id.encode()), *limits, *_EVERYWHERE, (_POLICY, policy))
            message["headers"] = [*message.get("headers", ()), *added]
            if scope["scheme"] == "https":
                message["headers"] += _TLS_HEADERS
        await send(message)

    return send_with_headers


def set_content_policy(request: Request, policy: str) -> None:
    """Gives the answer to this request a `Content-Security-Policy` of its own, in place of the one that allows nothing."""
    request.state.content_policy = policy.encode()


def across_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """Wraps an app with the CORS headers that let web pages of these origins call it. Without origins, returns the app itself."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins.split(","),
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_EXPOSED_HEADERS,
    )


_REQUEST_HEADERS: Final = [
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    *("Daybook-Ledger", "Daybook-Min-Position", "Prefer", "Traceparent"),
]
_EXPOSED_HEADERS: Final = [
    *("Daybook-Position", "Daybook-Stale", "ETag", "Idempotency-Replayed", "Link", "Location"),
    *("RateLimit", "RateLimit-Policy", "Request-Id", "Retry-After"),
]
