"""Checks that a read model equals the fold of the log up to its checkpoint.

The log is folded into dictionaries. The store is read in parts, each together with the checkpoint at the same moment. Before a
part is compared, the fold is advanced to that checkpoint. So the check is also exact for a read model that changes meanwhile.
Documents that are written once are compared slice by slice, so that they need not all fit into memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import msgspec
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from projector.dead_letters import DeadLetterTracker
from projector.feed import Feed, LogChangedError
from projector.projections.changes import DocumentChanges, KeyValue, StoredDocument
from projector.projections.projection import Projection
from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import RowReader, Sink, StepDeadLetters
from projector.sinks.redis import RedisSink
from projector.sinks.registry import make_sinks
from projector.verify.difference import DifferenceFound, require_equal
from shared.log.events import RecordedEvent
from shared.logs import kind_of
from shared.progress import CountDone
from shared.read_models.dead_letters import DeadLetterSummary
from shared.read_models.generations import Generation
from shared.read_models.shapes import index_options, index_text
from shared.read_models.stored_state import Checkpoint
from shared.stores.all_stores import Stores
from shared.stores.mongo import MongoDatabase, MongoSession

PART_MAX: Final = 1_000
"""The most documents or keys that are read at once."""
_SNAPSHOT: Final = ReadConcern("snapshot")


class ReadModelMovedError(Exception):
    """Another generation has replaced this one. The caller must verify that one from the start."""


class FoldedReadModel:
    """The fold of the log up to `position`, in memory: the content that the read model must have."""

    def __init__(self, projection: Projection[Any], feed: Feed, count_done: CountDone) -> None:
        self.parking = DeadLetterTracker()
        """Decides which events the generation leaves out. Set this before the first event is folded."""
        self.position = 0
        self._log_hash = b""
        self.contents: dict[str, Any] = {}
        self.feed = feed
        self.projection = projection
        self._count_done = count_done

    def start_again(self) -> None:
        self.position, self._log_hash = 0, b""
        self.parking = DeadLetterTracker(self.parking.letters, skips=self.parking.skips)

    async def advance_to(self, position: int) -> None:
        """Folds the log up to a position. Does nothing if the fold is already there or beyond."""
        while self.position < position:
            page = await self.next_page(position)
            with self._folding(page):
                self.changes_of(page).apply_to(self.contents)

    async def next_page(self, up_to: int) -> list[RecordedEvent]:
        """Returns the next events up to a position, at least one, and sets `position` to the last of them.

        Raises:
            DifferenceFound: the log changed meanwhile, or ends before this position.
        """
        try:
            page = (await self.feed.next_events(self.position, self._log_hash, self))[: up_to - self.position]
        except LogChangedError:
            raise DifferenceFound(f"position {self.position} of the log", "the event that was read before", "another") from None
        if not page:
            raise DifferenceFound(f"{self.projection.name}, checkpoint", f"at most {self.position}, where the log ends", up_to)
        self.position, self._log_hash = page[-1].position, page[-1].hash
        self._count_done(len(page))
        return page

    def changes_of(self, page: list[RecordedEvent]) -> Any:
        """Returns the changes that these events make.

        Raises:
            DifferenceFound: the projection fails at them.
        """
        changes, aside = self.projection.new_changes(), StepDeadLetters()
        with self._folding(page):
            self.projection.fold(changes, self.parking.sift(self.projection, page, aside))
        self.parking.settle(aside)
        return changes

    @contextmanager
    def _folding(self, page: list[RecordedEvent]) -> Iterator[None]:
        """A log that somebody changed can make a projection fail in any way. That is a difference, and no error of ours."""
        try:
            yield
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            where = f"{self.projection.name}, events {page[0].position} to {page[-1].position}"
            raise DifferenceFound(
                where, "events that follow from each other", f"a projection that fails ({kind_of(error)})"
            ) from None


async def verify_origin(checkpoint: Checkpoint, generation: Generation, feed: Feed) -> None:
    """Checks that the read model was made from this log, with this model version.

    Raises:
        DifferenceFound: the read model was made from another log, or has another model version.
    """
    where = f"{generation.model.name}, checkpoint"
    if checkpoint.position > await feed.refresh():
        raise DifferenceFound(where, f"at most {feed.head}, where the log ends", checkpoint.position)
    require_equal(f"{where}, version of the projection", generation.model.version, checkpoint.model_version)
    log_hash = await feed.hash_at(checkpoint.position) if checkpoint.position else ""
    require_equal(f"{where}, hash of the log at {checkpoint.position}", log_hash, checkpoint.log_hash)


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class MongoReader:
    """Reads a generation in parts. Each part comes with the position of the checkpoint at the same moment."""

    def __init__(self, mongo: MongoDatabase, generation: Generation) -> None:
        self._mongo = mongo
        self._documents = generation.documents()
        self._sink = MongoSink(mongo)
        self._generation = generation

    async def after(self, document_id: str) -> tuple[int, list[StoredDocument]]:
        """Returns the position of the checkpoint, and the documents after an id, in the order of their ids."""
        return await self._find({"_id": {"$gt": document_id}})

    async def these(self, document_ids: list[str]) -> tuple[int, list[StoredDocument]]:
        return await self._find({"_id": {"$in": document_ids}})

    async def count(self) -> tuple[int, int]:
        async with await self._mongo.client.start_session() as session, session.start_transaction(_SNAPSHOT):
            return await self._position(session), await self._documents.count(self._mongo, session)

    async def _find(self, query: StoredDocument) -> tuple[int, list[StoredDocument]]:
        async with await self._mongo.client.start_session() as session, session.start_transaction(_SNAPSHOT):
            position = await self._position(session)
            found = self._documents.find(self._mongo, query, limit=PART_MAX, session=session)
            return position, [document async for document in found]

    async def _position(self, session: MongoSession) -> int:
        position = await self._sink.read_position(self._generation, session)
        if position is None:
            raise ReadModelMovedError
        return position


class SinkReader:
    """Reads a generation in an optional store. Its sink reads rows together with the checkpoint (see `RowReader`)."""

    def __init__(self, sink: Any, generation: Generation) -> None:
        self._sink: RowReader = sink
        self._generation = generation

    async def after(self, document_id: str) -> tuple[int, list[StoredDocument]]:
        return _still_there(await self._sink.rows_after(self._generation, document_id))

    async def these(self, document_ids: list[str]) -> tuple[int, list[StoredDocument]]:
        return _still_there(await self._sink.these_rows(self._generation, document_ids))


def _still_there(found: tuple[int | None, list[StoredDocument]]) -> tuple[int, list[StoredDocument]]:
    position, documents = found
    if position is None:
        raise ReadModelMovedError
    return position, documents


async def verify_collection(sink: MongoSink, generation: Generation) -> None:
    """Checks that the collection of a live generation has its indexes and no others, and no options.

    Raises:
        DifferenceFound: an index is missing or is another one, such as one that lets documents expire; or the collection has an
            option, such as a rule that rejects documents.
    """
    indexes, options = await sink.read_definition(generation)
    where = f"{generation.model.name}, collection"
    defined = sorted(index_text(keys, options) for keys, options in index_options(generation.model))
    require_equal(f"{where}, indexes", defined, indexes)
    require_equal(f"{where}, options", {}, options)


async def verify_schema_of_store(reader: RowReader, name: str) -> None:
    """Checks that an optional store has all that its migrations make. What somebody added is no difference.

    Raises:
        DifferenceFound: something is missing or was changed. The error says how to mend it.
    """
    for each in await reader.find_schema_differences():
        expected, found = ("one", None) if each.is_missing else ("as the migrations make it", "another")
        raise DifferenceFound(f"{name}, {each.part} (to mend it: {each.fix})", expected, found)


async def verify_documents(reader: MongoReader | SinkReader, fold: FoldedReadModel, name: str) -> int:
    """Compares all documents with the fold, and returns their number.

    Raises:
        DifferenceFound: a document does not match the log. The error names the first such document and field.
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
    # A document that was not seen is missing, or was inserted after this loop had passed its id. Read it again to find out.
    for missing in _parts(fold.contents.keys() - seen):
        position, found = await reader.these(missing)
        await fold.advance_to(position)
        by_id = {document["_id"]: document for document in found}
        for document_id in missing:
            require_equal(f"{name} {document_id}", fold.contents[document_id], by_id.get(document_id))
    return len(fold.contents)


