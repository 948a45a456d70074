"""Writes read models to MongoDB. A transaction writes a batch and moves the checkpoint.

All ledgers and generations of a read model share a collection (`shared.read_models.documents`). All pointers are in one
collection, and so are all checkpoints, dead letters and parked streams. Never write a read model outside a transaction that moves
its checkpoint.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import bson
import msgspec
import pymongo
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.results import UpdateResult

from projector.projections.changes import DocumentChanges, StoredDocument
from projector.sinks.mongo_changes import commands_of, write_changes
from projector.sinks.mongo_transactions import MongoRaceLostError, MongoTransactions
from projector.sinks.protocols import TOGETHER_CHANGES_MAX, LiveCheckpoint, Step
from shared.read_models.dead_letters import (
    DeadLetter,
    dead_letters_in_mongo,
    ids_of_generation,
    parked_streams_in_mongo,
    summary_in_document,
)
from shared.read_models.documents import stored_numbers
from shared.read_models.generations import Generation, checkpoint_id, pointer_id
from shared.read_models.shapes import COPY_MARK, READ_MODELS, ReadModel, index_options, index_text
from shared.read_models.stored_state import Checkpoint, Pointer
from shared.stores.mongo import BlockingMongoSession, MongoDatabase, MongoSession, blocking
from shared.stores.shared_round_trips import SharedRoundTrips

_NAMESPACE_EXISTS: Final = 48
_MAY_MOVE: Final = {"retired": {"$ne": True}, "paused": {"$ne": True}}
_NO_NOTES: Final = {"_id", "live", "building", "previous"}
_NO_OPTIONS: Final = {"key", "v", "ns"}

DIGEST_DOCUMENTS: Final = 2_000
"""The number of documents that are held in memory at the same time."""

DROP_DOCUMENTS: Final = 2_000
"""The most documents that are deleted at once."""

SCAN_SECONDS_MAX: Final = 24 * 3_600.0
"""The timeout for work on millions of documents, such as building an index. None would mean the client's own timeout."""

DocumentBatch = tuple[Generation, Step, DocumentChanges]


_OLD_COLLECTIONS: Final = r"^(read_models|[a-z][a-z0-9-]*\.[a-z@0-9-]+\.[0-9]+)$"


async def drop_old_collections(mongo: MongoDatabase) -> int:
    """Drops what older code has made: a collection for each generation of each ledger, and their pointers. Returns how many."""
    names = await mongo.list_collection_names(filter={"name": {"$regex": _OLD_COLLECTIONS}})
    for name in names:
        await mongo.drop_collection(name)
    return len(names)


