"""Every question that the read models answer. Each function takes typed values only, and says what is there, not how it is sent.

What a client typed reaches MongoDB as a value to compare with, never as a key or an operator, and Redis as the end of a key.
Lists are ordered by fields that end in a unique one, and a page begins after the values of the last item of the page before:
items that come in meanwhile move no other item to another page.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from query_api.parameters import (
    POSITION_MAX,
    AccountParameters,
    EntryParameters,
    PageParameters,
    Parameters,
    StatisticsParameters,
    TransferParameters,
    UserParameters,
)
from query_api.reading import AsOf, Document, View, rebuilding
from shared.money import CURRENCIES
from shared.read_models import (
    ACCOUNTS,
    ACTIVITY,
    BALANCES,
    ENTRIES,
    STATISTICS,
    TRANSFERS,
    USERS,
    ReadModel,
    entry_id,
    search_words,
)

Key = list[Any]
Match = dict[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Some items of a list. `next_key` is where the next page begins; None where there is none."""

    items: Sequence[Any]
    next_key: Key | None


class Order(msgspec.Struct, frozen=True):
    """The fields that a list is ordered by, all in one direction; together they are unique."""

    fields: tuple[str, ...]
    descending: bool

    def key(self, document: Document) -> Key:
        return [document[field] for field in self.fields]

    def after(self, key: Key) -> Match:
        """What comes after `key`: an index begins at its first value, and those of that value up to the key are left out.

        As an `$or`, the same would make MongoDB consider indexes that have nothing to do with the order.
        """
        beyond, from_here_on, up_to_here = ("$lt", "$lte", "$gte") if self.descending else ("$gt", "$gte", "$lte")
        if len(self.fields) == 1:
            return {self.fields[0]: {beyond: key[0]}}
        first, last = self.fields
        return {first: {from_here_on: key[0]}, "$nor": [{first: key[0], last: {up_to_here: key[1]}}]}

    def stage(self) -> Document:
        return {"$sort": dict.fromkeys(self.fields, -1 if self.descending else 1)}


def orders(fields: Mapping[str, tuple[str, ...]]) -> dict[str, Order]:
    """By the values of `sort`: a minus is descending."""
    upwards = {name: Order(key_fields, descending=False) for name, key_fields in fields.items()}
    downwards = {f"-{name}": Order(key_fields, descending=True) for name, key_fields in fields.items()}
    return upwards | downwards


USER_ORDERS: Final = orders({"created_at": ("created_at", "_id"), "name": ("name", "_id")})
ACCOUNT_ORDERS: Final = orders({"opened_at": ("opened_at", "_id"), "posted": ("posted", "_id")})
TRANSFER_ORDERS: Final = orders(
    {
        "recorded_at": ("recorded_at", "position"),
        "position": ("recorded_at", "position"),
        "occurred_at": ("occurred_at", "_id"),
        "amount": ("amount", "_id"),
    }
)
ENTRY_ORDERS: Final = orders({"recorded_at": ("_id",), "position": ("_id",)})

# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_users(view: View, parameters: UserParameters, key: Key | None) -> AsOf[Page]:
    match: Match = {"status": parameters.status} if parameters.status else {}
    if parameters.search:
        match["$and"] = [{"search": {"$elemMatch": _prefix(word)}} for word in search_words(parameters.search)]
    return await _page(view, USERS, _both(match, view.own("_id")), USER_ORDERS[parameters.sort], parameters, key, _user)


async def get_user(view: View, user_id: str) -> AsOf[Document | None]:
    return await _one(view, USERS, user_id, _user, view.own("_id"))


def _prefix(word: str) -> Match:
    """All texts that begin with the word, as a range of the index."""
    return {"$gte": word, "$lt": word + "\U0010ffff"}


def _user(document: Document) -> Document:
    user = _members(document, "name", "email", "status", "created_at", "changed_at", "version")
    if user["status"] == "erased":
        user["name"] = user["email"] = None
    return user


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_accounts(view: View, parameters: AccountParameters, key: Key | None) -> AsOf[Page]:
    match = parameters.model_dump(include={"owner_id", "currency", "status"}, exclude_none=True)
    own = _both(match, view.own("owner_id"))
    return await _page(view, ACCOUNTS, own, ACCOUNT_ORDERS[parameters.sort], parameters, key, _account)


async def get_account(view: View, account_id: str) -> AsOf[Document | None]:
    """From Redis, where an account is one hash."""
    found = await view.values(BALANCES, ("HGETALL", f"account:{account_id}"))
    account = _account(_account_document(account_id, found.data[0]))
    return found.holding(account if account and view.sees(account["owner_id"]) else None)


