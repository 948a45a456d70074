"""Problem documents (RFC 9457): every error is answered as `application/problem+json` with a stable code.

`STATUS` is the only place that maps codes to HTTP statuses. Every code has a page at `/problems/<code>`. Never repeat input in a
problem document, because it may not even be possible to encode the input as JSON.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pymongo.errors import ConnectionFailure, ExecutionTimeout, WTimeoutError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

import shared.day_errors  # defines rejections whose codes are below
import shared.hold_errors  # as above
import shared.ledger_errors  # as above
import shared.limit_errors  # as above
import shared.operation_errors  # as above
import shared.reporting_errors  # as above
import shared.reversal_errors  # as above
import shared.schedule_errors  # as above
import shared.search_errors  # as above
import shared.timeline_errors  # as above
import shared.webhook_errors  # noqa: F401 # as above
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

log = structlog.get_logger()

STATUS: Final[Mapping[str, int]] = {
    "malformed-request": 400,
    "malformed-json": 400,
    "cursor-invalid": 400,
    "idempotency-key-required": 400,
    "idempotency-key-invalid": 400,
    "unauthorized": 401,
    "login-refused": 401,
    "reset-token-invalid": 401,
    "forbidden": 403,
    "password-wrong": 403,
    "not-found": 404,
    "reporting-off": 404,
    "search-off": 404,
    "timeline-off": 404,
    "method-not-allowed": 405,
    "parquet-off": 406,
    "request-timeout": 408,
    "ledger-closed": 409,
    "ledger-limit-exceeded": 409,
    "account-closed": 409,
    "account-frozen": 409,
    "user-inactive": 409,
    "user-erased": 409,
    "insufficient-funds": 409,
    "account-not-empty": 409,
    "balance-out-of-range": 409,
    "amount-outside-limits": 409,
    "limit-exceeded": 409,
    "hold-not-active": 409,
    "hold-amount-exceeded": 409,
    "too-many-holds": 409,
    "transfer-not-reversible": 409,
    "day-not-ended": 409,
    "day-out-of-order": 409,
    "transfer-already-reversed": 409,
    "reversal-amount-exceeded": 409,
    "too-many-reversals": 409,
    "schedule-not-active": 409,
    "schedule-run-due": 409,
    "too-many-webhooks": 409,
    "operation-under-way": 409,
    "projection-paused": 409,
    "nothing-kept": 409,
    "event-refused": 409,
    "generation-refused": 409,
    "email-taken": 409,
    "id-taken": 409,
    "length-required": 411,
    "stream-version-mismatch": 412,
    "payload-too-large": 413,
    "unsupported-media-type": 415,
    "validation-failed": 422,
    "amount-out-of-range": 422,
    "currency-unknown": 422,
    "postings-unbalanced": 422,
    "same-account": 422,
    "currency-mismatch": 422,
    "currency-not-allowed": 422,
    "hold-expiry-passed": 422,
    "time-zone-unknown": 422,
    "schedule-never-due": 422,
    "webhook-url-refused": 422,
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

DRIVER_ERRORS: Final = (DBAPIError, PoolTimeoutError, RedisError, ConnectionFailure, ExecutionTimeout, WTimeoutError, OSError)
"""The errors of store drivers that a route can raise. `OSError` also covers its subclass `TimeoutError`."""

RETRY_AFTER_SECONDS: Final = 1
ERRORS_MAX: Final = 20
_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")
PROBLEM_JSON: Final = "application/problem+json"
JSON: Final = "application/json"


class MethodNotAllowed(BadRequest):
    """This path does not allow this method."""

    code = "method-not-allowed"


class InternalError(DaybookError):
    """Daybook made a mistake."""

    code = "internal-error"


class NoSuchPath(NotFound):
    """There is nothing at this path."""


def problem(error: DaybookError) -> dict[str, Any]:
    """Returns the problem document for an error, without the request id."""
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
        # Closing the connection avoids reading the rest of the body, which nobody needs.
        headers = {**(headers or {}), "Connection": "close"}
    elif isinstance(error, Unauthorized):
        headers = {**(headers or {}), "WWW-Authenticate": 'Bearer realm="daybook"'}
    return Response(orjson.dumps(body), STATUS[error.code], headers, PROBLEM_JSON)


async def answer_error(request: Request, error: Any) -> Response:
    """Returns the problem document for any exception that a request raises. Logs errors in our code and errors of stores."""
    if getattr(error, "status_code", None) == HTTPStatus.METHOD_NOT_ALLOWED:
        return _answer_other_method(request)
    known = _as_daybook_error(error)
    if isinstance(known, InternalError):
        log.error("unexpected error", path=request.url.path, request_id=request.state.request_id, exc_info=error)
    elif known is not error and isinstance(known, StoreUnavailable):
        log.warning("store unavailable", path=request.url.path, error=type(error).__name__)
    return problem_response(request, known, getattr(error, "headers", None))


def _answer_other_method(request: Request) -> Response:
    """Answers a request with a method that no route of its path has. Every path answers OPTIONS."""
    methods = [method for method in _METHODS if _is_allowed(request, method)]
    headers = {"Allow": ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])}
    if request.method == "OPTIONS":
        return Response(None, HTTPStatus.NO_CONTENT, headers)
    return problem_response(request, MethodNotAllowed(), headers)


def _is_allowed(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _as_daybook_error(error: Any) -> DaybookError:
    match error:
        case Rejection() | BadRequest() | Unavailable():
            return error
        case RequestValidationError():
            return validation_failed(error.errors())
        case HTTPException():
            return _ROUTER_ERRORS.get(error.status_code, ValidationFailed)()
        case _ if isinstance(error, DRIVER_ERRORS) and is_unavailability(error):
            return StoreUnavailable()
    return InternalError()


_ROUTER_ERRORS: Final[Mapping[int, type[DaybookError]]] = {404: NoSuchPath, 413: PayloadTooLarge}


def is_unavailability(error: BaseException) -> bool:
    """True if a driver's error means that the store is down, busy or too slow. False if our request to the store was wrong."""
    if not isinstance(error, DBAPIError):
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    # No SQLSTATE: the connection broke. 08 connection, 25 ended transaction, 40 rollback, 53 resources, 55 lock, 57 intervention.
    return sqlstate is None or error.connection_invalidated or sqlstate[:2] in {"08", "25", "40", "53", "55", "57", "58"}


