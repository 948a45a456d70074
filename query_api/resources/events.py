"""The events of the log: as pages of a list, and as a stream of server-sent events."""

from typing import Annotated, Any, Final

import orjson
from fastapi import Query, Response
from fastapi.sse import EventSourceResponse
from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, EVENT_STREAM, JSON_LINES, LAST_EVENT_ID, LEDGER_HEADER, LOG, documented_page
from query_api.event_stream import open_event_stream
from query_api.lists import ListSlice
from query_api.log_reading import EventFilter, read_log
from query_api.parameters import PageParameters, Parameters, PositionParameter
from query_api.reading import AsOf, CallerView, as_fresh_as_can_be
from query_api.requests import QueryRequest, query_router
from query_api.responses import EUROS, EVENT, MOMENT, TRANSFER, FactPosition, ResponseModel, TimestampText
from shared.identity.access import only
from shared.log.events import EVENT_TYPES
from shared.log.read import read_stream
from shared.web.openapi import problem_responses

router = query_router()


class EventResource(ResponseModel):
    """An event as it is stored. Its personal fields are encrypted."""

    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    metadata: dict[str, Any]
    recorded_at: TimestampText
    hash: Annotated[str, Field(description="The SHA-256 of the previous event's hash and this event, in hexadecimal.")]


class StreamEventResource(EventResource):
    version: Annotated[int, Field(description="The event's place in the stream.")]


EVENT_EXAMPLE: Final = {
    "position": 4,
    "event_id": EVENT,
    "type": "FundsDeposited",
    "schema_version": 1,
    "data": {"account_id": EUROS, "amount": 1250, "balance": 1250, "currency": "EUR", "transfer_id": TRANSFER},
    "metadata": {"command": "Deposit"},
    "recorded_at": MOMENT,
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
STREAM_EVENT_EXAMPLE: Final = {"version": 2, **EVENT_EXAMPLE}
EVENT_STREAM_EXAMPLE: Final = (
    "retry: 1000\n\nid: 4\nevent: FundsDeposited\ndata: " + orjson.dumps(EVENT_EXAMPLE).decode() + "\n\n"
)


def _event_type(value: object) -> object:
    if value not in EVENT_TYPES:
        raise PydanticCustomError("event_type_unknown", "Must be the name of an event type")
    return value


EventType = Annotated[str, BeforeValidator(_event_type), Field(json_schema_extra={"enum": list(EVENT_TYPES)})]


StreamId = Annotated[
    str,
    StringConstraints(pattern=r"^(user|account|transfer|email)-[0-9a-fA-F-]{32,36}$", to_lower=True),
    Field(examples=["account-0198c5a0-0000-7000-8000-0000000000e1"]),
]


class EventParameters(PageParameters):
    after: Annotated[PositionParameter, Field(description="Only events after this position.")] = 0
    type: EventType | None = None
    stream: StreamId | None = None


class EventStreamParameters(Parameters):
    after: Annotated[
        PositionParameter | None,
        Field(description="Only events after this position. By default, only events recorded from now on."),
    ] = None
    type: EventType | None = None
    stream: StreamId | None = None


class StreamParameters(PageParameters):
    after: Annotated[PositionParameter, Field(description="Only events after this version of the stream.")] = 0


async def find_events(view: CallerView, parameters: EventParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of a ledger's events in order: all events, or only those of a type, of a stream, or of both."""
    after = parameters.after if key is None else key[0]
    wanted = EventFilter(parameters.type, parameters.stream)
    position, events = await read_log(
        view, lambda connection: wanted.read(connection, view.ledger_id, after, parameters.limit + 1)
    )
    page = events[: parameters.limit]
    next_key = [page[-1].position] if len(events) > parameters.limit else None
    return as_fresh_as_can_be(AsOf(position, ListSlice([event.members() for event in page], next_key)), view.freshness)


async def find_stream_events(
    view: CallerView, stream_id: str, parameters: StreamParameters, key: CursorKey | None
) -> AsOf[ListSlice | None]:
    """Reads one page of a stream's events with their versions, or returns None if there is no such stream."""
    after = parameters.after if key is None else key[0]
    position, events = await read_log(
        view, lambda connection: read_stream(connection, view.ledger_id, stream_id, after, parameters.limit + 1)
    )
    page = [{"version": version, **event.members()} for version, event in enumerate(events, after + 1)][: parameters.limit]
    next_key = [page[-1]["version"]] if len(events) > parameters.limit else None
    found = ListSlice(page, next_key) if page or after else None
    return as_fresh_as_can_be(AsOf(position, found), view.freshness)


def documented_events(item: Any, example: dict[str, Any]) -> dict[str, Any]:
    arguments = documented_page(item, example, *LOG, access=only("events:read"))
    lines = {
        "schema": {
            "type": "string",
            "description": "One event on each line. The position and the link to the next page are in the headers.",
        }
    }
    arguments["responses"][200]["content"][JSON_LINES] = lines
    return arguments


@router.get("/events", tags=["log"], **documented_events(EventResource, EVENT_EXAMPLE))
async def list_events(request: QueryRequest, parameters: Annotated[EventParameters, Query()]) -> Response:
    """List events in the order of the log. To get JSON Lines, send `Accept: application/x-ndjson`."""
    found = await find_events(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters, as_lines=request.accepts_lines())


@router.get(
    "/events/stream",
    tags=["log"],
    response_class=EventSourceResponse,
    openapi_extra={"parameters": [LEDGER_HEADER, LAST_EVENT_ID], **only("events:read").documented()},
    responses={
        200: {"content": {EVENT_STREAM: {"example": EVENT_STREAM_EXAMPLE}}},
        **problem_responses(*ANY_QUERY, "too-many-streams"),
    },
)
async def stream_events(request: QueryRequest, parameters: Annotated[EventStreamParameters, Query()]) -> Response:
    """Receive events as they are recorded, as server-sent events. To receive older events too, send `after`.

    The `id` of an event is its position. To continue after an event, send its `id` as `Last-Event-ID`. `data` is an item of
    `GET /v1/events`.
    """
    wanted = EventFilter(parameters.type, parameters.stream)
    return await open_event_stream(request, request.state.log_tails, wanted, parameters.after)


@router.get("/streams/{stream}", tags=["log"], **documented_events(StreamEventResource, STREAM_EVENT_EXAMPLE))
async def list_stream(request: QueryRequest, stream: StreamId, parameters: Annotated[StreamParameters, Query()]) -> Response:
    """List the events of one stream in order. To get JSON Lines, send `Accept: application/x-ndjson`."""
    found = await find_stream_events(request.view(), stream, parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters, as_lines=request.accepts_lines())