async def get_balance(view: View, account_id: str) -> AsOf[Document | None]:
    fields = ("owner_id", "currency", "posted", "held", "overdraft_limit")
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", *fields))
    owner_id, currency, *amounts = found.data[0]
    if currency is None or not view.sees(owner_id):
        return found.holding(None)
    posted, held, overdraft_limit = map(int, amounts)
    return found.holding(_balance(account_id, currency, posted, held, overdraft_limit))


_INTEGERS: Final = ("overdraft_limit", "posted", "held", "version")


def _account_document(account_id: str, flat: Sequence[str]) -> Document | None:
    """A Redis hash, a flat list of names and texts, as the document that MongoDB has of the same account."""
    fields: Document = dict(zip(flat[::2], flat[1::2], strict=True))
    if not fields:
        return None
    return fields | {name: int(fields[name]) for name in _INTEGERS} | {"_id": account_id}


def _account(document: Document | None) -> Document | None:
    if document is None:
        return None
    names = ("owner_id", "currency", "status", "overdraft_limit", "opened_at", "changed_at", "version")
    amounts = (document["posted"], document["held"], document["overdraft_limit"])
    return {**_members(document, *names), "balance": _balance(document["_id"], document["currency"], *amounts)}


def _balance(account_id: str, currency: str, posted: int, held: int, overdraft_limit: int) -> Document:
    """`available` is what can be taken out now."""
    available = posted - held + overdraft_limit
    return {"account_id": account_id, "currency": currency, "posted": posted, "held": held, "available": available}


# ── transfers and entries ────────────────────────────────────────────────────────────────────────────────────────────


async def list_transfers(view: View, parameters: TransferParameters, key: Key | None) -> AsOf[Page]:
    match = _ranges(parameters, "recorded_at", "occurred_at", "amount")
    if parameters.account_id:
        match["account_ids"] = parameters.account_id
    if parameters.currency:
        match["currency"] = parameters.currency
    elif parameters.sort.endswith("amount"):
        # The index by amount begins with the currency: with all of them named, it is merged in order and nothing is sorted.
        match["currency"] = {"$in": sorted(CURRENCIES)}
    own = await _own_transfers(view)
    return own.limiting(
        await _page(view, TRANSFERS, _both(match, own.data), TRANSFER_ORDERS[parameters.sort], parameters, key, _transfer)
    )


async def get_transfer(view: View, transfer_id: str) -> AsOf[Document | None]:
    own = await _own_transfers(view)
    return own.limiting(await _one(view, TRANSFERS, transfer_id, _transfer, own.data))


async def _own_transfers(view: View) -> AsOf[Match]:
    """The filter that leaves a customer what touches own accounts, as of the position of these."""
    if view.customer is None:
        return AsOf(POSITION_MAX, {})
    accounts = await view.documents(ACCOUNTS, [{"$match": view.own("owner_id")}, {"$project": {"_id": 1}}], alone=True)
    return accounts.holding({"account_ids": {"$in": [account["_id"] for account in accounts.data]}})


async def list_entries(view: View, account_id: str, parameters: EntryParameters, key: Key | None) -> AsOf[Page | None]:
    """None where there is no such account."""
    everything = {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, POSITION_MAX)}
    match = {"_id": everything} | _ranges(parameters, "recorded_at", "amount")
    if view.customer is not None and (own := await _one(view, ACCOUNTS, account_id, _account, view.own("owner_id"))).data is None:
        return own
    found = await _page_of_texts(view, ENTRIES, match, ENTRY_ORDERS[parameters.sort], parameters, key)
    if found.data.items or key is not None:
        return found.holding(found.data)
    # An account without entries is not the same as no account.
    account = await _one(view, ACCOUNTS, account_id, _account)
    return found.holding(found.data) if account.data else account


def _ranges(parameters: Parameters, *fields: str) -> Match:
    """`amount[gte]=5` → `{"amount": {"$gte": 5}}`."""
    match: Match = {}
    if not parameters.model_fields_set:
        return match
    for field in fields:
        bounds = {operator: getattr(parameters, f"{field}_{operator}") for operator in ("gt", "gte", "lt", "lte")}
        asked = {f"${operator}": value for operator, value in bounds.items() if value is not None}
        if asked:
            match[field] = asked
    return match


def _transfer(document: Document) -> Document:
    names = ("kind", "from_account_id", "to_account_id", "amount", "currency", "occurred_at", "recorded_at")
    return _members(document, *names, "reference", "metadata", "position")


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_statistics(view: View, parameters: StatisticsParameters) -> AsOf[Document]:
    hashes = [("HGETALL", name) for name in ("users", "accounts", "sums", "transfers", "volumes")]
    ranked = ["busiest", f"ranking:{parameters.currency}"] if parameters.currency else ["busiest"]
    rankings = [("ZREVRANGE", name, "0", str(parameters.top - 1), "WITHSCORES") for name in ranked]
    found = await view.values(STATISTICS, *hashes, *rankings)
    users, accounts, sums, transfers, volumes = map(_numbers, found.data[:5])
    busiest, *ranking = map(_ranked, found.data[5:])
    statistics = {
        "users": {status: users.get(status, 0) for status in ("active", "inactive", "erased")},
        "currencies": _by_currency(accounts, sums),
        "days": _by_day(transfers, volumes, parameters.days),
        "busiest": [{"account_id": account_id, "transfers": number} for account_id, number in busiest],
        "ranking": [{"account_id": account_id, "posted": posted} for account_id, posted in ranking[0]] if ranking else None,
    }
    return found.holding(statistics)