def validation_failed(errors: Any, kind: type[BadRequest] = ValidationFailed) -> BadRequest:
    """Makes a validation problem from pydantic's `errors`. Each gets a JSON Pointer (or a parameter's name) and a message."""
    return kind(errors=[{"pointer": _pointer(error["loc"]), "detail": _without_input(error)} for error in errors][:ERRORS_MAX])


def _pointer(location: tuple[str | int, ...]) -> str:
    """Turns `("body", "metadata", "a/b")` into `#/metadata/a~1b`, and `("query", "limit")` into `query: limit`."""
    place, *path = location or ("body",)
    if place != "body":
        return f"{place}: {'.'.join(_printable(str(part)) for part in path)}"
    return "#" + "".join("/" + _printable(str(part)).replace("~", "~0").replace("/", "~1") for part in path)


def _printable(text: str) -> str:
    """Shortens a name and replaces characters that UTF-8 cannot encode. The name of an unknown field comes from the caller."""
    return text[:64].encode("utf-8", "replace").decode()


def _without_input(error: Mapping[str, Any]) -> str:
    return "Unknown field" if error["type"] == "extra_forbidden" else str(error["msg"])


# ── the page of each code ────────────────────────────────────────────────────────────────────────────────────────────


async def explain_problem(code: str) -> Response:
    """Answers with the page about a problem code."""
    error = ERROR_OF_CODE.get(code)
    if error is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    retry = "The same request can succeed later." if error.retryable else "The same request will not succeed later."
    return Response(f"{code}: {error.title()}. Status {STATUS[code]}. {retry}\n", media_type="text/plain")


def _subclasses(error_type: type[DaybookError]) -> Iterator[type[DaybookError]]:
    yield error_type
    for subclass in error_type.__subclasses__():
        yield from _subclasses(subclass)


# If several error classes share a code, the first one in the class tree is used.
ERROR_OF_CODE: Final = {
    error.code: error for error in [*_subclasses(DaybookError)][::-1] if getattr(error, "code", None) in STATUS
}
