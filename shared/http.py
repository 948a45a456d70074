"""What both APIs do alike with HTTP: problem documents, request ids, headers, and how a start that fails looks.

Errors leave as `application/problem+json` (RFC 9457) with a stable code. Input is never echoed: it may not even be encodable.
The table below is the only place where a code meets a status; every code has a page at `/problems/<code>`.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pymongo.errors import ConnectionFailure, ExecutionTimeout, WTimeoutError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.access import SECURITY_SCHEME, Principal, Rule
from shared.errors import (
    BadRequest,
    DaybookError,
    NotFound,
    PayloadTooLarge,
    Rejection,
    RequestTimeout,
    StoreUnavailable,
    Unauthorized,
    Unavailable,
    ValidationFailed,
)
from shared.fields import LEDGER_ID
from shared.ids import new_id
from shared.logs import configure_logs
from shared.refusals import CODES as REFUSED

log = structlog.get_logger()

STATUS: Final[Mapping[str, int]] = {
    "malformed-request": 400,
    "malformed-json": 400,
    "cursor-invalid": 400,
    "idempotency-key-required": 400,
    "idempotency-key-invalid": 400,
    "unauthorized": 401,
    "login-refused": 401,
    "forbidden": 403,
    "password-wrong": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "account-closed": 409,
    "account-frozen": 409,
    "user-inactive": 409,
    "user-erased": 409,
    "insufficient-funds": 409,
    "account-not-empty": 409,
    "email-taken": 409,
    "id-taken": 409,
    "stream-version-mismatch": 412,
    "payload-too-large": 413,
    "unsupported-media-type": 415,
    "validation-failed": 422,
    "amount-out-of-range": 422,
    "currency-unknown": 422,
    "same-account": 422,
    "currency-mismatch": 422,
    "idempotency-key-reused": 422,
    "rate-limited": 429,
    "too-many-streams": 429,
    "head-too-large": 431,
    "internal-error": 500,
    "store-unavailable": 503,
    "overloaded": 503,
    "rebuilding": 503,
    "projection-behind": 503,
    "not-sealed-yet": 503,
}

CLOSING: Final = "daybook.closing"
"""An extension of the ASGI scope: an `asyncio.Event`, set when the server is told to end."""
ABORT: Final = "daybook.abort"
"""An extension of the ASGI scope: ends the connection without waiting for what is in its buffers."""

STORE_ERRORS: Final = (DBAPIError, PoolTimeoutError, RedisError, ConnectionFailure, ExecutionTimeout, WTimeoutError, OSError)
"""What drivers raise; `OSError` is also the parent of `TimeoutError`."""

RETRY_AFTER_SECONDS: Final = 1
ERRORS_MAX: Final = 20
PROBLEM_JSON: Final = "application/problem+json"
JSON: Final = "application/json"

# Sent with every answer. The pages of the documentation need scripts, and so only get the part about frames.
_EVERYWHERE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_SECURITY_HEADERS: Final = (*_EVERYWHERE, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
_PAGE_HEADERS: Final = (*_EVERYWHERE, (b"content-security-policy", b"frame-ancestors 'none'"))
_PAGES: Final = {"/docs", "/redoc", "/docs/oauth2-redirect"}
_TLS_HEADERS: Final = ((b"strict-transport-security", b"max-age=31536000"),)


class MethodNotAllowed(BadRequest):
    """This path does not take this method."""

    code = "method-not-allowed"


class InternalError(DaybookError):
    """Daybook made a mistake."""

    code = "internal-error"


def prepare(app: FastAPI, log_level: str) -> None:
    """Give the app its logs, its error handlers, its middleware, its problem pages and its OpenAPI document."""
    configure_logs(log_level)
    for error_type in (RequestValidationError, HTTPException, DaybookError, *STORE_ERRORS, Exception):
        app.add_exception_handler(error_type, answer_error)
    app.add_middleware(Envelope)
    app.add_api_route("/problems/{code}", explain_problem, include_in_schema=False)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the documented way to change the document


class Envelope:
    """Puts the same headers on every answer, and says in one line why a start failed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, _one_line_failure(send))
        else:
            await self.app(scope, receive, enveloped(scope, send))


