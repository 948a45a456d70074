"""Schedules and their runs, also those that were refused. A customer sees those that pay from accounts of their own."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented, documented_page
from query_api.lists import (
    ListSlice,
    MongoMatch,
    both,
    found_by_match,
    read_list,
    read_list_of_texts,
    read_one,
    sort_orders,
)
from query_api.parameters import POSITION_MAX, PageParameters, ServedParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    MOMENT,
    TRANSFER,
    AsOfPosition,
    FactPosition,
    ResourceVersion,
    ResponseModel,
    TimestampText,
    as_of,
)
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import SCHEDULE_RUNS, SCHEDULES, entry_id, found_by
from shared.schedule_rules import rule_from
from shared.web.members import PLANNED_TRANSFER_EXAMPLE, RULE_EXAMPLE, PlannedTransferMember, RuleMember

router = query_router()

ScheduleStatus = Literal["active", "cancelled", "ended"]


class ScheduleResource(ResponseModel):
    """A schedule. `run_count` counts its runs, and `refused_count` those of them that were refused."""

    id: str
    transfer: PlannedTransferMember
    rule: Annotated[RuleMember | None, Field(description="null if the schedule runs once.")]
    status: ScheduleStatus
    next_run_at: Annotated[str | None, Field(description="When the next run is due. null if there is none.")]
    run_count: int
    refused_count: int
    created_at: TimestampText
    changed_at: TimestampText
    version: ResourceVersion


class RunResource(ResponseModel):
    """A run: a transfer, or a refusal with the code of the rejection."""

    number: int
    due_at: TimestampText
    recorded_at: TimestampText
    position: FactPosition
    transfer_id: Annotated[str | None, Field(description="null if the run was refused.")] = None
    refused: Annotated[str | None, Field(description="The code of the rejection. null if the run made a transfer.")] = None


class ScheduleResponse(ScheduleResource):
    runs: Annotated[list[RunResource], Field(description="The runs, newest first.")]
    next: Annotated[str | None, Field(description="The cursor of the next page of the runs. null on the last page.")]
    position: AsOfPosition


SCHEDULE_EXAMPLE: Final = {
    "id": "0198c5a0-0000-7000-8000-000000000088",
    "transfer": PLANNED_TRANSFER_EXAMPLE,
    "rule": RULE_EXAMPLE,
    "status": "active",
    "next_run_at": "2026-11-30T08:00:00.000000Z",
    "run_count": 1,
    "refused_count": 0,
    "created_at": MOMENT,
    "changed_at": MOMENT,
    "version": 2,
}
RUN_EXAMPLE: Final = {
    "number": 1,
    "due_at": "2026-10-30T08:00:00.000000Z",
    "recorded_at": "2026-10-30T08:00:04.215009Z",
    "position": 41,
    "transfer_id": TRANSFER,
}
SCHEDULE_WITH_RUNS: Final = as_of(SCHEDULE_EXAMPLE | {"runs": [RUN_EXAMPLE], "next": "Ct9FmEcvrOb9gOdN8fORwFs0MV0"})


class ScheduleParameters(ServedParameters):
    served: ClassVar[Mapping[str, frozenset[str]]] = {"-created_at": frozenset(("account_id", "counterparty", "status"))}
    account_id: Annotated[Id, Field(description="Only schedules that pay from this account.")] | None = None
    counterparty: Annotated[Id, Field(description="Only schedules that pay into this account.")] | None = None
    status: ScheduleStatus | None = None
    sort: Literal["created_at", "-created_at"] = "-created_at"


SCHEDULE_ORDERS: Final = sort_orders({"created_at": ("created_at", "_id")})
_NEWEST_FIRST: Final = sort_orders({"number": ("_id",)})["-number"]


async def find_schedules(view: CallerView, parameters: ScheduleParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    match = found_by_match(found_by((parameters.account_id,)))
    fixed = {"from_account_id": parameters.account_id, "to_account_id": parameters.counterparty, "status": parameters.status}
    match |= {name: value for name, value in fixed.items() if value}
    return await read_list(view, SCHEDULES, both(match, _own(view)), SCHEDULE_ORDERS[parameters.sort], parameters, key, _schedule)


async def find_schedule(view: CallerView, schedule_id: str) -> AsOf[JsonObject | None]:
    return await read_one(view, SCHEDULES, schedule_id, _schedule, _own(view))


async def _find_runs(
    view: CallerView, schedule_id: str, parameters: PageParameters, key: CursorKey | None
) -> AsOf[tuple[JsonObject, CursorKey | None]]:
    match = {"_id": {"$gte": entry_id(schedule_id, 0), "$lte": entry_id(schedule_id, POSITION_MAX)}}
    found = await read_list_of_texts(view, SCHEDULE_RUNS, match, _NEWEST_FIRST, parameters, key)
    return found.holding(({"runs": found.data.items}, found.data.next_key))


def _own(view: CallerView) -> MongoMatch:
    return {} if view.customer is None else {"found_by": view.customer, "owner_id": view.customer}


def _schedule(document: JsonObject) -> JsonObject:
    transfer = ("from_account_id", "to_account_id", "amount", "currency", "reference", "metadata")
    return {
        "id": document["_id"],
        "transfer": {name: document[name] for name in transfer},
        "rule": rule_from(document["rule"]),
        "status": document["status"],
        "next_run_at": document["next_run"]["due_at"] if document["next_run"] else None,
        **{name: document[name] for name in ("run_count", "refused_count", "created_at", "changed_at", "version")},
    }


@router.get(
    "/schedules",
    tags=["schedules"],
    **documented_page(ScheduleResource, SCHEDULE_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_schedules(request: QueryRequest, parameters: Annotated[ScheduleParameters, Query()]) -> Response:
    """List schedules, newest first, with the moment of their next run."""
    found = await find_schedules(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)


@router.get(
    "/schedules/{schedule_id}",
    tags=["schedules"],
    **documented(ScheduleResponse, SCHEDULE_WITH_RUNS, *READ_MODEL, "cursor-invalid", access=own_or("ledger:read")),
)
async def get_schedule(request: QueryRequest, schedule_id: Id, parameters: Annotated[PageParameters, Query()]) -> Response:
    """Get a schedule, the moment of its next run, and its runs, newest first, also those that were refused."""
    view = request.view()
    key = request.cursor_key(parameters)
    schedule = await find_schedule(view, schedule_id)
    if schedule.data is None:
        return request.answer_one(schedule)
    runs = await _find_runs(view, schedule_id, parameters, key)
    page, next_key = runs.data
    body = {**schedule.data, **page, "next": request.sign_cursor(parameters, next_key)}
    return request.answer_one(schedule.limiting(runs.holding(body)))
