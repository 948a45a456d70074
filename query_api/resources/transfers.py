"""Transfers, deposits, withdrawals and reversals. A customer sees only those from or to an account of their own.

A transfer and its reversals have the same accounts, so a caller who sees one of them sees all.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, TypeVar

import msgspec
from fastapi import Query, Response
from pydantic import Field

from query_api.closed_days import Recording, find_late
from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented, documented_page
from query_api.lists import ListSlice, MongoMatch, both, members_of, range_match, read_list, read_one, sort_orders
from query_api.parameters import POSITION_MAX, AmountRange, OccurredAtRange, ServedParameters
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
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
from shared.input_types import Currency, Id
from shared.log.streams import transfer_stream
from shared.read_models.shapes import ACCOUNTS, STATISTICS, TRANSFERS
from shared.web.members import MinorUnitAmount, PostingMember

router = query_router()

Found = TypeVar("Found")


class ActivityResource(ResponseModel):
    id: str
    kind: TransferKind
    from_account_id: TransferParty
    to_account_id: TransferParty
    amount: MinorUnitAmount
    currency: str
    occurred_at: TimestampText
    recorded_at: TimestampText
    reference: str | None
    position: FactPosition


class ReversalMember(ResponseModel):
    id: str
    amount: MinorUnitAmount
    position: FactPosition


class ExchangeMember(ResponseModel):
    """What an exchange gave for `amount`. `remainder` is what rounding took from the payee, in minor units of `to_currency`."""

    to_amount: MinorUnitAmount
    to_currency: str
    rate: str
    remainder_account_id: Annotated[str | None, Field(description="null for customers.")]
    remainder: str


class TransferResource(ActivityResource):
    postings: Annotated[
        list[PostingMember] | None,
        Field(
            description="The postings of a transfer between many accounts, whose `amount` is what moved in the currency of the "
            "first. Customers see those of their own accounts. null for every other transfer."
        ),
    ]
    exchange: Annotated[
        ExchangeMember | None,
        Field(description="Only of an exchange. Customers see it if they own the accounts of both sides."),
    ]
    metadata: dict[str, str] | None
    hold_id: Annotated[str | None, Field(description="The hold that was captured. null if there was none.")]
    schedule_id: Annotated[str | None, Field(description="The schedule whose run this is. null if it is not a run.")]
    reverses: Annotated[str | None, Field(description="The transfer that this one reverses. null if it reverses none.")]
    reversed: Annotated[int, Field(description="What of this transfer has moved back, in minor units.")]
    reversals: Annotated[list[ReversalMember], Field(description="The transfers that reverse this one, oldest first.")]
    after_close: Annotated[bool, Field(description="True if it was recorded after the day was closed in which it occurred.")]


ACTIVITY_EXAMPLE: Final = {
    "id": TRANSFER,
    "kind": "transfer",
    "from_account_id": EUROS,
    "to_account_id": SAVINGS,
    "amount": 1250,
    "currency": "EUR",
    "occurred_at": MOMENT,
    "recorded_at": MOMENT,
    "reference": "rent",
    "position": 5,
}
TRANSFER_EXAMPLE: Final = {
    **ACTIVITY_EXAMPLE,
    "metadata": {"order": "1042"},
    "hold_id": "0198c5a0-0000-7000-8000-000000000077",
    "schedule_id": "0198c5a0-0000-7000-8000-000000000055",
    "postings": [{"account_id": EUROS, "amount": -1250, "currency": "EUR"}],
    "exchange": {
        "to_amount": 1355,
        "to_currency": "USD",
        "rate": "1.0834",
        "remainder_account_id": SAVINGS,
        "remainder": "0.3334",
    },
    "reverses": "0198c5a0-0000-7000-8000-000000000041",
    "reversed": 500,
    "reversals": [{"id": "0198c5a0-0000-7000-8000-000000000043", "amount": 500, "position": 7}],
    "after_close": False,
}


_NEWEST_FIRST: Final = frozenset(("account_id", "counterparty", "kind", "reference", "metadata", "recorded_at"))


class TransferParameters(ServedParameters, TransferFilters, OccurredAtRange, AmountRange):
    served: ClassVar[Mapping[str, frozenset[str]]] = {
        "-recorded_at": _NEWEST_FIRST,
        "-position": _NEWEST_FIRST,
        "-occurred_at": frozenset(("occurred_at",)),
        "-amount": frozenset(("currency", "amount")),
        "reference": frozenset(("reference[prefix]",)),
    }
    account_id: Annotated[Id, Field(description="Only transfers from or to this account.")] | None = None
    currency: Currency | None = None
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


TRANSFER_ORDERS: Final = sort_orders(
    {
        "recorded_at": ("recorded_at", "position"),
        "position": ("recorded_at", "position"),
        "occurred_at": ("occurred_at", "_id"),
        "amount": ("amount", "_id"),
        "reference": ("reference", "_id"),
    }
)


async def find_transfers(view: CallerView, parameters: TransferParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    match = parameters.transfers_of(view, parameters.account_id, parameters.sort)
    match |= range_match(parameters, "occurred_at", "amount")
    if parameters.currency:
        match["currency"] = parameters.currency
    elif parameters.sort.endswith("amount"):
        # The index by amount begins with the currency. If the filter names all currencies of the ledger, MongoDB can merge the
        # parts of the index in order and need not sort.
        currencies = await _used_currencies(view)
        match["currency"] = {"$in": currencies.data}
        return currencies.limiting(await _matching_transfers(view, match, parameters, key))
    return await _matching_transfers(view, match, parameters, key)


async def _matching_transfers(
    view: CallerView, match: MongoMatch, parameters: TransferParameters, key: CursorKey | None
) -> AsOf[ListSlice]:
    own = await _own_transfers(view)
    order = TRANSFER_ORDERS[parameters.sort]
    found = own.limiting(await read_list(view, TRANSFERS, both(match, own.data), order, parameters, key, _transfer))
    _show_own_postings(view, found.data.items, own.data)
    return await _with_later_facts(view, found, found.data.items)


async def find_transfer(view: CallerView, transfer_id: str) -> AsOf[JsonObject | None]:
    own = await _own_transfers(view)
    found = own.limiting(await read_one(view, TRANSFERS, transfer_id, _transfer, own.data))
    transfers = [found.data] if found.data else []
    _show_own_postings(view, transfers, own.data)
    return await _with_later_facts(view, found, transfers)


def _show_own_postings(view: CallerView, transfers: Sequence[JsonObject], own: MongoMatch) -> None:
    """Leaves customers only the postings of their own accounts: the others may be salaries of others."""
    if view.customer is None:
        return
    accounts = {*own["found_by"]["$in"]}
    for transfer in transfers:
        if transfer["postings"]:
            found = [each for each in transfer["postings"] if each["account_id"] in accounts]
            transfer |= {"postings": found, "amount": abs(found[0]["amount"]), "currency": found[0]["currency"]}
        if transfer["exchange"]:
            both = {transfer["from_account_id"], transfer["to_account_id"]} <= accounts
            transfer["exchange"] = transfer["exchange"] | {"remainder_account_id": None} if both else None


async def _with_later_facts(view: CallerView, found: AsOf[Found], transfers: Sequence[JsonObject]) -> AsOf[Found]:
    """Adds to the transfers that were found what has been reversed of them, by which transfers, and if they came too late."""
    if not transfers:
        return found
    reversals: dict[str, list[JsonObject]] = {transfer["id"]: [] for transfer in transfers}
    match = {"found_by": {"$in": [transfer_stream(transfer_id) for transfer_id in reversals]}}
    stages: list[JsonObject] = [
        {"$match": match},
        {"$project": {"reverses": 1, "amount": 1, "position": 1}},
        {"$sort": {"position": 1}},
    ]
    documents = await view.documents(TRANSFERS, stages, alone=len(transfers) > 1)
    for document in documents.data:
        reversals[document["reverses"]].append(members_of(document, "amount", "position"))
    for transfer in transfers:
        own = reversals[transfer["id"]]
        transfer |= {"reversed": sum(each["amount"] for each in own), "reversals": own}
    late, as_of_days = await find_late(view, msgspec.convert(transfers, list[Recording]))
    for transfer in transfers:
        transfer["after_close"] = transfer["position"] in late
    return documents.limiting(as_of_days.limiting(found) if as_of_days else found)


async def _used_currencies(view: CallerView) -> AsOf[list[str]]:
    """Returns the currencies of all accounts that the ledger ever had, whatever ISO 4217 says of them today."""
    found = await view.values(STATISTICS, ("HGETALL", "sums"))
    return found.holding(sorted(found.data[0][::2]))


async def _own_transfers(view: CallerView) -> AsOf[MongoMatch]:
    """Returns a filter for transfers from or to the customer's own accounts, and the position of the accounts' read model."""
    if view.customer is None:
        return AsOf(POSITION_MAX, {})
    accounts = await view.documents(ACCOUNTS, [{"$match": view.own("owner_id")}, {"$project": {"_id": 1}}], alone=True)
    return accounts.holding({"found_by": {"$in": [account["_id"] for account in accounts.data]}})


def _transfer(document: JsonObject) -> JsonObject:
    if "postings" not in document:  # made by an older version of the projection
        raise rebuilding(TRANSFERS)
    names = ("kind", "from_account_id", "to_account_id", "amount", "currency", "occurred_at", "recorded_at")
    members = members_of(document, *names, "reference", "metadata", "hold_id", "reverses", "postings", "position")
    return members | {"schedule_id": document.get("schedule_id"), "exchange": document.get("exchange")}


@router.get(
    "/transfers",
    tags=["transfers"],
    **documented_page(TransferResource, TRANSFER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_transfers(request: QueryRequest, parameters: Annotated[TransferParameters, Query()]) -> Response:
    """List transfers, deposits, withdrawals and reversals, by default newest first.

    A customer sees of a transfer with postings only those of their own accounts. Filters by amount, currency or counterparty, and
    the order by amount, leave such transfers out for customers.

    Without `sort`, filters by `occurred_at`, `amount`, `currency` or `reference[prefix]` order the list by that field. Each order
    serves some filters, and other combinations are refused with 422.
    """
    found = await find_transfers(request.view(), parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)


@router.get(
    "/transfers/{transfer_id}",
    tags=["transfers"],
    **documented(TransferResource, TRANSFER_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def get_transfer(request: QueryRequest, transfer_id: Id) -> Response:
    """Get a transfer of any kind. `position` is that of its event, `Daybook-Position` that of the answer."""
    return request.answer_one(await find_transfer(request.view(), transfer_id))
