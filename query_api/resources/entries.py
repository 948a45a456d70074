"""Entries: what each transfer added to or took from one account, with the balance after it."""

from typing import Annotated, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented_page
from query_api.lists import ListSlice, range_match, read_list_of_texts, read_one, sort_orders
from query_api.parameters import POSITION_MAX, AmountRange, PageParameters, RecordedAtRange
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    EUROS,
    MOMENT,
    SAVINGS,
    TRANSFER,
    FactPosition,
    MinorUnitAmount,
    ResponseModel,
    TimestampText,
    TransferParty,
)
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import ACCOUNTS, ENTRIES, entry_id

router = query_router()


class EntryResource(ResponseModel):
    """An entry of an account. `amount` is negative if money left the account. `balance` is the balance after the transfer."""

    account_id: str
    transfer_id: str
    kind: Literal["deposit", "withdrawal", "transfer", "reversal"]
    amount: MinorUnitAmount
    balance: MinorUnitAmount
    currency: str
    counterparty_account_id: TransferParty
    occurred_at: TimestampText
    recorded_at: TimestampText
    reference: str | None
    position: FactPosition


ENTRY_EXAMPLE: Final = {
    "account_id": EUROS,
    "transfer_id": TRANSFER,
    "kind": "transfer",
    "amount": -1250,
    "balance": 0,
    "currency": "EUR",
    "counterparty_account_id": SAVINGS,
    "occurred_at": MOMENT,
    "recorded_at": MOMENT,
    "reference": "rent",
    "position": 5,
}


class EntryParameters(PageParameters, RecordedAtRange, AmountRange):
    sort: Annotated[
        Literal["recorded_at", "-recorded_at", "position", "-position"],
        Field(description="`position` and `recorded_at` give the same order."),
    ] = "-recorded_at"


ENTRY_ORDERS: Final = sort_orders({"recorded_at": ("_id",), "position": ("_id",)})


async def find_entries(
    view: CallerView, account_id: str, parameters: EntryParameters, key: CursorKey | None
) -> AsOf[ListSlice | None]:
    """Reads one page of an account's entries, or returns None if there is no such account that the caller may see."""
    everything = {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, POSITION_MAX)}
    match = {"_id": everything} | range_match(parameters, "recorded_at", "amount")
    if view.customer is not None and (own := await read_one(view, ACCOUNTS, account_id, dict, view.own("owner_id"))).data is None:
        return own
    found = await read_list_of_texts(view, ENTRIES, match, ENTRY_ORDERS[parameters.sort], parameters, key)
    if found.data.items or key is not None:
        return found.holding(found.data)
    # If there are no entries, the account may still exist.
    account = await read_one(view, ACCOUNTS, account_id, dict)
    return found.holding(found.data) if account.data else account


@router.get(
    "/accounts/{account_id}/entries",
    tags=["accounts"],
    **documented_page(EntryResource, ENTRY_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_entries(request: QueryRequest, account_id: Id, parameters: Annotated[EntryParameters, Query()]) -> Response:
    """List the entries of an account, newest first. Each entry has the balance after it."""
    found = await find_entries(request.view(), account_id, parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)