def enveloped(scope: Scope, send: Send) -> Send:
    """Gives the request its id; the returned `send` adds it and the other headers to the answer."""
    request_id = new_id()
    state = scope.setdefault("state", {})
    state["request_id"] = request_id
    began = perf_counter()

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            limits = state.get("limit_headers", ())
            status = message["status"]
            if status in REFUSED and "refusals" in state:
                state["refusals"].note(scope, status)
            if "requests" in state:
                state["requests"].note(scope, status, perf_counter() - began)
            always = _PAGE_HEADERS if scope["path"] in _PAGES else _SECURITY_HEADERS
            message["headers"] = [*message.get("headers", ()), (b"request-id", request_id.encode()), *limits, *always]
            if scope["scheme"] == "https":
                message["headers"] += _TLS_HEADERS
        await send(message)

    return send_with_headers


def across_origins(answer: ASGIApp, origins: str) -> ASGIApp:
    """The app, open to the scripts of these web pages; closed to those of all pages where there are none."""
    if not origins:
        return answer
    return CORSMiddleware(
        answer,
        allow_origins=origins.split(","),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_SENT_ACROSS,
        expose_headers=_READ_ACROSS,
    )


_SENT_ACROSS: Final = [
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    *("Daybook-Ledger", "Daybook-Min-Position", "Prefer", "Traceparent"),
]
_READ_ACROSS: Final = [
    *("Daybook-Position", "Daybook-Stale", "ETag", "Idempotency-Replayed", "Link", "Location"),
    *("RateLimit", "RateLimit-Policy", "Request-Id", "Retry-After"),
]


def _one_line_failure(send: Send) -> Send:
    """Starlette reports a failed start with a traceback; for an error of ours, the last line says it all."""

    async def send_shortened(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "lifespan.startup.failed":
            last = message.get("message", "").rstrip().rpartition("\n")[2]
            if any(last.startswith(f"shared.errors.{error.__name__}: ") for error in _subclasses(DaybookError)):
                message = {**message, "message": f"daybook: {last.partition(': ')[2]}"}
        await send(message)

    return send_shortened


# ── problem documents ────────────────────────────────────────────────────────────────────────────────────────────────


def problem(error: DaybookError) -> dict[str, Any]:
    """The problem document, without the id of the request."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title(),
        "status": STATUS[error.code],
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        **error.extra,
    }


def problem_response(request: Request, error: DaybookError, headers: Mapping[str, str] | None = None) -> Response:
    body = {**problem(error), "request_id": request.state.request_id}
    if isinstance(error, Unavailable):
        seconds = error.extra.get("retry_after_seconds", RETRY_AFTER_SECONDS)
        headers = {**(headers or {}), "Retry-After": str(seconds)}
    elif isinstance(error, (RequestTimeout, PayloadTooLarge)):
        # What else comes of the body is of no use, and is not waited for.
        headers = {**(headers or {}), "Connection": "close"}
    elif isinstance(error, Unauthorized):
        headers = {**(headers or {}), "WWW-Authenticate": 'Bearer realm="daybook"'}
    return Response(orjson.dumps(body), STATUS[error.code], headers, PROBLEM_JSON)


async def answer_error(request: Request, error: Any) -> Response:
    """The problem document for anything that can be raised while a request is answered."""
    known = _as_ours(error)
    if isinstance(known, InternalError):
        log.error("unexpected error", path=request.url.path, request_id=request.state.request_id, exc_info=error)
    elif known is not error and isinstance(known, StoreUnavailable):
        log.warning("store unavailable", path=request.url.path, error=type(error).__name__)
    return problem_response(request, known, getattr(error, "headers", None))


def _as_ours(error: Any) -> DaybookError:
    match error:
        case Rejection() | BadRequest() | Unavailable():
            return error
        case RequestValidationError():
            return validation_failed(error.errors())
        case HTTPException():
            return _HTTP_ERRORS.get(error.status_code, ValidationFailed)()
        case _ if isinstance(error, STORE_ERRORS) and is_unavailability(error):
            return StoreUnavailable()
    return InternalError()


class NoSuchPath(NotFound):
    """There is nothing at this path."""


_HTTP_ERRORS: Final[Mapping[int, type[DaybookError]]] = {404: NoSuchPath, 405: MethodNotAllowed, 413: PayloadTooLarge}


def validation_failed(errors: Any, kind: type[BadRequest] = ValidationFailed) -> BadRequest:
    """`errors` in pydantic's form; each becomes a JSON Pointer (or a parameter's name) with pydantic's message."""
    return kind(errors=[{"pointer": _pointer(error["loc"]), "detail": _without_input(error)} for error in errors][:ERRORS_MAX])


