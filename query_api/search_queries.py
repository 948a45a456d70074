"""Asks the search store for transfers and users. Imported only where DAYBOOK_SEARCH_URL is set.

A question reads the pointer and the checkpoint first. So the answer has all events up to the position that it names. What was
written in the meantime may show too.

A transfer holds no names. To find transfers by the names of people, the users with these names are found first, then their
accounts. Customers do not search by names: those of others are not theirs.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from query_api.cursors import CursorKey
from query_api.lists import ListSlice
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.errors import Rebuilding
from shared.read_models.generations import Generation
from shared.read_models.shapes import SEARCH
from shared.search.store import SearchStore

WORDS_MAX: Final = 10
"""How many words of a text are looked for. Further words are left out."""
NAMES_MAX: Final = 100
"""How many people with a name in their transfers are looked for: those that fit best."""
ACCOUNTS_MAX: Final = 10_000

_TEXT_FIELDS: Final = ("reference", "metadata_values", "name", "email")
_NAME_FIELDS: Final = ("name",)
_SHOWN_FIELDS: Final = {"reference": "reference", "metadata_values": "metadata", "name": "name", "email": "email"}
"""Field of the documents → the member of `highlights`."""
_FACETS: Final[JsonObject] = {
    "currency": {"terms": {"field": "currency", "size": 200}},
    "kind": {"terms": {"field": "kind", "size": 20}},
    "month": {"terms": {"field": "month", "size": 240, "order": {"_key": "desc"}}},
}
_HIGHLIGHT: Final[JsonObject] = {
    "pre_tags": ["<em>"],
    "post_tags": ["</em>"],
    "encoder": "html",
    "number_of_fragments": 0,
    "fields": {name: {} for name in _TEXT_FIELDS},
}
_ORDERS: Final[Mapping[str, list[JsonObject]]] = {
    "relevance": [{"_score": "desc"}, {"document_id": "asc"}],
    "recorded_at": [{"recorded_at": "asc"}, {"document_id": "asc"}],
    "-recorded_at": [{"recorded_at": "desc"}, {"document_id": "desc"}],
}
_HIDDEN_KINDS: Final = ("postings", "exchange")
"""What customers do not find: each side of these has amounts that are not for the other."""
_TRANSFER_MEMBERS: Final = (
    *("kind", "from_account_id", "to_account_id", "amount", "currency", "occurred_at", "recorded_at"),
    *("reference", "metadata", "position"),
)
_USER_MEMBERS: Final = ("name", "email", "status", "metadata", "recorded_at", "position")


class SearchSlice(msgspec.Struct, frozen=True):
    """A page of what was found, and how many of all that was found have which currency, kind and month."""

    page: ListSlice
    facets: JsonObject


class SearchQueries:
    """The questions to the search store."""

    def __init__(self, store: SearchStore) -> None:
        self._store = store

    async def find(self, view: CallerView, asked: Mapping[str, Any], limit: int, key: CursorKey | None) -> AsOf[SearchSlice]:
        """Returns a page of transfers and users. `asked` has the parameters of the search, and `sort` is one of `_ORDERS`.

        Raises:
            StoreUnavailable: the search store does not answer.
            TimeoutError: it takes too long.
        """

        async def look() -> AsOf[SearchSlice]:
            try:
                async with asyncio.timeout(self._store.read_seconds):
                    return await self._look(view, asked, limit, key)
            except Rebuilding:
                await view.reader.require_ledger(view.ledger_id)
                raise

        return await view.fresh(SEARCH, look)

    async def _look(self, view: CallerView, asked: Mapping[str, Any], limit: int, key: CursorKey | None) -> AsOf[SearchSlice]:
        number = (await self._store.read_pointer(SEARCH, view.ledger_id)).live
        generation = Generation(SEARCH, view.ledger_id, number or 0)
        checkpoint = None if number is None else await self._store.read_checkpoint(generation)
        if checkpoint is None:
            raise rebuilding(SEARCH)
        search = _OneSearch(self._store, self._store.index_of(generation), view.customer)
        return AsOf(checkpoint.position, await search.find(asked, limit, key))


class _OneSearch:
    """One search of one caller in one index."""

    def __init__(self, store: SearchStore, index: str, customer: str | None) -> None:
        self._store = store
        self._index = index
        self._customer = customer
        self._names: dict[str, str] = {}
        """User id → the name with the words that were looked for marked, of the people who were found by their names."""

    async def find(self, asked: Mapping[str, Any], limit: int, key: CursorKey | None) -> SearchSlice:
        text = asked.get("q") or ""
        clauses = await asyncio.gather(*(self._with_word(word) for word in text.split()[:WORDS_MAX]))
        wanted = {"bool": {"must": clauses, "filter": [*_filters(asked), await self._own()]}}
        body = {"size": limit + 1, "query": wanted, "sort": _ORDERS[asked["sort"]], "aggs": _FACETS, "highlight": _HIGHLIGHT}
        body["track_total_hits"] = False
        found = await self._search(body | ({"search_after": key} if key else {}))
        hits = found["hits"]["hits"][:limit]
        items = await self._with_names([_item(hit) for hit in hits])
        next_key = hits[-1]["sort"] if len(found["hits"]["hits"]) > limit else None
        return SearchSlice(ListSlice(items, next_key), {name: _facet(found["aggregations"][name]) for name in _FACETS})

    async def _search(self, body: JsonObject) -> JsonObject:
        found = await self._store.search(self._index, body)
        if found is None:  # dropped since the pointer was read
            raise rebuilding(SEARCH)
        return found

    async def _with_word(self, word: str) -> JsonObject:
        """Returns the query for what has a word like this, or an account of somebody with a name like this."""
        ways = _like(word, _TEXT_FIELDS)
        if self._customer is None and (accounts := await self._accounts_of(await self._people(word))):
            ways.append({"terms": {"account_ids": accounts, "boost": 2}})
        return {"bool": {"should": ways, "minimum_should_match": 1}}

    async def _people(self, word: str) -> list[str]:
        """Returns the ids of the users who have a name like this word."""
        query = {"bool": {"should": _like(word, _NAME_FIELDS), "filter": [{"term": {"resource": "user"}}]}}
        wanted = query | {"bool": query["bool"] | {"minimum_should_match": 1}}
        found = await self._search({"size": NAMES_MAX, "query": wanted, "_source": False, "highlight": _HIGHLIGHT})
        names = {_id_of(hit): hit["highlight"]["name"][0] for hit in found["hits"]["hits"] if "highlight" in hit}
        self._names |= names
        return [*names]

    async def _accounts_of(self, owner_ids: Sequence[str]) -> list[str]:
        if not owner_ids:
            return []
        found = await self._search({"size": ACCOUNTS_MAX, "query": {"terms": {"owner_id": owner_ids}}, "_source": False})
        return [_id_of(hit) for hit in found["hits"]["hits"]]

    async def _own(self) -> JsonObject:
        """Returns the filter for what this caller may see: no accounts, which are only there to find transfers."""
        if self._customer is None:
            return {"terms": {"resource": ["transfer", "user"]}}
        own = {"terms": {"account_ids": await self._accounts_of([self._customer])}}
        transfers = {"bool": {"filter": [own], "must_not": [{"terms": {"kind": _HIDDEN_KINDS}}]}}
        is_caller = {"term": {"document_id": f"users/{self._customer}"}}
        return {"bool": {"should": [transfers, is_caller], "minimum_should_match": 1}}

    async def _with_names(self, items: list[JsonObject]) -> list[JsonObject]:
        """Adds to transfers the names of the people whose accounts they are from and to. Customers get none."""
        transfers = [item for item in items if item["type"] == "transfer"]
        ends = {account_id for item in transfers for account_id in (item["from_account_id"], item["to_account_id"])} - {None}
        owners: dict[str, str] = {}
        users: Mapping[str, JsonObject] = {}
        if self._customer is None and ends:
            accounts = await self._store.fetch(self._index, [f"accounts/{account_id}" for account_id in sorted(ends)])
            owners = {name.removeprefix("accounts/"): account["owner_id"] for name, account in accounts.items()}
            users = await self._store.fetch(self._index, [f"users/{owner_id}" for owner_id in sorted({*owners.values()})])
        for item in transfers:
            for end in ("from", "to"):
                owner_id = owners.get(item[f"{end}_account_id"], "")
                item[f"{end}_name"] = users.get(f"users/{owner_id}", {}).get("name") or None
                if owner_id in self._names:
                    item["highlights"][f"{end}_name"] = [self._names[owner_id]]
        return items


def _like(word: str, fields: Sequence[str]) -> list[JsonObject]:
    """Returns two queries for fields with a word: one that finds exactly it, and one that also finds words nearly like it.

    What both find is first in the order of relevance. The operator is for a word with signs in it, which OpenSearch divides.
    """
    exact = {"query": word, "fields": [*fields], "operator": "and"}
    return [{"multi_match": exact | {"boost": 4}}, {"multi_match": exact | {"fuzziness": "AUTO:4,8", "prefix_length": 1}}]


def _filters(asked: Mapping[str, Any]) -> Iterable[JsonObject]:
    fields = {"type": "resource", "currency": "currency", "kind": "kind", "month": "month", "account_id": "account_ids"}
    return ({"term": {field: asked[name]}} for name, field in fields.items() if asked.get(name))


def _id_of(hit: JsonObject) -> str:
    return str(hit["_id"]).partition("/")[2]


def _item(hit: JsonObject) -> JsonObject:
    source = hit["_source"]
    names = _TRANSFER_MEMBERS if source["resource"] == "transfer" else _USER_MEMBERS
    members = {name: source[name] for name in names}
    if source["resource"] == "user":
        members |= {name: members[name] or None for name in ("name", "email")}
    marked = {_SHOWN_FIELDS[name]: texts for name, texts in hit.get("highlight", {}).items()}
    return {"type": source["resource"], "id": _id_of(hit)} | members | {"highlights": marked}


def _facet(found: JsonObject) -> list[JsonObject]:
    return [{"value": each["key"], "count": each["doc_count"]} for each in found["buckets"]]