def _numbers(flat: Sequence[str]) -> dict[str, int]:
    return {name: int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


def _ranked(flat: Sequence[str]) -> list[tuple[str, int]]:
    """Scores are floats, which hold every balance exactly: none is beyond 2^53 − 1."""
    return [(member, int(float(score))) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def _by_currency(accounts: Mapping[str, int], sums: Mapping[str, int]) -> list[Document]:
    """`outside` is the balance of the outside world: what came in less what went out, seen from there."""
    currencies = sorted({name.partition(":")[0] for name in accounts} | set(sums))
    return [
        {
            "currency": currency,
            "accounts": {status: accounts.get(f"{currency}:{status}", 0) for status in ("open", "frozen", "closed")},
            "posted": sums.get(currency, 0),
            "outside": -sums.get(currency, 0),
        }
        for currency in currencies
    ]


def _by_day(transfers: Mapping[str, int], volumes: Mapping[str, int], days: int) -> list[Document]:
    """The latest days on which money moved, newest first."""
    latest = sorted(transfers, reverse=True)[:days]
    moved: dict[str, dict[str, int]] = {day: {} for day in latest}
    for name, amount in sorted(volumes.items()):
        day, _, currency = name.partition(":")
        if day in moved:
            moved[day][currency] = amount
    return [{"day": day, "transfers": transfers[day], "amounts": moved[day]} for day in latest]


async def list_activity(view: View, limit: int) -> AsOf[Page]:
    found = await view.values(ACTIVITY, ("LRANGE", "recent", "0", str(limit - 1)))
    return found.holding(Page([orjson.Fragment(item) for item in found.data[0]], None))


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _one(
    view: View, model: ReadModel, document_id: str, item: Callable[[Document], Any], own: Match | None = None
) -> AsOf[Any]:
    found = await view.documents(model, [{"$match": _both({"_id": document_id}, own or {})}])
    return found.holding(item(found.data[0]) if found.data else None)


async def _page(
    view: View,
    model: ReadModel,
    match: Match,
    order: Order,
    parameters: PageParameters,
    key: Key | None,
    item: Callable[[Document], Any],
) -> AsOf[Page]:
    found = await view.documents(model, _stages(match, order, parameters, key), alone=_takes_long(match))
    documents = found.data[: parameters.limit]
    next_key = order.key(documents[-1]) if len(found.data) > parameters.limit else None
    return found.holding(Page([item(document) for document in documents], next_key))


async def _page_of_texts(
    view: View, model: ReadModel, match: Match, order: Order, parameters: PageParameters, key: Key | None
) -> AsOf[Page]:
    """Of documents that hold their item as text. A page comes as one document of lists, and nobody decodes its items.

    Raises:
        Rebuilding: they were made by a version of the projection that stored no texts.
    """
    gathered = {"$group": {"_id": None} | {f"{field}s": {"$push": f"${field}"} for field in ("item", *order.fields)}}
    found = await view.documents(model, [*_stages(match, order, parameters, key), gathered], alone=_takes_long(match))
    if not found.data:
        return found.holding(Page([], None))
    [page] = found.data
    texts, limit = page["items"], parameters.limit
    *_, unique = keys = [page[f"{field}s"] for field in order.fields]
    if len(texts) != len(unique):
        raise rebuilding(model)
    next_key = [values[limit - 1] for values in keys] if len(texts) > limit else None
    return found.holding(Page([orjson.Fragment(text) for text in texts[:limit]], next_key))


def _stages(match: Match, order: Order, parameters: PageParameters, key: Key | None) -> list[Document]:
    """One document more than asked for shows whether there is a next page."""
    matched = match if key is None else {"$and": [match, order.after(key)]}
    return [{"$match": matched}, order.stage(), {"$limit": parameters.limit + 1}]


def _takes_long(match: Match) -> bool:
    """What is filtered out is looked at too, however much that is."""
    return set(match) != {"_id"}


def _both(match: Match, own: Match) -> Match:
    """Neither may overwrite the other: both can be about the same field."""
    return {"$and": [match, own]} if own else match


def _members(document: Document, *names: str) -> Document:
    return {"id": document["_id"]} | {name: document[name] for name in names}