class MongoSink:
    """The read models in MongoDB."""

    def __init__(self, mongo: MongoDatabase) -> None:
        self._mongo = mongo
        self._transactions = MongoTransactions(mongo)
        self._together = SharedRoundTrips(self._apply_together, len(READ_MODELS))

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        found = await self._mongo.checkpoints.find_one({"_id": checkpoint_id(generation)})
        if found is None or found["collection_uuid"] != await self._collection_uuid(generation):
            return None
        return _checkpoint(found)

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint]:
        """Returns the live checkpoints, by `pointer_id`. A collection that was lost is noticed by its UUID."""
        pairs = {pointer_id(model, ledger_id): (model, ledger_id) for ledger_id in ledger_ids for model in models}
        pointers = self._mongo.pointers.find({"_id": {"$in": list(pairs)}, "live": {"$ne": None}}, {"live": 1})
        live = {each["_id"]: Generation(*pairs[each["_id"]], each["live"]) async for each in pointers}
        wanted = {"$in": list(map(checkpoint_id, live.values()))}
        checkpoints = {each["_id"]: each async for each in self._mongo.checkpoints.find({"_id": wanted})}
        uuids = await self._collection_uuids({generation.documents().collection_name for generation in live.values()})
        found = {name: (generation, checkpoints.get(checkpoint_id(generation))) for name, generation in live.items()}
        return {
            name: LiveCheckpoint(generation.number, _checkpoint(document))
            for name, (generation, document) in found.items()
            if document and document["collection_uuid"] == uuids.get(generation.documents().collection_name)
        }

    async def find_loss(self, generation: Generation) -> None:
        """Finds nothing: MongoDB deletes no single document by itself, and `read_checkpoint` notices a lost collection."""

    async def read_position(self, generation: Generation, session: MongoSession) -> int | None:
        """Returns the position of the checkpoint in the snapshot that the MongoDB session reads, or None if there is none."""
        found = await self._mongo.checkpoints.find_one({"_id": checkpoint_id(generation)}, session=session)
        return found["position"] if found else None

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        return await dead_letters_in_mongo(self._mongo, generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await parked_streams_in_mongo(self._mongo, generation)

    async def _collection_uuid(self, generation: Generation) -> str | None:
        """Returns the collection's UUID, or None. A collection that was dropped and created again has another UUID."""
        name = generation.documents().collection_name
        return (await self._collection_uuids({name})).get(name)

    async def _collection_uuids(self, names: set[str]) -> dict[str, str]:
        """Returns the UUIDs of the collections that exist. MongoDB finds them by name, and does not look at all collections."""
        found = await self._mongo.list_collections(filter={"name": {"$in": list(names)}})
        return {each["name"]: bytes(each["info"]["uuid"]).hex() async for each in found}

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        """Applies a batch. Small batches of several read models that are ready at the same time share a transaction.

        If the shared transaction fails, each batch gets its own transaction. So a batch that has an error or waits for locks does
        not delay the other batches.
        """
        batch = generation, step, changes
        if len(changes) <= TOGETHER_CHANGES_MAX and not step.dead_letters and await self._together.ask(batch):
            return True
        return await self._apply_alone(batch)

    async def require_fits(self, generation: Generation, step: Step, changes: DocumentChanges) -> None:
        """Does nothing: MongoDB rolls back a transaction that fails."""

    async def _apply_together(self, batches: Sequence[DocumentBatch]) -> Sequence[bool]:
        """Applies all batches or none. Returns for each whether it was applied."""
        if len(batches) == 1:
            return [False]
        try:
            await asyncio.to_thread(self._write_together, batches)
        # One of the batches failed. The caller applies each in its own transaction, which shows which one failed and why.
        except Exception:  # noqa: BLE001
            return [False] * len(batches)
        return [True] * len(batches)

    def _write_together(self, batches: Sequence[DocumentBatch]) -> None:
        """Writes several batches in one transaction. Blocks its thread, so run it outside the event loop.

        Raises:
            MongoRaceLostError: a checkpoint is not where its step begins, or a document to change is missing.
        """
        database = blocking(self._mongo)
        with database.client.start_session() as session, session.start_transaction():
            for command, count in self._commands_together(batches):
                if database.command(command, session=session)["n"] != count:
                    raise MongoRaceLostError

    def _commands_together(self, batches: Sequence[DocumentBatch]) -> Iterator[tuple[StoredDocument, int]]:
        """Yields the MongoDB commands of a shared transaction, each with the number of documents that it must write."""
        updates = [{"q": _start(generation, step), "u": _move(step)} for generation, step, _ in batches]
        yield {"update": self._mongo.checkpoints.name, "updates": updates}, len(updates)
        for generation, _, changes in batches:
            yield from commands_of(generation.documents(), changes)

    async def _apply_alone(self, batch: DocumentBatch) -> bool:
        generation, step, changes = batch
        try:
            if changes or step.dead_letters:
                await self._transactions.run(partial(self._write_alone, batch))
            else:
                moving = self._mongo.checkpoints.update_one(_start(generation, step), _move(step))
                _require_moved(await self._transactions.wait_for(moving))
        except MongoRaceLostError:
            await self._transactions.after_lost_step(checkpoint_id(generation), step.before)
            return False
        return True

    def _write_alone(self, batch: DocumentBatch, session: BlockingMongoSession) -> None:
        """Writes a batch in the transaction of this session. Blocks its thread."""
        generation, step, changes = batch
        database = blocking(self._mongo)
        _require_moved(database.checkpoints.update_one(_start(generation, step), _move(step), session=session))
        prefix = checkpoint_id(generation)
        letters = [
            {"_id": f"{prefix}/{each.position:016d}", **msgspec.structs.asdict(each)} for each in step.dead_letters.letters
        ]
        parked = [{"_id": f"{prefix}/{stream_id}", "position": at} for stream_id, at in step.dead_letters.parked.items()]
        for collection, documents in ((database.dead_letters, letters), (database.parked_streams, parked)):
            if documents:
                collection.insert_many(documents, session=session)
        write_changes(database, generation, changes, session)

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        with pymongo.timeout(SCAN_SECONDS_MAX):
            return await generation.documents().count(self._mongo)

    async def sample(self, generation: Generation, size: int) -> list[str]:
        documents = generation.documents()
        # MongoDB takes a sample of the ids, which it reads from their index, and no document.
        pipeline = documents.stages([{"$match": {}}, {"$project": {"_id": 1}}, {"$sample": {"size": size}}])
        with pymongo.timeout(SCAN_SECONDS_MAX):
            found = documents.collection(self._mongo).aggregate(pipeline)
            return sorted({documents.told(document)["_id"] async for document in found})

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        return {found["_id"]: found async for found in generation.documents().find(self._mongo, {"_id": {"$in": names}})}

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        documents = generation.documents()
        stored = documents.collection(self._mongo).with_options(codec_options=DEFAULT_RAW_BSON_OPTIONS)
        cursor: Any = stored.find(documents.match({}), batch_size=DIGEST_DOCUMENTS)
        while found := await cursor.to_list(DIGEST_DOCUMENTS):
            for document in found:
                if generation.model.written_once:
                    yield documents.told_bytes(document.raw)
                else:
                    # MongoDB adds new fields in an order of its own, which depends on how events were divided into batches.
                    yield bson.encode(dict(sorted(documents.told(dict(document)).items())))

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        uuid = await self._collection_uuid(generation)
        if uuid is None:
            await self._create_collection(generation.documents().collection_name)
            uuid = await self._collection_uuid(generation)
        checkpoint = {"position": 0, "log_hash": "", "model_version": generation.model.version, "collection_uuid": uuid}
        await self._mongo.checkpoints.update_one({"_id": checkpoint_id(generation)}, {"$setOnInsert": checkpoint}, upsert=True)

    async def _create_collection(self, name: str) -> None:
        try:
            await self._mongo.create_collection(name, check_exists=False)
        except OperationFailure as failure:
            if failure.code != _NAMESPACE_EXISTS:  # if it exists, another worker has created it, which is fine
                raise

    async def create_indexes(self, generation: Generation) -> None:
        """Creates the missing indexes of the collection, for all ledgers, and drops those that are not defined."""
        collection = generation.documents().collection(self._mongo)
        defined = {index_text(keys, options): (keys, options) for keys, options in index_options(generation.model)}
        existing = await self._indexes(generation)
        with pymongo.timeout(SCAN_SECONDS_MAX):
            for name in [name for name, text in existing.items() if text not in defined]:
                await self._transactions.wait_for(collection.drop_index(name))
            if missing := [defined[text] for text in defined.keys() - existing.values()]:
                indexes = [IndexModel(list(keys), **options) for keys, options in missing]
                await self._transactions.wait_for(collection.create_indexes(indexes))

    async def _indexes(self, generation: Generation) -> dict[str, str]:
        """Returns the indexes of the collection except the one on `_id`, by name, each as text with its options."""
        information = await generation.documents().collection(self._mongo).index_information()
        return {
            name: index_text(index["key"], {option: value for option, value in index.items() if option not in _NO_OPTIONS})
            for name, index in information.items()
            if name != "_id_"
        }

    async def read_definition(self, generation: Generation) -> tuple[list[str], dict[str, Any]]:
        """Returns the indexes of the collection except the one on `_id`, each as text with its options, and its own options."""
        options = await generation.documents().collection(self._mongo).options()
        return sorted((await self._indexes(generation)).values()), dict(options)

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """Returns the numbers of the generations that have documents or a checkpoint."""
        checkpoints = f"^{re.escape(f'{pointer_id(model, ledger_id)}/')}[0-9]+$"
        ids = await self._mongo.checkpoints.distinct("_id", {"_id": {"$regex": checkpoints}})
        return {int(each.rpartition("/")[2]) for each in ids} | await stored_numbers(self._mongo, model.name, ledger_id)

    async def drop(self, generation: Generation) -> None:
        """Deletes a generation in steps. If it is interrupted, `numbers` still has the generation, and the next call goes on."""
        wait_for, documents = self._transactions.wait_for, generation.documents()
        key = {"_id": checkpoint_id(generation)}
        # From now on the generation counts as lost and takes no batch. Its checkpoint is deleted last.
        await wait_for(self._mongo.checkpoints.update_one(key, {"$set": {"collection_uuid": None, "retired": True}}))
        while part := await documents.first(self._mongo, DROP_DOCUMENTS):
            await wait_for(documents.collection(self._mongo).delete_many(part))
        await wait_for(self._mongo.dead_letters.delete_many(ids_of_generation(generation)))
        await wait_for(self._mongo.parked_streams.delete_many(ids_of_generation(generation)))
        await wait_for(self._mongo.checkpoints.delete_one(key))

    # ── pointers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        found = await self._mongo.pointers.find_one({"_id": pointer_id(model, ledger_id)})
        return Pointer(found["live"], found["building"], found.get("previous")) if found else Pointer()

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        wanted = {"_id": pointer_id(model, ledger_id), **msgspec.structs.asdict(before)}
        moving = self._mongo.pointers.update_one(wanted, {"$set": msgspec.structs.asdict(after)}, upsert=before == Pointer())
        try:
            moved = await self._transactions.wait_for(moving)
        except DuplicateKeyError:  # the upsert wanted to insert a pointer, but another one exists
            return False
        return bool(moved.matched_count or moved.upserted_id)

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        with suppress(MongoRaceLostError):
            await self._transactions.run(partial(self._switch, generation, pointer))
            return True
        return False

    def _switch(self, generation: Generation, pointer: Pointer, session: BlockingMongoSession) -> None:
        """Moves the pointer, and retires the old generation in the same transaction. Blocks its thread.

        A retired generation takes no more batches. It must not be ahead of the new one, so readers never see an older position.
        """
        database = blocking(self._mongo)
        built = database.checkpoints.find_one({"_id": checkpoint_id(generation)}, session=session)
        if built is None or pointer.building != generation.number:
            raise MongoRaceLostError
        if pointer.live is not None:
            old = Generation(generation.model, generation.ledger_id, pointer.live)
            _require_moved(
                database.checkpoints.update_one(
                    {"_id": checkpoint_id(old), "position": {"$lte": built["position"]}},
                    {"$set": {"retired": True}},
                    session=session,
                )
            )
        _require_moved(
            database.pointers.update_one(
                {"_id": pointer_id(generation.model, generation.ledger_id), **msgspec.structs.asdict(pointer)},
                {"$set": msgspec.structs.asdict(pointer.switched_to(generation))},
                session=session,
            )
        )

    async def reopen(self, generation: Generation) -> None:
        reopening = self._mongo.checkpoints.update_one({"_id": checkpoint_id(generation)}, {"$unset": {"retired": ""}})
        await self._transactions.wait_for(reopening)

    # ── notes, pauses, copies ────────────────────────────────────────────────────────────────────────────────────────

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        found = await self._mongo.pointers.find_one({"_id": pointer_id(model, ledger_id)}) or {}
        return {name: value for name, value in found.items() if name not in _NO_NOTES}

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        noting = self._mongo.pointers.update_one({"_id": pointer_id(model, ledger_id)}, {"$set": {name: value}})
        await self._transactions.wait_for(noting)

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)
        await self._set_paused(model, ledger_id, {"$set": {"paused": True}})

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._set_paused(model, ledger_id, {"$unset": {"paused": ""}})
        forgetting = self._mongo.pointers.update_one({"_id": pointer_id(model, ledger_id)}, {"$unset": {"paused": ""}})
        await self._transactions.wait_for(forgetting)

    async def _set_paused(self, model: ReadModel, ledger_id: str, update: StoredDocument) -> None:
        """Sets or clears the pause in every checkpoint. A running batch has either moved its checkpoint before, or fails."""
        ids = [checkpoint_id(Generation(model, ledger_id, number)) for number in await self.numbers(model, ledger_id)]
        await self._transactions.wait_for(self._mongo.checkpoints.update_many({"_id": {"$in": ids}}, update))

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = pointer_id(model, ledger_id) + COPY_MARK
        found = self._mongo.pointers.find({"_id": {"$regex": "^" + re.escape(prefix)}}, {"_id": 1})
        return sorted([document["_id"].removeprefix(prefix) async for document in found])

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        await self._transactions.wait_for(self._mongo.pointers.delete_one({"_id": pointer_id(model, ledger_id)}))


def _checkpoint(document: StoredDocument) -> Checkpoint:
    return Checkpoint(document["position"], document["log_hash"], document["model_version"], summary_in_document(document))


def _require_moved(result: UpdateResult) -> None:
    """Checks that a checkpoint or a pointer was where the writer expected it.

    Raises:
        MongoRaceLostError: it was not, or the generation is retired or paused.
    """
    if not result.matched_count:
        raise MongoRaceLostError


def _start(generation: Generation, step: Step) -> StoredDocument:
    """Returns the filter that matches the checkpoint if it is where the step begins and is neither retired nor paused."""
    return {"_id": checkpoint_id(generation), "position": step.before, **_MAY_MOVE}


def _move(step: Step) -> StoredDocument:
    """Returns the update that moves a checkpoint to the end of the step."""
    update: StoredDocument = {"$set": {"position": step.after, "log_hash": step.log_hash}}
    if added := step.dead_letters:
        update["$inc"] = {"letters": len(added.letters), "parked": len(added.parked), "put_aside": added.put_aside}
        update["$push"] = {"skipped": {"$each": added.skipped}}
    return update