def _pointer(location: tuple[str | int, ...]) -> str:
    """`("body", "metadata", "a/b")` → `#/metadata/a~1b`; `("query", "limit")` → `query: limit`."""
    place, *path = location or ("body",)
    if place != "body":
        return f"{place}: {'.'.join(_printable(str(part)) for part in path)}"
    return "#" + "".join("/" + _printable(str(part)).replace("~", "~0").replace("/", "~1") for part in path)


def _printable(text: str) -> str:
    """Names of unknown fields are input: cut, and without what JSON cannot carry."""
    return text[:64].encode("utf-8", "replace").decode()


def _without_input(error: Mapping[str, Any]) -> str:
    return "Unknown field" if error["type"] == "extra_forbidden" else str(error["msg"])


def is_unavailability(error: BaseException) -> bool:
    """Whether a driver's error means that the store is away, busy or too slow, and not that we asked for nonsense."""
    if not isinstance(error, DBAPIError):
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    # No SQLSTATE: the connection broke. 08 connection, 25 ended transaction, 40 rollback, 53 resources, 55 lock, 57 intervention.
    return sqlstate is None or error.connection_invalidated or sqlstate[:2] in {"08", "25", "40", "53", "55", "57", "58"}


# ── access ───────────────────────────────────────────────────────────────────────────────────────────────────────────


LEDGER_ID_WRONG: Final = "Daybook-Ledger must be a lower-case name of letters, digits and hyphens, at most 31 long."


async def admit(request: Request, rule: Rule) -> Principal:
    """Who calls. Asked by every route before it reads anything else of the request.

    Raises:
        Unauthorized, Forbidden: the caller is nobody, or may not do this.
        RateLimited: the caller, or nobody from this address, may ask no more for now.
    """
    principal: Principal = await request.state.gate.admit(request.scope, request.headers.getlist("authorization"))
    rule.require(principal)
    return principal


async def meet(request: Request) -> None:
    """Asked instead of `admit` by routes that anybody may use.

    Raises:
        RateLimited: nobody from this address may ask more for now.
    """
    await request.state.gate.meet(request.scope)


def same_ledger(request: Request, principal: Principal) -> str:
    """The ledger that is asked for: the key's own. Any other one answers as if it were missing, whether it is or not.

    Raises:
        NotFound: there is no such ledger for this caller.
        ValidationFailed: `Daybook-Ledger` is none.
    """
    ledger_id = request.headers.get("daybook-ledger", principal.ledger_id)
    if ledger_id == principal.ledger_id:
        return ledger_id
    if not LEDGER_ID.fullmatch(ledger_id):
        raise ValidationFailed(LEDGER_ID_WRONG)
    raise NotFound("There is no such ledger.")


# ── OpenAPI ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what can go wrong, by status, with an example for each code."""
    by_status: dict[int, list[type[DaybookError]]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(_ERRORS[code])
    return {status: _documented(errors) for status, errors in sorted(by_status.items())}


def _documented(errors: list[type[DaybookError]]) -> dict[str, Any]:
    examples = {error.code: {"summary": error.title(), "value": problem(error())} for error in errors}
    return {
        "description": " · ".join(error.title() for error in errors),
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }


_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "A problem document (RFC 9457). `code` is stable; further members depend on it.",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "A page about this code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "retryable": {"type": "boolean", "description": "Whether the same request can succeed later."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = _PROBLEM_SCHEMA
        document["components"]["securitySchemes"] = {SECURITY_SCHEME: {"type": "http", "scheme": "bearer"}}
        # FastAPI documents its own form of a 422, which never leaves this app.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema


async def explain_problem(code: str) -> Response:
    """The page of a problem code."""
    error = _ERRORS.get(code)
    if error is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    retry = "The same request can succeed later." if error.retryable else "The same request will not succeed later."
    return Response(f"{code}: {error.title()}. Status {STATUS[code]}. {retry}\n", media_type="text/plain")


def _subclasses(error_type: type[DaybookError]) -> Iterator[type[DaybookError]]:
    yield error_type
    for subclass in error_type.__subclasses__():
        yield from _subclasses(subclass)


# Where several share a code, the first of them in the tree stands for all.
_ERRORS: Final = {error.code: error for error in [*_subclasses(DaybookError)][::-1] if getattr(error, "code", None) in STATUS}
