"""Accounts and their balances. Lists are read from MongoDB. A single account or balance is read from Redis."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Final, Literal

import orjson
import structlog
from fastapi import Query, Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented, documented_one, documented_page
from query_api.lists import ListSlice, both, found_by_match, members_of, read_list, sort_orders
from query_api.parameters import AtParameters, Axis, MetadataPairs, ServedParameters
from query_api.past_balances import PastMoment, find_moment, find_posted
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    ADA,
    EUROS,
    MOMENT,
    AsOfPosition,
    ResourceVersion,
    ResponseModel,
    TimestampText,
    as_of,
)
from shared.identity.access import own_or
from shared.input_types import Currency, Id
from shared.read_models.holds import held_at
from shared.read_models.shapes import (
    ACCOUNTS,
    BALANCES,
    found_by,
)
from shared.web.members import MinorUnitAmount

router = query_router()
log = structlog.get_logger()


class BalanceResource(ResponseModel):
    """The balance of an account. `available` is what can be spent now: `posted` − `held` + the overdraft limit."""

    account_id: str
    currency: str
    posted: MinorUnitAmount
    held: MinorUnitAmount
    available: MinorUnitAmount


class BalanceResponse(BalanceResource):
    position: AsOfPosition


class PastBalance(ResponseModel):
    """What an account had posted at a moment in the past. It does not say what was held or available then."""

    account_id: str
    currency: str
    posted: MinorUnitAmount
    axis: Axis
    moment: Annotated[TimestampText, Field(description="The moment. With a position as `at`, when its event was recorded.")]


class PastBalanceResponse(PastBalance):
    position: Annotated[
        int,
        Field(
            description="The answer includes all events up to this position. On `recorded_at`, this is the last event that was "
            "recorded up to the moment."
        ),
    ]


class AccountResource(ResponseModel):
    id: str
    owner_id: str
    currency: str
    status: Literal["open", "frozen", "closed"]
    overdraft_limit: MinorUnitAmount
    metadata: dict[str, str] | None
    opened_at: TimestampText
    changed_at: TimestampText
    version: ResourceVersion
    balance: BalanceResource


class PastAccountResource(ResponseModel):
    """What never changes of an account, and its balance at a moment in the past."""

    id: str
    owner_id: str
    currency: str
    opened_at: TimestampText
    balance: PastBalance


class AccountResponse(AccountResource):
    position: AsOfPosition


BALANCE_EXAMPLE: Final = {"account_id": EUROS, "currency": "EUR", "posted": 1250, "held": 0, "available": 1250}
ACCOUNT_EXAMPLE: Final = {
    "id": EUROS,
    "owner_id": ADA,
    "currency": "EUR",
    "status": "open",
    "overdraft_limit": 0,
    "metadata": {"iban": "DE02120300000000202051"},
    "opened_at": MOMENT,
    "changed_at": MOMENT,
    "version": 2,
    "balance": BALANCE_EXAMPLE,
}


class AccountParameters(ServedParameters, MetadataPairs, AtParameters):
    served: ClassVar[Mapping[str, frozenset[str]]] = {
        "opened_at": frozenset(("owner_id", "currency", "status", "metadata")),
        "posted": frozenset(("currency",)),
    }
    owner_id: Id | None = None
    currency: Currency | None = None
    status: Literal["open", "frozen", "closed"] | None = None
    sort: Annotated[
        Literal["opened_at", "-opened_at", "posted", "-posted"],
        Field(description="Sorting by `posted` requires `currency`."),
    ] = "opened_at"

    @model_validator(mode="after")
    def _comparable(self) -> "AccountParameters":
        if self.sort.endswith("posted") and self.currency is None:
            code, message = "currency_missing", "Balances can be ordered within one currency only: add currency="
            raise PydanticCustomError(code, message)
        return self

    @model_validator(mode="after")
    def _constant(self) -> "AccountParameters":
        if self.at is not None and (self.status or self.metadata or self.sort.endswith("posted")):
            code, message = (
                "not_of_the_past",
                "With at=, nothing can be found by status or metadata, or ordered by posted",
            )
            raise PydanticCustomError(code, message)
        return self


ACCOUNT_FIELDS: Final = frozenset(
    ("owner_id", "currency", "status", "overdraft_limit", "opened_at", "changed_at", "version", "posted", "holds")
)
"""The fields that the hash of every account has."""

ACCOUNT_ORDERS: Final = sort_orders({"opened_at": ("opened_at", "_id"), "posted": ("posted", "_id")})


async def find_accounts(view: CallerView, parameters: AccountParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    match = parameters.model_dump(include={"owner_id", "currency", "status"}, exclude_none=True)
    match |= found_by_match(found_by(metadata=parameters.metadata))
    own = both(match, view.own("owner_id"))
    now = await view.now()
    return await read_list(view, ACCOUNTS, own, ACCOUNT_ORDERS[parameters.sort], parameters, key, partial(_account, now=now))


async def find_account(view: CallerView, account_id: str) -> AsOf[JsonObject | None]:
    """Reads one account, or returns None if there is no such account that the caller may see."""
    found = await _find_document(view, account_id)
    return found.holding(found.data and _account(found.data, now=await view.now()))


async def _find_document(view: CallerView, account_id: str) -> AsOf[JsonObject | None]:
    """Reads the fields of one account from its hash in Redis, or returns None as `find_account` does."""
    found = await view.values(BALANCES, ("HGETALL", f"account:{account_id}"))
    await _require_whole(view, found.data[0][::2])
    document = _account_document(account_id, found.data[0])
    return found.holding(document if document and view.sees(document["owner_id"]) else None)


async def find_balance(view: CallerView, account_id: str) -> AsOf[JsonObject | None]:
    fields = ("owner_id", "currency", "posted", "holds", "overdraft_limit")
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", *fields))
    await _require_whole(view, [name for name, value in zip(fields, found.data[0], strict=True) if value is not None], of=fields)
    owner_id, currency, *amounts = found.data[0]
    if owner_id is None or not view.sees(owner_id):
        return found.holding(None)
    posted, holds, overdraft_limit = map(int, amounts)
    if holds:
        account = await find_account(view, account_id)
        return account.holding(account.data and account.data["balance"])
    return found.holding(_balance(account_id, currency, posted, 0, overdraft_limit))


async def find_past_balance(view: CallerView, account_id: str, at: int | str, axis: Axis) -> AsOf[JsonObject | None]:
    """Reads what an account had posted at a past place, or returns None if there is no such account that the caller may see."""
    fields = ("owner_id", "currency")
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", *fields))
    await _require_whole(view, [name for name, value in zip(fields, found.data[0], strict=True) if value is not None], of=fields)
    owner_id, currency = found.data[0]
    if owner_id is None or not view.sees(owner_id):
        return found.holding(None)
    past = await find_moment(view, at, axis)
    posted = await find_posted(view, [account_id], past, axis)
    return posted.holding(_past_balance(account_id, currency, posted.data[account_id], past, axis))


def _past_balance(account_id: str, currency: str, posted: int, past: PastMoment, axis: Axis) -> JsonObject:
    return {"account_id": account_id, "currency": currency, "posted": posted, "axis": axis, "moment": past.moment}


async def find_past_accounts(
    view: CallerView, parameters: AccountParameters, at: int | str, key: CursorKey | None
) -> AsOf[ListSlice]:
    """Reads one page of the accounts that there are now, with what each had posted at a past place."""
    match = parameters.model_dump(include={"owner_id", "currency"}, exclude_none=True)
    past = await find_moment(view, at, parameters.axis)
    order = ACCOUNT_ORDERS[parameters.sort]
    own = both(match, view.own("owner_id"))
    found = await read_list(view.reaching(past.position), ACCOUNTS, own, order, parameters, key, _as_stored)
    accounts = found.data.items
    posted = await find_posted(view, [account["_id"] for account in accounts], past, parameters.axis)
    items = []
    for account in accounts:
        balance = _past_balance(account["_id"], account["currency"], posted.data[account["_id"]], past, parameters.axis)
        items.append(members_of(account, "owner_id", "currency", "opened_at") | {"balance": balance})
    return posted.holding(ListSlice(items, found.data.next_key))


def _as_stored(document: JsonObject) -> JsonObject:
    return document


async def _require_whole(view: CallerView, names: Sequence[str], of: Iterable[str] = ACCOUNT_FIELDS) -> None:
    """Checks that the hash of an account has all fields, or none if there is no such account.

    Raises:
        Rebuilding: the hash has lost a part of its fields.
    """
    if names and not set(of) <= set(names):
        await view.reader.give_up(BALANCES, view.ledger_id)


_INTEGERS: Final = ("overdraft_limit", "posted", "holds", "version")


def _account_document(account_id: str, flat: Sequence[str]) -> JsonObject | None:
    """Turns an account's hash in Redis, a flat list of names and values, into the document that MongoDB stores for it."""
    fields: JsonObject = dict(zip(flat[::2], flat[1::2], strict=True))
    if not fields:
        return None
    return fields | {name: int(fields[name]) for name in _INTEGERS} | {"_id": account_id}