async def verify_documents_written_once(reader: MongoReader, fold: FoldedReadModel, name: str) -> int:
    """Does the same as `verify_documents` for documents that never change, without holding all of them in memory."""
    expected = 0
    up_to, _ = await reader.these([])
    while fold.position < up_to:
        documents = fold.changes_of(await fold.next_page(up_to)).inserted
        expected += len(documents)
        for ids in _parts(documents):
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


async def _verify_no_strays(mongo: MongoDatabase, generation: Generation) -> None:
    """Checks that lists, which are read by the field `generation`, find only documents whose `_id` is of the generation too.

    Raises:
        DifferenceFound: there is another document. The error names one.
    """
    for stray in await generation.documents().strays(mongo):
        raise DifferenceFound(f"{generation.model.name} {stray['_id']}", None, stray)


async def _locate_extra_document(reader: MongoReader, fold: FoldedReadModel, name: str) -> None:
    """Finds a document that the log does not make, and raises a `DifferenceFound` that names it.

    This is slow and keeps all ids in memory. It runs only if the number of documents is already known to be wrong.
    """
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


async def verify_keys(sink: RedisSink, generation: Generation, fold: FoldedReadModel) -> int:
    """Compares all keys with the fold, and returns their number.

    Raises:
        DifferenceFound: a key does not match the log. The error names the first such key.
    """
    seen: set[str] = set()
    await _verify_position(sink, generation, fold)
    # The read model may move meanwhile, which adds keys to the fold. They are compared in the next turn of the loop.
    while missing := fold.contents.keys() - seen:
        for names in _parts(missing):
            await _verify_some_keys(sink, generation, fold, names)
            seen.update(names)
    await _verify_names(sink, generation, fold)
    for name, milliseconds in await sink.expiring_keys(generation):
        raise DifferenceFound(f"{generation.model.name} {name}, time to live", None, f"{milliseconds} ms")
    extra = await sink.key_names(generation) - fold.contents.keys()
    await _verify_position(sink, generation, fold)
    for name in sorted(extra - fold.contents.keys()):
        if (await sink.read_keys(generation, {name: None}))[1][name] is not None:
            raise DifferenceFound(f"{generation.model.name} {name}", None, "a key")
    return len(fold.contents)


