"""Reads the arguments of queries from HTTP requests, and builds the answers from their results.

FastAPI documents the routes, but `QueryRoute` reads the arguments. It rejects unknown and repeated parameters on every route, and
is faster than FastAPI.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, get_type_hints
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from query_api.cursors import CursorBinding, CursorKey
from query_api.documentation import JSON_LINES
from query_api.parameters import PageParameters, Parameters, PositionParameter
from query_api.reading import AsOf, CallerView, Freshness
from shared.errors import NotFound, ValidationFailed
from shared.identity.access import Principal, access_rule_of
from shared.web.admission import authorize, own_ledger_id
from shared.web.direct_routes import DirectRoute
from shared.web.headers import SentRequest, qualities, quality_of
from shared.web.problems import JSON, problem_response, validation_failed

PARAMETERS_MAX: Final = 50
WAIT_SECONDS_DEFAULT: Final = 2.0

_ANY_POSITION: Final = Freshness()
_WAIT: Final = re.compile(r'"?([0-9]{1,6})"?')
_TAG: Final = re.compile(r'"[^"]*"')


class QueryRequest(SentRequest):
    """An HTTP request to the query API, with methods that read its headers and build the answer."""

    principal: Principal
    path_arguments: dict[str, Any] = {}  # noqa: RUF012 # the validated variables of the path; replaced as a whole
    query: Sequence[tuple[str, str]] = ()
    """The parameters of the query string, as they were sent."""

    def view(self) -> CallerView:
        """Returns a view of the read models for this caller, as fresh as the headers ask for.

        Raises:
            NotFound: `Daybook-Ledger` names a ledger that is not the caller's.
            ValidationFailed: `Daybook-Ledger` or `Daybook-Min-Position` has the wrong form.
        """
        return CallerView(self.state.reader, self.ledger_id(), self._freshness(), self.principal.user_id)

    def ledger_id(self) -> str:
        return own_ledger_id(self, self.principal)

    def _freshness(self) -> Freshness:
        asked = self.headers.get("daybook-min-position")
        if asked is None:
            return _ANY_POSITION
        min_position = _validated(_POSITION, asked, "header", "daybook-min-position")
        preferred = preferences(self.headers.getlist("prefer"))
        wait = _WAIT.fullmatch(preferred.get("wait", ""))
        wait_seconds = min(float(wait[1]) if wait else WAIT_SECONDS_DEFAULT, self.state.settings.query_wait_max_ms / 1000)
        return Freshness(min_position, wait_seconds, strict=preferred.get("handling") == "strict")

    # ── cursors ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def cursor_key(self, parameters: PageParameters) -> CursorKey | None:
        """Returns the key in the cursor, after which the page begins. Returns None without a cursor, for the first page.

        Raises:
            CursorInvalid: the cursor was not made for this caller, this list and these filters.
        """
        if parameters.cursor is None:
            return None
        key: CursorKey = self.state.cursors.verify(self._binding(parameters), parameters.cursor)
        return key

    def sign_cursor(self, parameters: PageParameters, key: CursorKey | None) -> str | None:
        """Returns the cursor of the page that begins after `key`, or None if there is no such page."""
        cursor: str | None = self.state.cursors.sign(self._binding(parameters), key) if key else None
        return cursor

    def _binding(self, parameters: PageParameters) -> CursorBinding:
        return {
            "list": self.state.route,
            "path": self.path_arguments,
            "ledger_id": self.ledger_id(),
            "filters": parameters.filters(),
            "customer": self.principal.user_id,
        }

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer_one(self, found: AsOf[Any], *, changes_with_time: bool = False) -> Response:
        """Answers with one resource as JSON, or with 404 if `found.data` is None.

        A resource with a version gets an ETag, and 304 if the caller already has this version. `position` in the body is the
        position of the answer. A resource that has a position of its own, such as a transfer, keeps its own. One that changes
        with time may change without a new version, and is always answered in full.
        """
        headers, item = _headers(found), found.data
        if item is None:
            return problem_response(self, NotFound(), headers)
        if "version" in item:
            headers["ETag"] = tag = f'"v{item["version"]}"'
            if self._has(tag) and not changes_with_time:
                return Response(None, 304, headers)
        item.setdefault("position", found.position)
        return Response(orjson.dumps(item), 200, headers, JSON)

    def _has(self, tag: str) -> bool:
        asked = ",".join(self.headers.getlist("if-none-match"))
        return asked.strip() == "*" or tag in _TAG.findall(asked)

    def answer_page(
        self,
        found: AsOf[Any],
        parameters: PageParameters | None = None,
        *,
        as_lines: bool = False,
        beside: Mapping[str, Any] | None = None,
    ) -> Response:
        """Answers with a page of a list, or with 404 if `found.data` is None.

        The header `Link` leads to the next page. `next` in the body has its cursor. With `as_lines`, the body is JSON Lines.
        `beside` are further members of the body.
        """
        headers, page = _headers(found), found.data
        if page is None:
            return problem_response(self, NotFound(), headers)
        cursor = self.sign_cursor(parameters, page.next_key) if parameters else None
        if cursor:
            headers["Link"] = f'<{self._link(cursor)}>; rel="next"'
        if as_lines:
            return Response(_lines(page.items), 200, headers, JSON_LINES)
        body = {"items": page.items, "next": cursor, "position": found.position, **(beside or {})}
        return Response(orjson.dumps(body), 200, headers, JSON)

    def answer_streamed(self, found: AsOf[Any], file_name: str) -> Response:
        """Answers with a JSON file that is sent in pieces, or with 404 if `found.data` is None."""
        headers = _headers(found)
        if found.data is None:
            return problem_response(self, NotFound(), headers)
        headers["Content-Disposition"] = f'attachment; filename="{file_name}.json"'
        return StreamingResponse(found.data, 200, headers, JSON)

    def _link(self, cursor: str) -> str:
        parameters = [(name, value) for name, value in self.query if name != "cursor"]
        return f"{quote(self.scope['path'])}?{urlencode([*parameters, ('cursor', cursor)])}"

    def last_event_id(self) -> int | None:
        """Returns the position in `Last-Event-ID`, after which a stream of events continues, or None without this header.

        Raises:
            ValidationFailed: `Last-Event-ID` is not a position.
        """
        last = self.headers.get("last-event-id")
        return None if last is None else _validated(_POSITION, last, "header", "last-event-id")

    def accepts_lines(self) -> bool:
        """True if the caller asks for JSON Lines, and does not prefer JSON."""
        accepted = qualities(self.headers.getlist("accept"))
        return accepted.get(JSON_LINES, 0.0) > 0 and accepted[JSON_LINES] >= quality_of(JSON, accepted)


def _headers(found: AsOf[Any]) -> dict[str, str]:
    headers = {"Daybook-Position": str(found.position)}
    if found.stale:
        headers["Daybook-Stale"] = "true"
    return headers


def _lines(items: Sequence[Any]) -> bytes:
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in items)


def preferences(headers: Sequence[str]) -> dict[str, str]:
    """Parses `Prefer` headers (RFC 7240) and returns the values by name. If a name occurs twice, its first value counts."""
    parts = [part.partition(";")[0].partition("=") for header in headers for part in header.lower().split(",")]
    return {name.strip(): value.strip() for name, _, value in reversed(parts)}


# ── the route ────────────────────────────────────────────────────────────────────────────────────────────────────────

_POSITION: Final = TypeAdapter[int](PositionParameter)


class QueryRoute(DirectRoute):
    """A route that calls its endpoint with the request, the variables of the path, and the query parameters as a model."""

    request_class = QueryRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        template = self.path
        rule = access_rule_of(template, self.openapi_extra)
        hints = get_type_hints(endpoint, include_extras=True)
        names = {name: TypeAdapter[Any](hints[name]) for name in self.param_convertors}
        models = [(name, kind) for name, kind in get_type_hints(endpoint).items() if _is_parameters(kind)]

        async def respond(request: Request) -> Response:
            request.scope["state"]["route"] = template
            query_request = request if isinstance(request, QueryRequest) else QueryRequest(request.scope, request.receive)
            query_request.principal = await authorize(query_request, rule)
            path = query_request.path_params
            arguments = {name: _validated(adapter, path[name], "path", name) for name, adapter in names.items()}
            query_request.path_arguments = dict(arguments)
            query_request.query = _query(query_request)
            for name, model in models or [("", Parameters)]:
                arguments[name] = _read(model, query_request.query)
            arguments.pop("", None)
            return await endpoint(request=query_request, **arguments)

        return respond


def _is_parameters(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Parameters)


def _query(request: QueryRequest) -> list[tuple[str, str]]:
    text: str = request.scope["query_string"].decode("latin-1")
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
    """Validates a value with `check` and returns the result.

    Raises:
        ValidationFailed: the value is not valid. The error says what is wrong and where, and does not quote the value.
    """
    try:
        return check.validate_python(value) if isinstance(check, TypeAdapter) else check(value)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False, include_context=False)
        raise validation_failed([{**error, "loc": (*location, *error["loc"])} for error in errors]) from None


def query_router() -> APIRouter:
    """Returns a new router for the routes of one resource."""
    return APIRouter(prefix="/v1", route_class=QueryRoute)
