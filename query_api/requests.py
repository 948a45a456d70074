"""From an HTTP request to a question's arguments, and from what was found to the answer.

FastAPI documents the routes. `QueryRoute` reads the arguments instead of it: a parameter that is unknown or given twice is
refused on every route alike, and this is the hot path.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, get_type_hints
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from query_api.parameters import PageParameters, Parameters, Position
from query_api.queries import Key
from query_api.reading import AsOf, Freshness, View
from shared.access import Principal, rule_of
from shared.errors import NotFound, ValidationFailed
from shared.http import JSON, across_origins, admit, answer_error, enveloped, problem_response, same_ledger, validation_failed

JSON_LINES: Final = "application/x-ndjson"
PARAMETERS_MAX: Final = 50
WAIT_SECONDS_DEFAULT: Final = 2.0

_ANY_POSITION: Final = Freshness()
_WAIT: Final = re.compile(r'"?([0-9]{1,6})"?')
_TAG: Final = re.compile(r'"[^"]*"')


class Question(Request):
    """An HTTP request for something that the read models or the log know."""

    principal: Principal

    def view(self) -> View:
        """The read models as the headers ask for them.

        Raises:
            ValidationFailed: `Daybook-Ledger` or `Daybook-Min-Position` is none.
        """
        return View(self.state.reader, self.ledger_id(), self._freshness(), self.principal.user_id)

    def ledger_id(self) -> str:
        return same_ledger(self, self.principal)

    def _freshness(self) -> Freshness:
        asked = self.headers.get("daybook-min-position")
        if asked is None:
            return _ANY_POSITION
        min_position = _validated(_POSITION, asked, "header", "daybook-min-position")
        preferences = _preferences(self.headers.getlist("prefer"))
        wait = _WAIT.fullmatch(preferences.get("wait", ""))
        wait_seconds = min(float(wait[1]) if wait else WAIT_SECONDS_DEFAULT, self.state.settings.query_wait_max_ms / 1000)
        return Freshness(min_position, wait_seconds, strict=preferences.get("handling") == "strict")

    # ── cursors ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def key(self, parameters: PageParameters) -> Key | None:
        """Where the asked page begins; None at the beginning of the list.

        Raises:
            CursorInvalid: the cursor is not of this list with these filters.
        """
        if parameters.cursor is None:
            return None
        key: Key = self.state.cursors.open(self._scope(parameters), parameters.cursor)
        return key

    def _scope(self, parameters: PageParameters) -> Mapping[str, Any]:
        asked = {"list": self.scope["path"], "ledger_id": self.ledger_id(), "filters": parameters.filters()}
        return asked | {"customer": self.principal.user_id}

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def one(self, found: AsOf[Any]) -> Response:
        """One thing, a dict, with an ETag if it has versions; 304 where the caller has it already, 404 where there is none.

        `position` in the body is that of the answer, unless the thing itself has one: a fact stands at its place in the log.
        """
        headers, item = _headers(found), found.data
        if item is None:
            return problem_response(self, NotFound(), headers)
        if "version" in item:
            headers["ETag"] = tag = f'"v{item["version"]}"'
            if self._has(tag):
                return Response(None, 304, headers)
        item.setdefault("position", found.position)
        return Response(orjson.dumps(item), 200, headers, JSON)

    def _has(self, tag: str) -> bool:
        asked = self.headers.get("if-none-match", "")
        return asked.strip() == "*" or tag in _TAG.findall(asked)

    def page(self, found: AsOf[Any], parameters: PageParameters | None = None, *, as_lines: bool = False) -> Response:
        """A `Page` of a list, or 404 for None: there is no such list. The next page is in the body and in `Link`."""
        headers, page = _headers(found), found.data
        if page is None:
            return problem_response(self, NotFound(), headers)
        cursor = None
        if parameters and page.next_key:
            cursor = self.state.cursors.seal(self._scope(parameters), page.next_key)
            headers["Link"] = f'<{self._link(cursor)}>; rel="next"'
        if as_lines:
            return Response(_lines(page.items), 200, headers, JSON_LINES)
        body = {"items": page.items, "next": cursor, "position": found.position}
        return Response(orjson.dumps(body), 200, headers, JSON)

    def streamed(self, found: AsOf[Any], file_name: str) -> Response:
        """JSON in pieces, to be saved as a file; 404 for None."""
        headers = _headers(found)
        if found.data is None:
            return problem_response(self, NotFound(), headers)
        headers["Content-Disposition"] = f'attachment; filename="{file_name}.json"'
        return StreamingResponse(found.data, 200, headers, JSON)

    def _link(self, cursor: str) -> str:
        parameters = [(name, value) for name, value in _query(self) if name != "cursor"]
        return f"{quote(self.scope['path'])}?{urlencode([*parameters, ('cursor', cursor)])}"

    def last_event_id(self) -> int | None:
        """Where a stream of events was broken off.

        Raises:
            ValidationFailed: it is no position.
        """
        last = self.headers.get("last-event-id")
        return None if last is None else _validated(_POSITION, last, "header", "last-event-id")

    def accepts_lines(self) -> bool:
        return JSON_LINES in self.headers.get("accept", "")


def _headers(found: AsOf[Any]) -> dict[str, str]:
    headers = {"Daybook-Position": str(found.position)}
    if found.stale:
        headers["Daybook-Stale"] = "true"
    return headers


def _lines(items: Sequence[Any]) -> bytes:
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in items)


def _preferences(headers: Sequence[str]) -> dict[str, str]:
    """`Prefer` as in RFC 7240: what is not understood is ignored, and of two alike the first counts."""
    parts = [part.partition(";")[0].partition("=") for header in headers for part in header.lower().split(",")]
    return {name.strip(): value.strip() for name, _, value in reversed(parts)}


# ── the route ────────────────────────────────────────────────────────────────────────────────────────────────────────

_POSITION: Final = TypeAdapter[int](Position)


class QueryRoute(APIRoute):
    """Calls the endpoint with `question`, the names of the path, and the parameters as the model that the endpoint declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        template = self.path
        rule = rule_of(template, self.openapi_extra)
        hints = get_type_hints(endpoint, include_extras=True)
        names = {name: TypeAdapter[Any](hints[name]) for name in self.param_convertors}
        models = [(name, kind) for name, kind in get_type_hints(endpoint).items() if _is_parameters(kind)]

        async def respond(request: Request) -> Response:
            request.scope["state"]["route"] = template
            question = Question(request.scope, request.receive)
            question.principal = await admit(question, rule)
            path = question.path_params
            arguments = {name: _validated(adapter, path[name], "path", name) for name, adapter in names.items()}
            query = _query(question)
            for name, model in models or [("", Parameters)]:
                arguments[name] = _read(model, query)
            arguments.pop("", None)
            return await endpoint(question=question, **arguments)

        return respond