async def _verify_position(sink: RedisSink, generation: Generation, fold: FoldedReadModel) -> None:
    await _verify_some_keys(sink, generation, fold, [])


async def _verify_names(sink: RedisSink, generation: Generation, fold: FoldedReadModel) -> None:
    """Checks that the generation notes the names of exactly its keys. Without a name, the loss of its key is not noticed."""
    position, names = await sink.read_names(generation)
    if position is None:
        raise ReadModelMovedError
    await fold.advance_to(position)
    require_equal(f"{generation.model.name}, names of keys", sorted(fold.contents), sorted(names))


async def _verify_some_keys(sink: RedisSink, generation: Generation, fold: FoldedReadModel, names: list[str]) -> None:
    position, found = await sink.read_keys(generation, {name: _kind(fold.contents.get(name)) for name in names})
    if position is None:
        raise ReadModelMovedError
    await fold.advance_to(position)
    for name in names:
        expected = fold.contents.get(name)
        if expected and _kind(expected) == "zset":
            expected = {member: float(score) for member, score in expected.items()}
        require_equal(f"{generation.model.name} {name}", expected, found[name])


def _kind(value: KeyValue | None) -> str | None:
    if isinstance(value, dict):
        return "hash" if all(isinstance(field, str) for field in value.values()) else "zset"
    return "list" if isinstance(value, list) else None


def _parts(items: Any) -> Iterator[list[str]]:
    rest = iter(sorted(items))
    while part := list(islice(rest, PART_MAX)):
        yield part


# ── any store ──────────────────────────────────────────────────────────────────────────────────────────────────────


class VerifiedReadModel(msgspec.Struct, frozen=True):
    """The result for a read model that matches the log: how many documents or keys it has at `position`, and its dead letters."""

    count: int
    position: int
    aside: DeadLetterSummary


