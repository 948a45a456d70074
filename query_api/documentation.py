"""Builds the OpenAPI documentation of the queries: headers, problems, and the arguments that all routes share."""

from collections.abc import Sequence
from typing import Any, Final

from query_api.responses import Page, as_of, page_of
from shared.identity.access import AccessRule
from shared.web.openapi import problem_responses

JSON_LINES: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"


def _header(name: str, description: str, example: str, **schema: Any) -> dict[str, Any]:
    schema = schema or {"type": "string"}
    return {"name": name, "in": "header", "schema": schema, "description": description, "example": example}


LEDGER_HEADER: Final = _header(
    "Daybook-Ledger",
    "The ledger to read: the caller's own (the default) and no other.",
    "main",
    type="string",
    pattern="^[a-z][a-z0-9-]{0,30}$",
)
QUERY_HEADERS: Final = [
    LEDGER_HEADER,
    _header(
        "Daybook-Min-Position",
        "The answer must include all events up to this position, such as the `Daybook-Position` of a command. The query waits "
        "for it, by default up to 2 seconds.",
        "42",
        type="string",
        pattern="^(0|[1-9][0-9]{0,15})$",
    ),
    _header(
        "Prefer",
        "`wait=N`: wait up to N seconds for `Daybook-Min-Position`. `handling=strict`: if it is not reached in time, answer 503 "
        "instead of a stale answer.",
        "wait=5, handling=strict",
    ),
]
IF_NONE_MATCH: Final = _header("If-None-Match", "The ETags that you have. The answer is 304 if one of them is current.", '"v7"')

LAST_EVENT_ID: Final = _header(
    "Last-Event-ID",
    "The `id` of the last event that you received. The stream continues after it. Browsers send this header automatically. "
    "It takes precedence over `after`.",
    "42",
    type="string",
    pattern="^(0|[1-9][0-9]{0,15})$",
)
_POSITION_HEADER: Final = {
    "description": "The answer includes all events up to this position of the ledger's log.",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
    "example": "42",
}
_STALE_HEADER: Final = {
    "description": "Present if the read model did not reach `Daybook-Min-Position` in time.",
    "schema": {"type": "string", "enum": ["true"]},
}
_ETAG_HEADER: Final = {"description": "The version of the resource.", "schema": {"type": "string"}, "example": '"v7"'}
_LINK_HEADER: Final = {"description": "A link to the next page, if there is one.", "schema": {"type": "string"}}

RESPONSE_HEADERS: Final = {"Daybook-Position": _POSITION_HEADER, "Daybook-Stale": _STALE_HEADER}
VERSIONED_HEADERS: Final = {**RESPONSE_HEADERS, "ETag": _ETAG_HEADER}
PAGE_HEADERS: Final = {**RESPONSE_HEADERS, "Link": _LINK_HEADER}


# The codes of the problems that a query can be answered with: any query, one that reads a read model, and one that reads the log.
ANY_QUERY: Final = ("unauthorized", "forbidden", "rate-limited", "validation-failed", "not-found", "store-unavailable")
READ_MODEL: Final = (*ANY_QUERY, "rebuilding", "projection-behind")
LOG: Final = (*ANY_QUERY, "projection-behind")


def documented(
    shape: Any,
    example: dict[str, Any] | list[dict[str, Any]],
    *problems: str,
    access: AccessRule,
    headers: Sequence[dict[str, Any]] = QUERY_HEADERS,
    response_headers: dict[str, Any] = RESPONSE_HEADERS,
) -> dict[str, Any]:
    """Returns the decorator arguments that document a route: an example answer, problems, headers, and the access rule."""
    answer = {"content": {"application/json": {"example": example}}, "headers": response_headers}
    return {
        "response_model": shape,
        "openapi_extra": {"parameters": list(headers), **access.documented()},
        "responses": {200: answer, **problem_responses(*problems)},
    }


def documented_one(shape: Any, example: dict[str, Any], *, access: AccessRule) -> dict[str, Any]:
    """Returns the decorator arguments that document a route which answers with one resource and its version as an ETag."""
    headers = [*QUERY_HEADERS, IF_NONE_MATCH]
    arguments = documented(shape, as_of(example), *READ_MODEL, access=access, headers=headers, response_headers=VERSIONED_HEADERS)
    arguments["responses"][304] = {"description": "You already have this version."}
    return arguments


def documented_page(item: Any, example: dict[str, Any], *problems: str, access: AccessRule) -> dict[str, Any]:
    """Returns the decorator arguments that document a route which answers with a page of a list."""
    return documented(Page[item], page_of(example), *problems, "cursor-invalid", access=access, response_headers=PAGE_HEADERS)
