"""The documents of one generation, in the collection that all ledgers share. Nothing else makes a filter or a document for it.

Each read model in MongoDB is one collection:

    accounts     {_id: "main.2/<account>", generation: "main.2", owner_id, …}: an account in generation 2 of the ledger `main`

Every index begins with the generation: the one on `_id` because the id does, and the others with the field `generation`. Callers
use ids, filters and pipelines as if a generation had a collection of its own. What they ask is completed here, so no query can
forget the ledger. `tests/query_api/test_tenants.py` looks at all that is sent.

The id of a ledger and the label of a copy have neither full stops nor slashes nor `@`. So no generation's ids are among those of
another one, whatever the ledgers are called.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import bson

from shared.read_models.shapes import COPY_MARK, GENERATION_FIELD
from shared.stores.mongo import MongoCollection, MongoDatabase, MongoSession

MongoDocument = dict[str, Any]
Order = Sequence[tuple[str, int]]

PUSHED_IDS: Final = "_ids"
BY_ID: Final[Order] = (("_id", 1),)

_BRANCHES: Final = {"$and", "$or", "$nor"}
_BOUNDS: Final = {"$gt", "$gte", "$lt", "$lte"}
_LATER_STAGES: Final = {"$group", "$limit", "$project", "$sample", "$sort"}
"""The stages that may follow the first one. They see only what the first one has matched."""
_WITH_EXPRESSIONS: Final = {"$group", "$project"}
_AFTER_SLASH: Final = "0"
_AFTER_FULL_STOP: Final = "/"
_LENGTH_BYTES: Final = 4
_ID_LENGTH_AT: Final = _LENGTH_BYTES + len(b"\x02_id\0")
"""Where BSON has the length of `_id`: after the length of the document, and the type and name of its first field."""


class GenerationDocuments:
    """The documents of one generation of a read model."""

    def __init__(self, model_name: str, ledger_id: str, number: int) -> None:
        """Names the documents. A copy shares the collection of its read model: its ledger has the copy's label."""
        self.collection_name, mark, label = model_name.partition(COPY_MARK)
        self.generation = f"{ledger_id}{mark}{label}.{number}"
        self._prefix = f"{self.generation}/"
        self._end = f"{self.generation}{_AFTER_SLASH}"
        self.named = {GENERATION_FIELD: self.generation}
        """What each of the documents has, besides its id."""
        self._named_bytes = bson.encode(self.named)[_LENGTH_BYTES:-1]

    def collection(self, mongo: MongoDatabase) -> MongoCollection:
        """Returns the collection, which also has the documents of all other ledgers."""
        return mongo[self.collection_name]

    # ── what is sent to MongoDB ──────────────────────────────────────────────────────────────────────────────────────

    def key(self, document_id: str) -> str:
        """Returns the stored `_id` of a document."""
        return self._prefix + document_id

    def stored(self, document: Mapping[str, Any]) -> MongoDocument:
        """Returns a document as it is stored: `_id` first, then the generation."""
        stored = {"_id": "", **self.named, **document}
        stored["_id"] = self._prefix + document["_id"]
        return stored

    def match(self, wanted: Mapping[str, Any], ordered_by: str | None = None) -> MongoDocument:
        """Returns the filter for the documents of this generation that match `wanted`.

        It names the generation once: by the ids that it asks for, by a range of all ids if they order the documents or if nothing
        does, and otherwise by the field. With both, MongoDB would consider indexes that do not help.
        """
        inside = self._inside(wanted)
        if _is_by_id(wanted):
            return inside
        is_by_id = ordered_by == "_id" or not (ordered_by or wanted)
        return {**({"_id": {"$gte": self._prefix, "$lt": self._end}} if is_by_id else self.named), **inside}

    def stages(self, pipeline: Sequence[MongoDocument]) -> list[MongoDocument]:
        """Returns the stages of an aggregation on the documents of this generation. The first one must be `$match`."""
        first, *later = pipeline
        if [*first] != ["$match"] or not all(stage.keys() <= _LATER_STAGES for stage in later):
            msg = f"a pipeline begins with $match, followed by stages of {sorted(_LATER_STAGES)}"
            raise ValueError(msg)
        ordered_by = next(iter(later[0].get("$sort", ())), None) if later else None
        return [{"$match": self.match(first["$match"], ordered_by)}, *map(self._later_stage, later)]

    def _inside(self, wanted: Mapping[str, Any]) -> MongoDocument:
        return {name: self._condition(name, value) for name, value in wanted.items()}

    def _condition(self, name: str, value: Any) -> Any:
        if name == "_id":
            return self._ids(value)
        return [self._inside(branch) for branch in value] if name in _BRANCHES else value

    def _ids(self, wanted: str | Mapping[str, Any]) -> str | MongoDocument:
        """Returns a condition for `_id`: one id, several, or a range. A range without an end ends where the generation does."""
        if isinstance(wanted, str):
            return self._prefix + wanted
        if [*wanted] == ["$in"]:
            return {"$in": [self._prefix + document_id for document_id in wanted["$in"]]}
        if not wanted or wanted.keys() - _BOUNDS:
            msg = "an _id is asked for as a text, with $in, or as a range"
            raise ValueError(msg)
        bounds = {operator: self._prefix + bound for operator, bound in wanted.items()}
        if not wanted.keys() & {"$gt", "$gte"}:
            bounds["$gte"] = self._prefix
        if not wanted.keys() & {"$lt", "$lte"}:
            bounds["$lt"] = self._end
        return bounds

    def _later_stage(self, stage: MongoDocument) -> MongoDocument:
        """Returns a stage in which `$_id` means the id without the generation.

        A group with `PUSHED_IDS` must have no other ids. It stays as it is, because that is cheaper for MongoDB: see `told`.
        """
        if _WITH_EXPRESSIONS.isdisjoint(stage) or PUSHED_IDS in stage.get("$group", ()):
            return stage
        return {name: self._expression(value) for name, value in stage.items()}

    def _expression(self, value: Any) -> Any:
        if value == "$_id":
            return {"$substrBytes": ["$_id", len(self._prefix), -1]}
        if isinstance(value, dict):
            return {name: self._expression(each) for name, each in value.items()}
        return [self._expression(each) for each in value] if isinstance(value, list) else value

    # ── what comes back ──────────────────────────────────────────────────────────────────────────────────────────────

    def told(self, document: MongoDocument) -> MongoDocument:
        """Changes a stored document, or a group with `PUSHED_IDS`, to what it is without its generation, and returns it.

        A document that names another generation keeps that, so a comparison finds it.
        """
        document_id = document.get("_id")
        if isinstance(document_id, str) and document_id.startswith(self._prefix):
            document["_id"] = document_id[len(self._prefix) :]
        if document.get(GENERATION_FIELD) == self.generation:
            del document[GENERATION_FIELD]
        if PUSHED_IDS in document:
            document[PUSHED_IDS] = [each.removeprefix(self._prefix) for each in document[PUSHED_IDS]]
        return document

    def told_bytes(self, raw: bytes) -> bytes:
        """Does the same with BSON as MongoDB sends it, without decoding it. The result has the same content, and is no BSON."""
        begin = _ID_LENGTH_AT + _LENGTH_BYTES
        end = begin + int.from_bytes(raw[_ID_LENGTH_AT:begin], "little")
        return raw[begin + len(self._prefix) : end] + raw[end:].removeprefix(self._named_bytes)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def find(
        self,
        mongo: MongoDatabase,
        wanted: Mapping[str, Any],
        fields: Mapping[str, int] | None = None,
        *,
        order: Order = BY_ID,
        limit: int = 0,
        session: MongoSession | None = None,
    ) -> AsyncIterator[MongoDocument]:
        """Yields the documents that match `wanted`, in this order. A limit of 0 is none."""
        found = self.collection(mongo).find(self.match(wanted, order[0][0]), fields, session=session)
        async for document in found.sort(list(order)).limit(limit):
            yield self.told(document)

    async def count(self, mongo: MongoDatabase, session: MongoSession | None = None) -> int:
        return await self.collection(mongo).count_documents(self.match({}), session=session)

    async def strays(self, mongo: MongoDatabase) -> list[MongoDocument]:
        """Returns a document whose `generation` is this one and whose `_id` is not, if there is one. Reads a whole index."""
        elsewhere = {**self.named, "_id": {"$not": self.match({})["_id"]}}
        return await self.collection(mongo).find(elsewhere).limit(1).to_list(None)

    async def first(self, mongo: MongoDatabase, count_max: int) -> MongoDocument | None:
        """Returns the filter for the first documents, at most so many, or None if there is no document."""
        first = self.collection(mongo).find(self.match({}), {"_id": 1}).sort("_id", 1).limit(count_max)
        ids = [document["_id"] for document in await first.to_list(None)]
        return {"_id": {"$gte": ids[0], "$lte": ids[-1]}} if ids else None


def _is_by_id(wanted: Mapping[str, Any]) -> bool:
    """True if a filter allows only ids that it names, or ranges of them."""
    if "_id" in wanted or any(map(_is_by_id, wanted.get("$and", ()))):
        return True
    return "$or" in wanted and all(map(_is_by_id, wanted["$or"]))


async def stored_numbers(mongo: MongoDatabase, model_name: str, ledger_id: str) -> set[int]:
    """Returns the numbers of the generations of a ledger that have documents. Takes a round trip for each, and one more."""
    any_of = GenerationDocuments(model_name, ledger_id, 0)
    ledger = any_of.generation.rpartition(".")[0]
    numbers = set[int]()
    bounds = {"$gte": f"{ledger}.", "$lt": f"{ledger}{_AFTER_FULL_STOP}"}
    while found := await any_of.collection(mongo).find_one({"_id": bounds}, {"_id": 1}, sort=list(BY_ID)):
        generation = found["_id"].partition("/")[0]
        number = generation.rpartition(".")[2]
        numbers |= {int(number)} if re.fullmatch("[0-9]+", number) else set()
        bounds["$gte"] = f"{generation}{_AFTER_SLASH}"
    return numbers