async def verify_read_model(stores: Stores, projection: Projection[Any], feed: Feed, count_done: CountDone) -> VerifiedReadModel:
    """Compares the live generation with the log. Meanwhile, events may be recorded and another generation may become live.

    Raises:
        DifferenceFound: the generation does not match the log. The error names the first difference.
    """
    sink: Any = make_sinks(stores)[projection.model.store]
    if projection.model.store in stores.optional:
        await verify_schema_of_store(sink, projection.name)
    while True:
        number = (await sink.read_pointer(projection.model, feed.ledger_id)).live
        generation = Generation(projection.model, feed.ledger_id, number or 0)
        if number is None or await sink.read_checkpoint(generation) is None:
            raise DifferenceFound(projection.name, "a live read model", f"the read model {projection.name!r} is being rebuilt")
        fold = FoldedReadModel(projection, feed, count_done)
        checkpoint = await sink.read_checkpoint(generation)
        if checkpoint is None:
            raise DifferenceFound(f"{projection.name}, checkpoint", "one", None)
        try:
            if generation.model.store == "mongo":
                await verify_collection(MongoSink(stores.mongo), generation)
            count = await verify_generation(stores, generation, fold, projection)
        except (DifferenceFound, ReadModelMovedError, OperationFailure):
            if not await _has_changed(sink, generation, checkpoint):
                raise
        else:
            return VerifiedReadModel(count, fold.position, checkpoint.aside)


async def _parking(sink: Sink[Any], generation: Generation, checkpoint: Checkpoint, feed: Feed) -> DeadLetterTracker:
    """Returns a tracker for the events that the generation has left out so far and must leave out later.

    Raises:
        DifferenceFound: the generation contains an event that an operator has skipped, or is marked to have skipped an event that
            no operator has. Only the log says what is skipped: a mark beside a checkpoint could be forged to hide an event.
    """
    letters = {letter.position for letter in await sink.read_letters(generation)}
    skips = await feed.skips(generation.model.name)
    skipped = checkpoint.aside.skipped
    for position in sorted(skipped - skips):
        raise DifferenceFound(
            f"{generation.model.name}, event {position}", "folded: the log has no decision to skip it", "skipped"
        )
    for position in sorted(skips - skipped - letters):
        if position <= checkpoint.position:
            raise DifferenceFound(f"{generation.model.name}, event {position}", "skipped, as an operator decided", "folded")
    return DeadLetterTracker(letters, skips=skipped | {position for position in skips if position > checkpoint.position})


async def verify_generation(stores: Stores, generation: Generation, fold: FoldedReadModel, projection: Projection[Any]) -> int:
    """Compares a whole generation, live or not, with the log. Returns the number of documents or keys in the generation.

    Raises:
        DifferenceFound: the generation does not match the log. The error names the first difference.
        ReadModelMovedError: the generation was dropped meanwhile.
    """
    sink = make_sinks(stores)[projection.model.store]
    checkpoint = await sink.read_checkpoint(generation)
    if checkpoint is None:
        raise DifferenceFound(f"{projection.name}, checkpoint", "one", None)
    fold.parking = await _parking(sink, generation, checkpoint, fold.feed)
    await verify_origin(checkpoint, generation, fold.feed)
    if generation.model.store == "redis":
        return await verify_keys(RedisSink(stores.redis), generation, fold)
    if generation.model.store == "mongo" and generation.model.indexes:
        await _verify_no_strays(stores.mongo, generation)
    reader = MongoReader(stores.mongo, generation) if generation.model.store == "mongo" else SinkReader(sink, generation)
    if projection.write_once and isinstance(reader, MongoReader):
        return await verify_documents_written_once(reader, fold, projection.name)
    return await verify_documents(reader, fold, projection.name)


async def _has_changed(sink: Sink[Any], generation: Generation, before: Checkpoint) -> bool:
    """Returns True if another generation is live now, or if this one has more dead letters than before."""
    if (await sink.read_pointer(generation.model, generation.ledger_id)).live != generation.number:
        return True
    checkpoint = await sink.read_checkpoint(generation)
    return checkpoint is not None and checkpoint.aside.letters != before.aside.letters
