"""Is a read model what the log folds to, up to its checkpoint?

The log is folded into dictionaries, and the store is read piece by piece, each piece together with the checkpoint as of the same
moment. Before a piece is compared, the fold is taken to that checkpoint: so a read model that moves on meanwhile is verified as
exactly as one that stands still. Documents that are written once are compared page by page and never held all at once.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from projector.changes import Document, DocumentChanges, Value
from projector.dead_letters import Parking, PutAside
from projector.difference import DifferenceFound, require_equal
from projector.feed import Feed, LogChangedError
from projector.projections import Projection
from projector.sinks import Checkpoint, MongoSink, RedisSink, Sink, make_sinks
from shared.connections import MongoDatabase, Stores
from shared.dead_letters import Aside
from shared.errors import Rebuilding
from shared.events import RecordedEvent
from shared.read_models import Generation, live_generation

PIECE: Final = 1_000
_SNAPSHOT: Final = ReadConcern("snapshot")

Advanced = Callable[[int], None]


class ReadModelMovedError(Exception):
    """Another generation took this one's place: begin anew with that one."""


class Fold:
    """The read model in memory, as of `position`."""

    def __init__(self, projection: Projection[Any], feed: Feed, advanced: Advanced) -> None:
        self.parking = Parking()
        """What the generation leaves out; to be set before anything is folded."""
        self.position = 0
        self._log_hash = b""
        self.contents: dict[str, Any] = {}
        self.feed = feed
        self.projection = projection
        self._advanced = advanced

    def start_again(self) -> None:
        self.position, self._log_hash = 0, b""
        self.parking = Parking(self.parking.letters, skips=self.parking.skips)

    async def advance_to(self, position: int) -> None:
        """Never back: a checkpoint that was read later is not smaller."""
        while self.position < position:
            page = await self.next_page(position)
            self.changes_of(page).apply_to(self.contents)

    async def next_page(self, up_to: int) -> list[RecordedEvent]:
        """The events after the position, which moves with them; at least one."""
        try:
            page = (await self.feed.page(self.position, self._log_hash, self))[: up_to - self.position]
        except LogChangedError:
            raise DifferenceFound(f"position {self.position} of the log", "the event of a moment ago", "another") from None
        if not page:
            raise DifferenceFound(f"{self.projection.name}, checkpoint", f"at most {self.position}, where the log ends", up_to)
        self.position, self._log_hash = page[-1].position, page[-1].hash
        self._advanced(len(page))
        return page

    def changes_of(self, page: list[RecordedEvent]) -> Any:
        changes, aside = self.projection.new_changes(), PutAside()
        self.projection.fold(changes, self.parking.sift(self.projection, page, aside))
        self.parking.settle(aside)
        return changes


async def verify_origin(checkpoint: Checkpoint, generation: Generation, feed: Feed) -> None:
    """Raises:
    DifferenceFound: the read model was folded from another log, or by other code.
    """
    where = f"{generation.model.name}, checkpoint"
    if checkpoint.position > await feed.refresh():
        raise DifferenceFound(where, f"at most {feed.head}, where the log ends", checkpoint.position)
    require_equal(f"{where}, version of the projection", generation.model.version, checkpoint.model_version)
    log_hash = await feed.hash_at(checkpoint.position) if checkpoint.position else ""
    require_equal(f"{where}, hash of the log at {checkpoint.position}", log_hash, checkpoint.log_hash)


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class MongoReader:
    """A generation in pieces, each with the checkpoint as of the same moment."""

    def __init__(self, mongo: MongoDatabase, generation: Generation) -> None:
        self._client = mongo.client
        self._collection = generation.collection(mongo)
        self._sink = MongoSink(mongo)
        self._generation = generation

    async def after(self, document_id: str) -> tuple[int, list[Document]]:
        """The next documents in the order of their ids."""
        return await self._find({"_id": {"$gt": document_id}})

    async def these(self, document_ids: list[str]) -> tuple[int, list[Document]]:
        return await self._find({"_id": {"$in": document_ids}})

    async def count(self) -> tuple[int, int]:
        async with await self._client.start_session() as session, session.start_transaction(_SNAPSHOT):
            return await self._position(session), await self._collection.count_documents({}, session=session)

    async def _find(self, query: Document) -> tuple[int, list[Document]]:
        async with await self._client.start_session() as session, session.start_transaction(_SNAPSHOT):
            position = await self._position(session)
            found = self._collection.find(query, session=session).sort("_id", 1).limit(PIECE)
            return position, await found.to_list(None)

    async def _position(self, session: AsyncIOMotorClientSession) -> int:
        position = await self._sink.read_position(self._generation, session)
        if position is None:
            raise ReadModelMovedError
        return position


