"""Holds. A customer sees those on accounts of their own. A hold that has expired is shown so, whenever its end is recorded."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented_one, documented_page
from query_api.lists import (
    ListSlice,
    MongoMatch,
    both,
    found_by_match,
    members_of,
    range_match,
    read_list,
    read_one,
    reference_match,
    sort_orders,
)
from query_api.parameters import POSITION_MAX, PlacedAtRange, ReferenceAndMetadata, ServedParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    EUROS,
    MOMENT,
    SAVINGS,
    AsOfPosition,
    ResourceVersion,
    ResponseModel,
    TimestampText,
)
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import ACCOUNTS, HOLDS, found_by
from shared.web.members import MinorUnitAmount

router = query_router()

HoldStatus = Literal["active", "captured", "released", "expired"]


class HoldResource(ResponseModel):
    """A hold. `amount` is what it was placed for, `captured` what was captured, and `remaining` what it holds now."""

    id: str
    account_id: str
    to_account_id: Annotated[str | None, Field(description="Where captures go. null for the outside world.")]
    amount: MinorUnitAmount
    captured: MinorUnitAmount
    remaining: MinorUnitAmount
    currency: str
    status: HoldStatus
    expires_at: Annotated[str | None, Field(description="The hold ends by itself at this moment. null if it does not.")]
    placed_at: TimestampText
    changed_at: TimestampText
    reference: str | None
    metadata: dict[str, str] | None
    version: ResourceVersion


class HoldResponse(HoldResource):
    position: AsOfPosition


HOLD_EXAMPLE: Final = {
    "id": "0198c5a0-0000-7000-8000-000000000077",
    "account_id": EUROS,
    "to_account_id": SAVINGS,
    "amount": 1250,
    "captured": 500,
    "remaining": 750,
    "currency": "EUR",
    "status": "active",
    "expires_at": "2199-01-01T00:00:00.000000Z",
    "placed_at": MOMENT,
    "changed_at": MOMENT,
    "reference": "order 1042",
    "metadata": {"order": "1042"},
    "version": 2,
}


class HoldParameters(ServedParameters, PlacedAtRange, ReferenceAndMetadata):
    served: ClassVar[Mapping[str, frozenset[str]]] = {
        "-placed_at": frozenset(("account_id", "counterparty", "reference", "metadata", "status", "placed_at")),
        "reference": frozenset(("reference[prefix]",)),
    }
    account_id: Annotated[Id, Field(description="Only holds on this account.")] | None = None
    counterparty: Annotated[Id, Field(description="Only holds whose captures go to this account.")] | None = None
    status: Annotated[HoldStatus, Field(description="The status now: a hold expires by itself.")] | None = None
    sort: Annotated[
        Literal["placed_at", "-placed_at", "reference", "-reference"],
        Field(description="Sorting by `reference` leaves out holds without one. The default depends on the filters."),
    ] = "-placed_at"


HOLD_ORDERS: Final = sort_orders({"placed_at": ("placed_at", "_id"), "reference": ("reference", "_id")})


async def find_holds(view: CallerView, parameters: HoldParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    now = await view.now()
    ends = parameters.account_id, parameters.counterparty
    texts = found_by(ends, reference=parameters.reference, metadata=parameters.metadata)
    match = _with_status(parameters.status, now) | found_by_match(texts) | range_match(parameters, "placed_at")
    match |= reference_match(parameters.reference_prefix, parameters.sort)
    match |= {name: end for name, end in zip(("account_id", "to_account_id"), ends, strict=True) if end}
    own = await _own_holds(view)
    found = await read_list(
        view, HOLDS, both(match, own.data), HOLD_ORDERS[parameters.sort], parameters, key, partial(_hold, now=now)
    )
    return own.limiting(found)


async def find_hold(view: CallerView, hold_id: str) -> AsOf[JsonObject | None]:
    own, now = await _own_holds(view), await view.now()
    return own.limiting(await read_one(view, HOLDS, hold_id, partial(_hold, now=now), own.data))


def _with_status(status: HoldStatus | None, now: str) -> MongoMatch:
    """Returns a filter for holds that have this status at a moment. A hold that has expired may be stored as active."""
    expired_by_now = {"expires_at": {"$lte": now}}  # never matches a hold without a moment, whose `expires_at` is null
    match status:
        case None:
            return {}
        case "active":
            return {"status": "active", "$nor": [expired_by_now]}
        case "expired":
            return {"status": {"$in": ["active", "expired"]}, "$nor": [{"status": "active", "$nor": [expired_by_now]}]}
        case _:
            return {"status": status}


async def _own_holds(view: CallerView) -> AsOf[MongoMatch]:
    """Returns a filter for holds on the customer's own accounts, and the position of the accounts' read model."""
    if view.customer is None:
        return AsOf(POSITION_MAX, {})
    accounts = await view.documents(ACCOUNTS, [{"$match": view.own("owner_id")}, {"$project": {"_id": 1}}], alone=True)
    own = {"$in": [account["_id"] for account in accounts.data]}
    return accounts.holding({"found_by": own, "account_id": own})


def _hold(document: JsonObject, now: str) -> JsonObject:
    names = ("account_id", "to_account_id", "amount", "captured", "remaining", "currency", "status", "expires_at", "placed_at")
    hold = members_of(document, *names, "changed_at", "reference", "metadata", "version")
    if hold["status"] == "active" and hold["expires_at"] is not None and hold["expires_at"] <= now:
        return hold | {"status": "expired", "remaining": 0}
    return hold


@router.get("/holds", tags=["holds"], **documented_page(HoldResource, HOLD_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")))
async def list_holds(request: QueryRequest, parameters: Annotated[HoldParameters, Query()]) -> Response:
    """List holds, by default newest first. A filter by `reference[prefix]` orders them by reference."""
    found = await find_holds(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)


@router.get("/holds/{hold_id}", tags=["holds"], **documented_one(HoldResponse, HOLD_EXAMPLE, access=own_or("ledger:read")))
async def get_hold(request: QueryRequest, hold_id: Id) -> Response:
    """Get a hold. Its captures are transfers with this `hold_id`; the events of its stream show all of them."""
    found = await find_hold(request.view(), hold_id)
    return request.answer_one(found, changes_with_time=bool(found.data and found.data["expires_at"]))