class QueryApp(FastAPI):
    """FastAPI, with a short way for questions.

    A question is looked up by the shape of its path and answered at once. Everything else, and the documentation of these too,
    goes the whole way: middleware, router, dependencies. Both ways read, answer and fail alike.
    """

    def include_questions(self, router: APIRouter, origins: str) -> None:
        """Takes the router's routes, all of them made by then. `origins` are those whose pages may ask."""
        self.include_router(router)
        self._short_way = {
            _shape(route.path): (tuple(route.param_convertors), route.get_route_handler())
            for route in router.routes
            if isinstance(route, QueryRoute) and _varies(route)
        }
        self._answer_across = across_origins(self._answer, origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer_across(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_question = scope["type"] == "http" and scope["method"] == "GET"
        names, respond = self._short_way.get(_shape(scope["path"]), _NO_QUESTION) if is_question else _NO_QUESTION
        if respond is None:
            await super().__call__(scope, receive, send)
            return
        send = enveloped(scope, send)
        scope["path_params"] = {name: scope["path"].split("/")[_VARIABLE_PART] for name in names}
        request = Request(scope, receive)
        try:
            response = await respond(request)
        except Exception as error:  # noqa: BLE001 # each has its problem document, a mistake of ours too
            response = await answer_error(request, error)
        await response(scope, receive, send)


_NO_QUESTION: Final = ((), None)
_VARIABLE_PART: Final = 3


def _shape(path: str) -> tuple[str, ...]:
    """The parts of a path without the one that may vary, which is always the same: `/v1/accounts/{account_id}/balance`."""
    parts = path.split("/")
    if len(parts) > _VARIABLE_PART and parts[_VARIABLE_PART]:
        parts[_VARIABLE_PART] = "{}"
    return tuple(parts)


def _varies(route: APIRoute) -> bool:
    """Where the part that may vary does not, the shape of a path says too little."""
    return len(route.path.split("/")) <= _VARIABLE_PART or bool(route.param_convertors)


def _is_parameters(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Parameters)


def _query(question: Question) -> list[tuple[str, str]]:
    text: str = question.scope["query_string"].decode("latin-1")
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise ValidationFailed("There are too many parameters.") from None


def _read(model: type[Parameters], query: Sequence[tuple[str, str]]) -> Any:
    parameters = dict(query)
    if len(parameters) != len(query):
        raise ValidationFailed("A parameter is given more than once.")
    return _validated(model.model_validate, parameters, "query")


def _validated(check: Any, value: Any, *location: str) -> Any:
    """Raises:
    ValidationFailed: says what is wrong where, without what it was.
    """
    try:
        return check.validate_python(value) if isinstance(check, TypeAdapter) else check(value)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False, include_context=False)
        raise validation_failed([{**error, "loc": (*location, *error["loc"])} for error in errors]) from None


# ── documentation ────────────────────────────────────────────────────────────────────────────────────────────────────


def _header(name: str, description: str, example: str, **schema: Any) -> dict[str, Any]:
    schema = schema or {"type": "string"}
    return {"name": name, "in": "header", "schema": schema, "description": description, "example": example}


LEDGER_HEADER: Final = _header(
    "Daybook-Ledger",
    "The ledger to read; the API key's own, which is the only one it can be.",
    "main",
    type="string",
    pattern="^[a-z][a-z0-9-]{0,30}$",
)
QUESTION_HEADERS: Final = [
    LEDGER_HEADER,
    _header(
        "Daybook-Min-Position",
        "The answer must hold everything up to this position, the `Daybook-Position` of a command; waits 2 seconds at most.",
        "42",
        type="string",
        pattern="^(0|[1-9][0-9]{0,15})$",
    ),
    _header(
        "Prefer",
        "`wait=N`: wait up to N seconds for the position. `handling=strict`: 503 instead of an answer that is marked as stale.",
        "wait=5, handling=strict",
    ),
]
IF_NONE_MATCH: Final = _header("If-None-Match", "ETags that the caller has: 304 where one is current.", '"v7"')

LAST_EVENT_ID: Final = _header(
    "Last-Event-ID",
    "The `id` that came last, to go on after it; browsers send it by themselves. It counts before `after`.",
    "42",
    type="string",
    pattern="^(0|[1-9][0-9]{0,15})$",
)
_POSITION_HEADER: Final = {
    "description": "The answer holds everything up to this position of the ledger's log.",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
    "example": "42",
}
_STALE_HEADER: Final = {
    "description": "Present where `Daybook-Min-Position` was not reached in time.",
    "schema": {"type": "string", "enum": ["true"]},
}
_ETAG_HEADER: Final = {"description": "The version.", "schema": {"type": "string"}, "example": '"v7"'}
_LINK_HEADER: Final = {"description": "The next page, where there is one.", "schema": {"type": "string"}}

ANSWER_HEADERS: Final = {"Daybook-Position": _POSITION_HEADER, "Daybook-Stale": _STALE_HEADER}
VERSIONED_HEADERS: Final = {**ANSWER_HEADERS, "ETag": _ETAG_HEADER}
PAGE_HEADERS: Final = {**ANSWER_HEADERS, "Link": _LINK_HEADER}