def _account(document: JsonObject, now: str) -> JsonObject:
    """Returns an account as of `now`. A clock that is behind PostgreSQL's cannot show a hold whose expiry an event has used."""
    held = held_at(document, max(now, document["changed_at"])) if document["holds"] else 0
    names = ("owner_id", "currency", "status", "overdraft_limit", "opened_at", "changed_at", "version")
    amounts = (document["posted"], held, document["overdraft_limit"])
    metadata = orjson.loads(document["metadata"]) if "metadata" in document else None
    return {
        **members_of(document, *names),
        "metadata": metadata,
        "balance": _balance(document["_id"], document["currency"], *amounts),
    }


def _balance(account_id: str, currency: str, posted: int, held: int, overdraft_limit: int) -> JsonObject:
    """Returns the members of a balance. `available` is what can be spent now."""
    available = posted - held + overdraft_limit
    return {"account_id": account_id, "currency": currency, "posted": posted, "held": held, "available": available}


@router.get(
    "/accounts",
    tags=["accounts"],
    **documented_page(AccountResource | PastAccountResource, ACCOUNT_EXAMPLE, *READ_MODEL, access=own_or("ledger:read")),
)
async def list_accounts(request: QueryRequest, parameters: Annotated[AccountParameters, Query()]) -> Response:
    """List accounts with their balances, or with `at` what each had posted at a past moment or position.

    With `at`, the list has all accounts that there are now, also those that were not open yet and had 0.

    With `sort=posted`, an account whose balance changes between two requests may appear on two pages or on none.
    """
    key = request.cursor_key(parameters)
    if parameters.at is not None:
        return request.answer_page(await find_past_accounts(request.view(), parameters, parameters.at, key), parameters)
    return request.answer_page(await find_accounts(request.view(), parameters, key), parameters)


@router.get(
    "/accounts/{account_id}",
    tags=["accounts"],
    **documented_one(AccountResponse, ACCOUNT_EXAMPLE, access=own_or("ledger:read")),
)
async def get_account(request: QueryRequest, account_id: Id) -> Response:
    """Get an account with its balance."""
    view = request.view()
    found = await _find_document(view, account_id)
    account = found.data and _account(found.data, now=await view.now())
    return request.answer_one(found.holding(account), changes_with_time=bool(found.data and found.data["holds"]))


@router.get(
    "/accounts/{account_id}/balance",
    tags=["accounts"],
    **documented(BalanceResponse | PastBalanceResponse, as_of(BALANCE_EXAMPLE), *READ_MODEL, access=own_or("ledger:read")),
)
async def get_balance(request: QueryRequest, account_id: Id, parameters: Annotated[AtParameters, Query()]) -> Response:
    """Get the balance of an account, or with `at` what it had posted at a past moment or position.

    A moment that has not come yet is answered with all that is recorded so far. An account that was not open yet had 0.
    """
    if parameters.at is not None:
        return request.answer_one(await find_past_balance(request.view(), account_id, parameters.at, parameters.axis))
    return request.answer_one(await find_balance(request.view(), account_id))
