"""Reads pages of lists from read models in MongoDB, with filters and sort orders.

A list is ordered by one or two fields, of which the last is unique. A page begins after the field values of the last item of the
previous page. So items that are added in the meantime do not move other items to another page. A value from a caller is only
compared with fields. It never becomes a key or an operator of a MongoDB query.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from query_api.cursors import CursorKey
from query_api.parameters import PageParameters, Parameters
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.read_models.shapes import ReadModel

MongoMatch = dict[str, Any]
"""A filter in the query language of MongoDB."""


class ListSlice(msgspec.Struct, frozen=True):
    """The items of one page. `next_key` is the cursor key after which the next page begins, or None on the last page."""

    items: Sequence[Any]
    next_key: CursorKey | None
    has_marked: bool | None = None
    """True if one of the items is marked (see `read_texts`), and None if nobody has looked."""


class SortOrder(msgspec.Struct, frozen=True):
    """The one or two fields that a list is ordered by, all in the same direction. Their combined values are unique."""

    fields: tuple[str, ...]
    descending: bool

    def key(self, document: JsonObject) -> CursorKey:
        return [document[field] for field in self.fields]

    def after(self, key: CursorKey) -> MongoMatch:
        """Returns a filter for the items after `key`.

        With two fields, MongoDB reads the index from the first value of `key`, and leaves out the items with that value up to
        `key` itself. The same filter as an `$or` would make MongoDB consider indexes that do not help with the order.
        """
        beyond, from_here_on, up_to_here = ("$lt", "$lte", "$gte") if self.descending else ("$gt", "$gte", "$lte")
        if len(self.fields) == 1:
            return {self.fields[0]: {beyond: key[0]}}
        first, last = self.fields
        return {first: {from_here_on: key[0]}, "$nor": [{first: key[0], last: {up_to_here: key[1]}}]}

    def stage(self) -> JsonObject:
        return {"$sort": dict.fromkeys(self.fields, -1 if self.descending else 1)}


def sort_orders(fields: Mapping[str, tuple[str, ...]]) -> dict[str, SortOrder]:
    """Returns the sort orders by the values of the parameter `sort`, such as `name` and `-name`. A minus means descending."""
    upwards = {name: SortOrder(key_fields, descending=False) for name, key_fields in fields.items()}
    downwards = {f"-{name}": SortOrder(key_fields, descending=True) for name, key_fields in fields.items()}
    return upwards | downwards


def range_match(parameters: Parameters, *fields: str) -> MongoMatch:
    """Returns the filter for the range parameters of these fields: `amount[gte]=5` becomes `{"amount": {"$gte": 5}}`."""
    match: MongoMatch = {}
    for name in parameters.model_fields_set:
        field, _, operator = name.rpartition("_")
        if field in fields and (bound := getattr(parameters, name)) is not None:
            match.setdefault(field, {})[f"${operator}"] = bound
    return match


def found_by_match(texts: Sequence[str]) -> MongoMatch:
    """Returns the filter for documents with all these texts: see `shared.read_models.shapes.found_by`.

    MongoDB tries for each text how many documents it would have to read, and reads those of the text with the fewest.
    """
    if not texts:
        return {}
    return {"found_by": {"$all": list(texts)} if len(texts) > 1 else texts[0]}


def reference_match(beginning: str | None, sort: str) -> MongoMatch:
    """Returns the filter for references that begin with `beginning`, or for all references if they order the list.

    It is a range, so that MongoDB can use the index, which has only the documents with a reference.
    """
    if beginning:
        return {"reference": {"$gte": beginning, "$lt": beginning + "\U0010ffff"}}
    return {"reference": {"$gt": ""}} if sort.removeprefix("-") == "reference" else {}


async def read_one(
    view: CallerView, model: ReadModel, document_id: str, item: Callable[[JsonObject], Any], own: MongoMatch | None = None
) -> AsOf[Any]:
    """Reads one document and returns it as `item` converts it, or None if no document has this id and matches `own`."""
    found = await view.documents(model, [{"$match": both({"_id": document_id}, own or {})}])
    return found.holding(item(found.data[0]) if found.data else None)


async def read_list(
    view: CallerView,
    model: ReadModel,
    match: MongoMatch,
    order: SortOrder,
    parameters: PageParameters,
    key: CursorKey | None,
    item: Callable[[JsonObject], Any],
) -> AsOf[ListSlice]:
    """Reads one page of documents. `item` converts each document to an item of the answer."""
    found = await view.documents(model, _stages(match, order, parameters, key), alone=_takes_long(match))
    documents = found.data[: parameters.limit]
    next_key = order.key(documents[-1]) if len(found.data) > parameters.limit else None
    return found.holding(ListSlice([item(document) for document in documents], next_key))


async def read_list_of_texts(
    view: CallerView, model: ReadModel, match: MongoMatch, order: SortOrder, parameters: PageParameters, key: CursorKey | None
) -> AsOf[ListSlice]:
    """Reads one page of documents that store their item of the answer as JSON text. See `read_texts`."""
    found = await read_texts(view, model, match, order, parameters, key)
    return found.holding(msgspec.structs.replace(found.data, items=[orjson.Fragment(text) for text in found.data.items]))


async def read_texts(
    view: CallerView,
    model: ReadModel,
    match: MongoMatch,
    order: SortOrder,
    parameters: PageParameters,
    key: CursorKey | None,
    marked: JsonObject | None = None,
) -> AsOf[ListSlice]:
    """Reads the texts of one page of documents that store their item of the answer as JSON text.

    MongoDB sends the page as a single document with a list for each field. The JSON texts are not decoded, which saves time.
    `marked` is a condition of MongoDB for documents that the caller must decode.

    Raises:
        Rebuilding: an older version of the projection, which stored no texts, made the documents.
    """
    lists: JsonObject = {f"{field}s": {"$push": f"${field}"} for field in ("item", *order.fields)}
    if marked:
        lists["marked"] = {"$push": {"$cond": [marked, True, "$$REMOVE"]}}
    gathered = {"$group": {"_id": None, **lists}}
    found = await view.documents(model, [*_stages(match, order, parameters, key), gathered], alone=_takes_long(match))
    if not found.data:
        return found.holding(ListSlice([], None))
    [page] = found.data
    texts, limit = page["items"], parameters.limit
    *_, unique = keys = [page[f"{field}s"] for field in order.fields]
    if len(texts) != len(unique):
        raise rebuilding(model)
    next_key = [values[limit - 1] for values in keys] if len(texts) > limit else None
    return found.holding(ListSlice(texts[:limit], next_key, bool(page["marked"]) if marked else None))


def _stages(match: MongoMatch, order: SortOrder, parameters: PageParameters, key: CursorKey | None) -> list[JsonObject]:
    """Returns the aggregation stages for a page. They ask for one document more, which shows if there is a next page."""
    matched = match if key is None else {"$and": [match, order.after(key)]}
    return [{"$match": matched}, order.stage(), {"$limit": parameters.limit + 1}]


def _takes_long(match: MongoMatch) -> bool:
    """True if a query with this filter may take long.

    A filter by `_id` alone is fast. For any other filter, MongoDB may have to read many documents that do not match.
    """
    return set(match) != {"_id"}


def both(match: MongoMatch, own: MongoMatch) -> MongoMatch:
    """Returns a filter that requires both filters. It does not merge their keys, because both can be about the same field."""
    return {"$and": [match, own]} if own else match


def members_of(document: JsonObject, *names: str) -> JsonObject:
    """Returns the id and the named members of a document."""
    return {"id": document["_id"]} | {name: document[name] for name in names}
