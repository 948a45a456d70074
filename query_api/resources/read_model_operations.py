"""The operations on read models that operators asked for: what each is for, how far it is, and how it ended."""

from typing import Annotated, Any, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, AsOfPosition, Page, ResponseModel, TimestampText, as_of, page_of
from shared.identity.access import only
from shared.input_types import Id
from shared.read_models import operations
from shared.read_models.operations import OperationKind, OperationStatus

router = query_router()

OPERATORS: Final = only("ops:admin")
AFTER_ALL_IDS: Final = "~"


class OperationResource(ResponseModel):
    """An operation on a read model."""

    id: str
    projection: str
    kind: OperationKind
    event_position: Annotated[int | None, Field(description="The event that a `skip` leaves out; null for the other kinds.")]
    reason: str
    requested_by: Annotated[str, Field(description="The principal of the caller.")]
    status: Annotated[OperationStatus, Field(description="`waiting`: no worker has begun. If it stays so, no worker is running.")]
    events_done: Annotated[int, Field(description="How many of `events_total` events were read.")]
    events_total: int
    code: Annotated[str | None, Field(description="The code of the problem because of which it failed.")]
    outcome: Annotated[str | None, Field(description="How it ended, as a sentence.")]
    requested_at: TimestampText
    changed_at: TimestampText


class OperationResponse(OperationResource):
    position: AsOfPosition


OPERATION_EXAMPLE: Final = {
    "id": "0198c5a0-0000-7000-8000-0000000000d1",
    "projection": "balances",
    "kind": "skip",
    "event_position": 41,
    "reason": "ticket 4711: was entered twice",
    "requested_by": "operator",
    "status": "failed",
    "events_done": 0,
    "events_total": 42,
    "code": "projection-paused",
    "outcome": "balances is paused since 2026-11-21T09:30:00.000000Z: resume it first",
    "requested_at": MOMENT,
    "changed_at": MOMENT,
}

OperationId = Annotated[Id, Field(examples=["0198c5a0-0000-7000-8000-0000000000d1"])]


class OperationParameters(PageParameters):
    pass


async def find_operations(view: CallerView, parameters: OperationParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of operations, newest first."""
    position = await view.reader.require_ledger(view.ledger_id)
    before = AFTER_ALL_IDS if key is None else str(key[0])
    async with view.reader.postgres.connect() as connection:
        found = await operations.read(connection, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].id] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([operation.members() for operation in page], next_key))


async def find_operation(view: CallerView, operation_id: str) -> AsOf[Any]:
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await operations.find(connection, view.ledger_id, operation_id)
    return AsOf(position, found.members() if found else None)


@router.get(
    "/operations",
    tags=["log"],
    **documented(
        Page[OperationResource],
        page_of(OPERATION_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=OPERATORS,
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_operations(request: QueryRequest, parameters: Annotated[OperationParameters, Query()]) -> Response:
    """List the operations on read models of the last 30 days, newest first."""
    return request.answer_page(await find_operations(request.view(), parameters, request.cursor_key(parameters)), parameters)


@router.get(
    "/operations/{operation_id}",
    tags=["log"],
    **documented(OperationResponse, as_of(OPERATION_EXAMPLE), *ANY_QUERY, access=OPERATORS, headers=[LEDGER_HEADER]),
)
async def get_operation(request: QueryRequest, operation_id: OperationId) -> Response:
    """Get an operation: how far it is, and how it ended."""
    return request.answer_one(await find_operation(request.view(), operation_id), changes_with_time=True)
