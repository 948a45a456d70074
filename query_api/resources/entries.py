"""Entries: what each transfer added to or took from one account, with the balance after it."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

import msgspec
import orjson
from fastapi import Query, Response
from pydantic import Field

from query_api.closed_days import Recording, find_late
from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented_page
from query_api.lists import (
    ListSlice,
    MongoMatch,
    range_match,
    read_list,
    read_one,
    read_texts,
    reference_match,
    sort_orders,
)
from query_api.parameters import POSITION_MAX, AmountRange, OccurredAtRange, ServedParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    EUROS,
    MOMENT,
    SAVINGS,
    TRANSFER,
    FactPosition,
    ResponseModel,
    TimestampText,
    TransferKind,
    TransferParty,
)
from query_api.transfer_filters import SORT_DESCRIPTION, TransferFilters
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import ACCOUNTS, ENTRIES, TRANSFERS, entry_id
from shared.web.members import MinorUnitAmount

router = query_router()


class EntryResource(ResponseModel):
    """An entry of an account. `amount` is negative if money left the account. `balance` is the balance after the transfer."""

    account_id: str
    transfer_id: str
    kind: TransferKind
    amount: MinorUnitAmount
    balance: MinorUnitAmount
    currency: str
    counterparty_account_id: TransferParty
    occurred_at: TimestampText
    recorded_at: TimestampText
    reference: str | None
    position: FactPosition
    after_close: Annotated[bool, Field(description="True if it was recorded after the day was closed in which it occurred.")]


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
    "after_close": False,
}


_NEWEST_FIRST: Final = frozenset(("counterparty", "kind", "reference", "metadata", "recorded_at"))


class EntryParameters(ServedParameters, TransferFilters, OccurredAtRange, AmountRange):
    served: ClassVar[Mapping[str, frozenset[str]]] = {
        "-recorded_at": _NEWEST_FIRST,
        "-position": _NEWEST_FIRST,
        "-occurred_at": frozenset(("occurred_at",)),
        "-amount": frozenset(("amount",)),
        "reference": frozenset(("reference[prefix]",)),
    }
    sort: Annotated[
        Literal[
            "recorded_at",
            "-recorded_at",
            "position",
            "-position",
            "occurred_at",
            "-occurred_at",
            "amount",
            "-amount",
            "reference",
            "-reference",
        ],
        Field(description=SORT_DESCRIPTION),
    ] = "-recorded_at"

    @property
    def asks_for_transfers(self) -> bool:
        """True if a filter is about what only the transfers of the entries are found by."""
        return any((self.counterparty, self.kind, self.reference, self.metadata))


ENTRY_ORDERS: Final = sort_orders(
    {
        "recorded_at": ("_id",),
        "position": ("_id",),
        "occurred_at": ("occurred_at", "_id"),
        "amount": ("amount", "_id"),
        "reference": ("reference", "_id"),
    }
)
ORDERS_BY_TRANSFER: Final = sort_orders({"recorded_at": ("recorded_at", "position"), "position": ("recorded_at", "position")})


async def find_entries(
    view: CallerView, account_id: str, parameters: EntryParameters, key: CursorKey | None
) -> AsOf[ListSlice | None]:
    """Reads one page of an account's entries, or returns None if there is no such account that the caller may see."""
    if view.customer is not None and (own := await read_one(view, ACCOUNTS, account_id, dict, view.own("owner_id"))).data is None:
        return own
    read = _entries_of_transfers if parameters.asks_for_transfers else _entries
    found = await _marked(view, await read(view, account_id, parameters, key))
    if found.data.items or key is not None:
        return found.holding(found.data)
    # If there are no entries, the account may still exist.
    account = await read_one(view, ACCOUNTS, account_id, dict)
    return found.holding(found.data) if account.data else account


async def _entries(view: CallerView, account_id: str, parameters: EntryParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    order = ENTRY_ORDERS[parameters.sort]
    if order.fields == ("_id",):
        match: MongoMatch = {"_id": {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, POSITION_MAX)}}
    else:
        match = {"account_id": account_id}
    match |= range_match(parameters, "recorded_at", "occurred_at", "amount")
    match |= reference_match(parameters.reference_prefix, parameters.sort)
    return await read_texts(view, ENTRIES, match, order, parameters, key, _BACKDATED)


async def _entries_of_transfers(
    view: CallerView, account_id: str, parameters: EntryParameters, key: CursorKey | None
) -> AsOf[ListSlice]:
    """Reads the entries of the transfers with these filters. Transfers and entries are read models with positions of their own.

    If the entries are behind, those of the newest transfers are missing, as they are from a list without filters as of this
    position.
    """
    order = ORDERS_BY_TRANSFER[parameters.sort]
    match = parameters.transfers_of(view, account_id, parameters.sort)
    transfers = await read_list(view, TRANSFERS, match, order, parameters, key, _position)
    ids = [entry_id(account_id, position) for position in transfers.data.items]
    entries = await view.documents(ENTRIES, [{"$match": {"_id": {"$in": ids}}}, {"$project": {"item": 1}}])
    texts = {entry["_id"]: entry["item"] for entry in entries.data}
    return transfers.limiting(entries.holding(ListSlice([texts[each] for each in ids if each in texts], transfers.data.next_key)))


_BACKDATED: Final = {"$lt": ["$occurred_at", "$recorded_at"]}
_LATE: Final = ',"after_close":true}'
_IN_TIME: Final = ',"after_close":false}'
_decode_recording: Final = msgspec.json.Decoder(Recording).decode


async def _marked(view: CallerView, found: AsOf[ListSlice]) -> AsOf[ListSlice]:
    """Adds to the texts of entries the last member: if the entry came after the day was closed in which it occurred."""
    if found.data.has_marked is False:
        items = [orjson.Fragment(text[:-1] + _IN_TIME) for text in found.data.items]
        return found.holding(ListSlice(items, found.data.next_key))
    recordings = [_decode_recording(text) for text in found.data.items]
    late, as_of_days = await find_late(view, recordings)
    items = [
        orjson.Fragment(text[:-1] + (_LATE if recording.position in late else _IN_TIME))
        for text, recording in zip(found.data.items, recordings, strict=True)
    ]
    marked = found.holding(msgspec.structs.replace(found.data, items=items))
    return as_of_days.limiting(marked) if as_of_days else marked


def _position(transfer: JsonObject) -> int:
    position: int = transfer["position"]
    return position


@router.get(
    "/accounts/{account_id}/entries",
    tags=["accounts"],
    **documented_page(EntryResource, ENTRY_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_entries(request: QueryRequest, account_id: Id, parameters: Annotated[EntryParameters, Query()]) -> Response:
    """List the entries of an account, by default newest first. Each entry has the balance after it.

    Without `sort`, filters by `occurred_at`, `amount` or `reference[prefix]` order the list by that field. Each order serves some
    filters, and other combinations are refused with 422.
    """
    found = await find_entries(request.view(), account_id, parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)
