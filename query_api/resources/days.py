"""Business days that were closed: what the log said of each, and which transfers came after its closing."""

from typing import Annotated, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented_one, documented_page
from query_api.lists import ListSlice, read_list, read_one, sort_orders
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, TRANSFER, AsOfPosition, ResponseModel, TimestampText
from shared.identity.access import only
from shared.input_types import Day
from shared.read_models.shapes import DAYS, TRANSFERS

router = query_router()

LATE_TRANSFERS_MAX: Final = 100
"""How many of the transfers that came after the closing of a day are listed."""


class DayTotalsResource(ResponseModel):
    """What the day moved in one currency, in minor units as texts of digits. `entries` counts the changes of accounts."""

    currency: str
    entries: int
    moved: Annotated[str, Field(description="All that accounts and the outside world got.")]
    paid_in: Annotated[str, Field(description="What came from the outside world.")]
    paid_out: Annotated[str, Field(description="What went to the outside world.")]


class DayResource(ResponseModel):
    """A closed day. What it says counts the events up to the position `up_to`."""

    day: str
    time_zone: str
    start: TimestampText
    end: Annotated[TimestampText, Field(description="The first moment after the day.")]
    up_to: int
    events: int
    first_position: int | None
    last_position: int | None
    root: Annotated[str, Field(description="The root of the Merkle tree (RFC 6962) of the events' hashes, hexadecimal.")]
    totals: list[DayTotalsResource]
    closed_at: TimestampText
    closed_position: Annotated[int, Field(description="The position of the event that closed the day.")]


class LateTransfers(ResponseModel):
    count: int
    transfer_ids: Annotated[list[str], Field(description="The first 100 of them, in the order of the log.")]


class DayResponse(DayResource):
    after_close: Annotated[LateTransfers, Field(description="The transfers of the day that were recorded after its closing.")]
    position: AsOfPosition


DAY_EXAMPLE: Final = {
    "day": "2026-01-31",
    "time_zone": "UTC",
    "start": "2026-01-31T00:00:00.000000Z",
    "end": "2026-02-01T00:00:00.000000Z",
    "up_to": 42,
    "events": 2,
    "first_position": 40,
    "last_position": 42,
    "root": "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456",
    "totals": [{"currency": "EUR", "entries": 2, "moved": "1250", "paid_in": "1250", "paid_out": "0"}],
    "closed_at": MOMENT,
    "closed_position": 43,
}
ONE_DAY_EXAMPLE: Final = DAY_EXAMPLE | {"after_close": {"count": 1, "transfer_ids": [TRANSFER]}}


class DayParameters(PageParameters):
    sort: Literal["day", "-day"] = "-day"


DAY_ORDERS: Final = sort_orders({"day": ("_id",)})


async def find_days(view: CallerView, parameters: DayParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    return await read_list(view, DAYS, {}, DAY_ORDERS[parameters.sort], parameters, key, _day)


async def find_day(view: CallerView, day: str) -> AsOf[JsonObject | None]:
    found = await read_one(view, DAYS, day, _day)
    if found.data is None:
        return found
    occurred_at = {"$gte": found.data["start"], "$lt": found.data["end"]}
    # The index by `occurred_at` leads to the transfers of the day. Those that came before its closing are left out of them.
    stages: list[JsonObject] = [
        {"$match": {"occurred_at": occurred_at, "position": {"$gt": found.data["up_to"]}}},
        {"$sort": {"position": 1}},
        {"$group": {"_id": None, "count": {"$sum": 1}, "ids": {"$firstN": {"input": "$_id", "n": LATE_TRANSFERS_MAX}}}},
    ]
    late = await view.documents(TRANSFERS, stages, alone=True)
    count, ids = (late.data[0]["count"], late.data[0]["ids"]) if late.data else (0, [])
    return found.limiting(late.holding(found.data | {"after_close": {"count": count, "transfer_ids": ids}}))


def _day(document: JsonObject) -> JsonObject:
    names = ("time_zone", "start", "end", "up_to", "events", "first_position", "last_position", "root", "totals", "closed_at")
    told = {name: document[name] for name in names}
    return {"day": document["_id"], **told, "closed_position": document["position"]}


@router.get("/days", tags=["days"], **documented_page(DayResource, DAY_EXAMPLE, *READ_MODEL, access=only("ledger:read")))
async def list_days(request: QueryRequest, parameters: Annotated[DayParameters, Query()]) -> Response:
    """List the business days that were closed, by default newest first."""
    found = await find_days(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)


@router.get("/days/{day}", tags=["days"], **documented_one(DayResponse, ONE_DAY_EXAMPLE, access=only("ledger:read")))
async def get_day(request: QueryRequest, day: Day) -> Response:
    """Get a business day that was closed, with the transfers that were back-dated into it afterwards."""
    return request.answer_one(await find_day(request.view(), day))