async def verify_documents(reader: MongoReader, fold: Fold, name: str) -> int:
    """Compares all documents with the fold; the number of documents.

    Raises:
        DifferenceFound: names the first document and field that are not as the log says.
    """
    seen: set[str] = set()
    last = ""
    while True:
        position, found = await reader.after(last)
        await fold.advance_to(position)
        for document in found:
            require_equal(f"{name} {document['_id']}", fold.contents.get(document["_id"]), document)
        if not found:
            break
        last = found[-1]["_id"]
        seen.update(document["_id"] for document in found)
    # Missing, or made behind our back: the second look tells.
    for missing in _pieces(fold.contents.keys() - seen):
        position, found = await reader.these(missing)
        await fold.advance_to(position)
        by_id = {document["_id"]: document for document in found}
        for document_id in missing:
            require_equal(f"{name} {document_id}", fold.contents[document_id], by_id.get(document_id))
    return len(fold.contents)


async def verify_documents_written_once(reader: MongoReader, fold: Fold, name: str) -> int:
    """The same without holding them all. Raises what `verify_documents` raises."""
    expected = 0
    up_to, _ = await reader.these([])
    while fold.position < up_to:
        documents = fold.changes_of(await fold.next_page(up_to)).inserted
        expected += len(documents)
        for ids in _pieces(documents):
            _, found = await reader.these(ids)
            by_id = {document["_id"]: document for document in found}
            for document_id in ids:
                require_equal(f"{name} {document_id}", documents[document_id], by_id.get(document_id))
    position, count = await reader.count()
    while fold.position < position:
        expected += len(fold.changes_of(await fold.next_page(position)).inserted)
    if count != expected:
        await _locate_extra_document(reader, fold, name)
        raise DifferenceFound(f"{name}, number of documents at {position}", expected, count)
    return count


async def _locate_extra_document(reader: MongoReader, fold: Fold, name: str) -> None:
    """Slow, and only for a read model that is known to be damaged: it holds all ids."""
    ids: set[str] = set()
    end = fold.position
    fold.start_again()
    while fold.position < end:
        changes: DocumentChanges = fold.changes_of(await fold.next_page(end))
        ids.update(changes.inserted)
    last = ""
    while found := (await reader.after(last))[1]:
        for document in found:
            if document["_id"] not in ids and document.get("position", 0) <= end:
                raise DifferenceFound(f"{name} {document['_id']}", None, document)
        last = found[-1]["_id"]


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def verify_keys(sink: RedisSink, generation: Generation, fold: Fold) -> int:
    """Compares all keys with the fold; the number of keys. Raises what `verify_documents` raises."""
    seen: set[str] = set()
    await _verify_position(sink, generation, fold)
    # As the read model moves on, keys are added to it.
    while missing := fold.contents.keys() - seen:
        for names in _pieces(missing):
            await _verify_some_keys(sink, generation, fold, names)
            seen.update(names)
    extra = await sink.key_names(generation) - fold.contents.keys()
    await _verify_position(sink, generation, fold)
    for name in sorted(extra - fold.contents.keys()):
        if (await sink.read_keys(generation, {name: None}))[1][name] is not None:
            raise DifferenceFound(f"{generation.model.name} {name}", None, "a key")
    return len(fold.contents)


async def _verify_position(sink: RedisSink, generation: Generation, fold: Fold) -> None:
    await _verify_some_keys(sink, generation, fold, [])


async def _verify_some_keys(sink: RedisSink, generation: Generation, fold: Fold, names: list[str]) -> None:
    position, found = await sink.read_keys(generation, {name: _kind(fold.contents.get(name)) for name in names})
    if position is None:
        raise ReadModelMovedError
    await fold.advance_to(position)
    for name in names:
        expected = fold.contents.get(name)
        if expected and _kind(expected) == "zset":
            expected = {member: float(score) for member, score in expected.items()}
        require_equal(f"{generation.model.name} {name}", expected, found[name])


def _kind(value: Value | None) -> str | None:
    if isinstance(value, dict):
        return "hash" if all(isinstance(field, str) for field in value.values()) else "zset"
    return "list" if isinstance(value, list) else None


def _pieces(items: Any) -> Iterator[list[str]]:
    rest = iter(sorted(items))
    while piece := list(islice(rest, PIECE)):
        yield piece


# ── any of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Verified(msgspec.Struct, frozen=True):
    """A read model that is right: how many documents or keys it has, as of `position`, and how much it has put aside."""

    count: int
    position: int
    aside: Aside


async def verify_read_model(stores: Stores, projection: Projection[Any], feed: Feed, advanced: Advanced) -> Verified:
    """Compares the live generation with the log, whatever happens to both meanwhile.

    Raises:
        DifferenceFound: names the first place where it is not what the log says.
    """
    while True:
        try:
            generation = await live_generation(stores.mongo, stores.redis, projection.model, feed.ledger_id)
        except Rebuilding as rebuilding:
            raise DifferenceFound(projection.name, "a live read model", rebuilding.detail) from rebuilding
        sink = make_sinks(stores.mongo, stores.redis)[projection.model.store]
        fold = Fold(projection, feed, advanced)
        checkpoint = await sink.read_checkpoint(generation)
        if checkpoint is None:
            raise DifferenceFound(f"{projection.name}, checkpoint", "one", None)
        try:
            count = await verify_generation(stores, generation, fold, projection)
        except (DifferenceFound, ReadModelMovedError, OperationFailure):
            if not await _has_changed(sink, generation, checkpoint):
                raise
        else:
            return Verified(count, fold.position, checkpoint.aside)


async def _parking(sink: Sink[Any], generation: Generation, checkpoint: Checkpoint, feed: Feed) -> Parking:
    """What the generation says it has left out, and what it has to leave out from here on.

    Raises:
        DifferenceFound: an event is in that an operator had skipped.
    """
    letters = {letter.position for letter in await sink.read_letters(generation)}
    skips = await feed.skips(generation.model.name)
    skipped = checkpoint.aside.skipped
    for position in sorted(skips - skipped - letters):
        if position <= checkpoint.position:
            raise DifferenceFound(f"{generation.model.name}, event {position}", "left out, as an operator said", "folded")
    return Parking(letters, skips=skipped | {position for position in skips if position > checkpoint.position})


async def verify_generation(stores: Stores, generation: Generation, fold: Fold, projection: Projection[Any]) -> int:
    """Compares all of a generation with the log, also one that no reader sees yet; the number of its documents or keys.

    Raises:
        DifferenceFound: names the first place where it is not what the log says.
        ReadModelMovedError: it is gone.
    """
    sink = make_sinks(stores.mongo, stores.redis)[projection.model.store]
    checkpoint = await sink.read_checkpoint(generation)
    if checkpoint is None:
        raise DifferenceFound(f"{projection.name}, checkpoint", "one", None)
    fold.parking = await _parking(sink, generation, checkpoint, fold.feed)
    await verify_origin(checkpoint, generation, fold.feed)
    if generation.model.store == "redis":
        return await verify_keys(RedisSink(stores.redis), generation, fold)
    reader = MongoReader(stores.mongo, generation)
    verify = verify_documents_written_once if projection.write_once else verify_documents
    return await verify(reader, fold, projection.name)


async def _has_changed(sink: Sink[Any], generation: Generation, before: Checkpoint) -> bool:
    """Another generation is live by now, or this one has put more aside."""
    if (await sink.read_pointer(generation.model, generation.ledger_id)).live != generation.number:
        return True
    checkpoint = await sink.read_checkpoint(generation)
    return checkpoint is not None and checkpoint.aside.letters != before.aside.letters
