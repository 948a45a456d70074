"""Writes read models: one sink for each store.

The rule that everything rests on: a batch and the step of its checkpoint are one atomic act, and it happens only where the
checkpoint is exactly at the batch's beginning. Whatever comes twice, late, shuffled or from a worker that was thought dead
then changes nothing. MongoDB does it in a transaction, Redis in a script. Never write a read model in any other way, and
never do arithmetic on money in a script: its numbers are doubles.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

import msgspec
import pymongo
import structlog
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo import IndexModel, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from projector.changes import Document, DocumentChange, DocumentChanges, KeyChanges, pieces
from projector.dead_letters import PutAside
from shared.connections import MongoDatabase, blocking, mongo_application
from shared.dead_letters import (
    COUNTS,
    NOTHING_ASIDE,
    SKIPPED,
    Aside,
    Letter,
    aside_in_document,
    aside_in_hash,
    ids_of,
    letters_in_mongo,
    letters_in_redis,
    parked_in_mongo,
    parked_in_redis,
)
from shared.errors import ReadModelDamaged
from shared.events import canonical
from shared.read_models import COPY_MARK, READ_MODELS, Generation, ReadModel, Store, checkpoint_id, pointer_id, pointer_key
from shared.rounds import Rounds

log = structlog.get_logger()

T = TypeVar("T")
C_contra = TypeVar("C_contra", DocumentChanges, KeyChanges, contravariant=True)


class Pointer(msgspec.Struct, frozen=True):
    """Which generation readers see, which one is being built, and which one was live before, kept for a rollback."""

    live: int | None = None
    building: int | None = None
    previous: int | None = None

    @property
    def numbers(self) -> set[int | None]:
        return {self.live, self.building, self.previous}


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a generation stands: `log_hash` is that of the event at `position`, hexadecimal, or empty at 0."""

    position: int
    log_hash: str
    model_version: int
    aside: Aside = NOTHING_ASIDE


class Step(msgspec.Struct, frozen=True):
    """A batch takes the checkpoint from `before` to `after`; `log_hash` is that of the event there."""

    before: int
    after: int
    log_hash: str
    aside: PutAside = msgspec.field(default_factory=PutAside)


class Sink(Protocol[C_contra]):
    """A store that holds read models."""

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer: ...

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        """False where the pointer is no longer as it was `before`."""

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        """None where the generation does not exist, or no longer in the place where it was made."""

    async def prepare(self, generation: Generation) -> None:
        """Makes an empty generation at position 0; leaves one that exists as it is."""

    async def apply(self, generation: Generation, step: Step, changes: C_contra) -> bool:
        """The batch and its checkpoint, at once. False, and nothing done, where the checkpoint is not at the step's start.

        Raises:
            ReadModelDamaged: the store refuses the batch, or the data are not what the checkpoint says they are.
        """

    async def check(self, generation: Generation, step: Step, changes: C_contra) -> None:
        """Raises what `apply` would raise, where that could not undo what it did before. Slow."""

    async def read_letters(self, generation: Generation) -> list[Letter]: ...

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        """See `shared.dead_letters`."""

    async def index(self, generation: Generation) -> None:
        """Makes the indexes that are missing."""

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        """Makes the generation that was built the live one, and keeps the one that was live.

        False where it is behind the live one, or someone was first.
        """

    async def reopen(self, generation: Generation) -> None:
        """A generation that was live before may go on with the log again."""

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        """What stands beside the pointer: see `shared.read_models`."""

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        """From here on no batch of any generation is taken, until `resume`."""

    async def resume(self, model: ReadModel, ledger_id: str) -> None: ...

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        """Leaves the pointer as it is; nothing is noted for a read model that has none."""

    async def labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        """Of the copies as of a past moment that lie beside it."""

    async def forget(self, model: ReadModel, ledger_id: str) -> None:
        """Deletes the pointer of a copy, whose generations are gone."""

    async def count(self, generation: Generation) -> int:
        """How many documents or keys it has."""

    async def sample(self, generation: Generation, size: int) -> list[str]:
        """Names of any of its documents or keys."""

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        """Name → document or value of a key, for those that are there."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """The generations of which anything at all is there."""

    async def drop(self, generation: Generation) -> None:
        """Deletes all of a generation that no pointer names."""

    def content(self, generation: Generation) -> AsyncIterator[bytes]:
        """Each document or key that the generation holds, in one canonical form, without its number, in any order."""


async def digest(sink: Sink[Any], generation: Generation) -> str:
    """Equal where the content is, in whichever generation and order of writes: the sum of the SHA-256 of all documents or keys.

    A sum can be taken in the order in which the store reads fastest. It tells accidents from equality; forgers, the log tells.
    """
    total = 0
    async for part in sink.content(generation):
        total += int.from_bytes(hashlib.sha256(part).digest(), "big")
    return f"{total % 2**256:064x}"


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMESPACE_EXISTS: Final = 48
_MAY_MOVE: Final = {"retired": {"$ne": True}, "paused": {"$ne": True}}
_BESIDE_POINTER: Final = {"_id", "live", "building", "previous"}

_OF_THE_DATA: Final = {
    *(2, 9, 14, 28, 40),  # values, types and paths that no update may have
    *(52, 55, 56, 57, 66),  # names of fields
    *(121, 10334, 17280, 17419, 17420),  # not valid, or too large
}
"""Codes that say something of what is to be written, and nothing of the server: it would say so for ever."""

ABANDONED_SECONDS: Final = 1.0
"""A transaction of ours that stands idle for so long has lost its worker. MongoDB itself would wait for a minute."""


DIGEST_DOCUMENTS: Final = 2_000
"""Held in memory at once."""

TOGETHER_CHANGES_MAX: Final = 200
"""A batch with more documents has a transaction of its own: the fixed costs of one no longer matter, and nobody waits for it."""

SCAN_SECONDS_MAX: Final = 24 * 3_600.0
"""Sorting or counting millions of documents takes as long as it takes. (None would be the client's own timeout.)"""


Batch = tuple[Generation, Step, DocumentChanges]


class _OvertakenError(Exception):
    """Ends a transaction that came too late."""


class MongoSink:
    """Each generation is a collection; pointers and checkpoints have one each."""

    def __init__(self, mongo: MongoDatabase) -> None:
        self._mongo = mongo
        self._refused: dict[str, tuple[int, float]] = {}
        self._together = Rounds(self._apply_together, len(READ_MODELS))

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        found = await self._mongo.read_models.find_one({"_id": pointer_id(model, ledger_id)})
        return Pointer(found["live"], found["building"], found.get("previous")) if found else Pointer()

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        wanted = {"_id": pointer_id(model, ledger_id), **msgspec.structs.asdict(before)}
        moving = self._mongo.read_models.update_one(wanted, {"$set": msgspec.structs.asdict(after)}, upsert=before == Pointer())
        try:
            moved = await self._patiently(moving)
        except DuplicateKeyError:  # the upsert found another pointer there
            return False
        return bool(moved.matched_count or moved.upserted_id)

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        found = await self._mongo.checkpoints.find_one({"_id": checkpoint_id(generation)})
        if found is None or found["collection_uuid"] != await self._collection_uuid(generation):
            return None
        return Checkpoint(found["position"], found["log_hash"], found["model_version"], aside_in_document(found))

    async def read_position(self, generation: Generation, session: AsyncIOMotorClientSession) -> int | None:
        """The position alone, as of the session's moment."""
        found = await self._mongo.checkpoints.find_one({"_id": checkpoint_id(generation)}, session=session)
        return found["position"] if found else None

    async def _collection_uuid(self, generation: Generation) -> str | None:
        """Another than before where the collection was dropped, and perhaps made anew by the next write."""
        name = generation.collection(self._mongo).name
        async for found in await self._mongo.list_collections(filter={"name": name}):
            return bytes(found["info"]["uuid"]).hex()
        return None

    async def prepare(self, generation: Generation) -> None:
        try:
            await self._mongo.create_collection(generation.collection(self._mongo).name, check_exists=False)
        except OperationFailure as failure:
            if failure.code != NAMESPACE_EXISTS:  # another worker was first
                raise
        checkpoint = {
            "position": 0,
            "log_hash": "",
            "model_version": generation.model.version,
            "collection_uuid": await self._collection_uuid(generation),
        }
        await self._mongo.checkpoints.update_one({"_id": checkpoint_id(generation)}, {"$setOnInsert": checkpoint}, upsert=True)

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        """Small batches of several read models that are ready at the same time share a transaction.

        Where that cannot be, each has its own: what is wrong with one, or waits for locks, holds up no other.
        """
        batch = generation, step, changes
        if len(changes) <= TOGETHER_CHANGES_MAX and not step.aside and await self._together.ask(batch):
            return True
        return await self._apply_alone(batch)

    async def _apply_together(self, batches: Sequence[Batch]) -> Sequence[bool]:
        """All of them or none; whether it was done."""
        if len(batches) == 1:
            return [False]
        try:
            await asyncio.to_thread(self._write_together, batches)
        # Whosever fault it is: that shows when each has a transaction of its own.
        except Exception:  # noqa: BLE001
            return [False] * len(batches)
        return [True] * len(batches)

    def _write_together(self, batches: Sequence[Batch]) -> None:
        """Blocks: each command waits for the one before, and for nothing else.

        Raises:
            _OvertakenError: not everything was there that is to be changed.
        """
        database = blocking(self._mongo)
        with database.client.start_session() as session, session.start_transaction():
            for command, count in self._commands(batches):
                if database.command(command, session=session)["n"] != count:
                    raise _OvertakenError

    def _commands(self, batches: Sequence[Batch]) -> Iterator[tuple[Document, int]]:
        """What steps and writes, and how many documents each command has to do with."""
        updates = [{"q": _start(generation, step), "u": _moved(step)} for generation, step, _ in batches]
        yield {"update": self._mongo.checkpoints.name, "updates": updates}, len(updates)
        for generation, _, changes in batches:
            name = generation.collection(self._mongo).name
            if changes.inserted:
                yield {"insert": name, "documents": list(changes.inserted.values()), "ordered": False}, len(changes.inserted)
            if changes.changed:
                updates = [{"q": {"_id": document_id}, "u": _update(change)} for document_id, change in changes.changed.items()]
                yield {"update": name, "updates": updates, "ordered": False}, len(updates)

    async def _apply_alone(self, batch: Batch) -> bool:
        generation, step, changes = batch
        try:
            if changes or step.aside:
                async with self._transaction() as session:
                    await self._step([(generation, step)], session)
                    await self._put_aside(generation, step.aside, session)
                    await self._write(generation, changes, session)
            else:
                await self._patiently(self._step([(generation, step)], None))
        except _OvertakenError:
            await self._after_refusal(checkpoint_id(generation), step.before)
            return False
        return True

    async def _after_refusal(self, checkpoint: str, position: int) -> None:
        """Refused again and again, and yet nobody moves the checkpoint: somebody holds it who does not go on."""
        now = time.monotonic()
        before, since = self._refused.get(checkpoint, (-1, now))
        if before != position:
            self._refused[checkpoint] = position, now
        elif now - since > ABANDONED_SECONDS:
            del self._refused[checkpoint]
            await self._end_abandoned_transactions()

    async def _end_abandoned_transactions(self) -> None:
        """MongoDB keeps the transaction of a client that is gone, with its locks, until it is a minute old.

        Should it be of a worker that is only slow, that worker finds itself overtaken and looks again.
        """
        ours = {"type": "idleSession", "appName": mongo_application(self._mongo.name, "daybook_projector")}
        old = {"transaction.timeInactiveMicros": {"$gt": ABANDONED_SECONDS * 1_000_000}}
        admin = self._mongo.client.get_database("admin", read_concern=ReadConcern("local"))
        pipeline: list[Document] = [{"$currentOp": {"allUsers": False, "idleSessions": True}}, {"$match": {**ours, **old}}]
        async for idle in admin.aggregate(pipeline):
            log.warning("transaction without a worker ended", client=idle.get("client"))
            await admin.command("killSessions", [{"id": idle["lsid"]["id"]}])

    async def _patiently(self, operation: Awaitable[T]) -> T:
        """For what waits for locks, also those of transactions without a worker."""
        running = asyncio.ensure_future(operation)
        try:
            while not (await asyncio.wait([running], timeout=ABANDONED_SECONDS))[0]:
                await self._end_abandoned_transactions()
            return running.result()
        finally:
            running.cancel()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncIOMotorClientSession]:
        """Raises:
        _OvertakenError: another transaction wrote the same documents first.
        """
        try:
            async with await self._mongo.client.start_session() as session, session.start_transaction():
                yield session
        except OperationFailure as failure:
            if failure.has_error_label("TransientTransactionError"):
                raise _OvertakenError from failure
            raise

    async def _step(self, steps: Sequence[tuple[Generation, Step]], session: AsyncIOMotorClientSession | None) -> None:
        """Raises:
        _OvertakenError: one of the checkpoints is not where its step begins, or may not move.
        """
        writes = [UpdateOne(_start(generation, step), _moved(step)) for generation, step in steps]
        stepped = await self._mongo.checkpoints.bulk_write(writes, session=session)
        if stepped.matched_count != len(steps):
            raise _OvertakenError

    async def _put_aside(self, generation: Generation, aside: PutAside, session: AsyncIOMotorClientSession) -> None:
        prefix = checkpoint_id(generation)
        letters = [{"_id": f"{prefix}/{each.position:016d}", **msgspec.structs.asdict(each)} for each in aside.letters]
        parked = [{"_id": f"{prefix}/{stream_id}", "position": position} for stream_id, position in aside.parked.items()]
        for collection, documents in ((self._mongo.dead_letters, letters), (self._mongo.parked_streams, parked)):
            if documents:
                await collection.insert_many(documents, session=session)

    async def check(self, generation: Generation, step: Step, changes: DocumentChanges) -> None:
        """A transaction undoes everything."""

    async def read_letters(self, generation: Generation) -> list[Letter]:
        return await letters_in_mongo(self._mongo, generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await parked_in_mongo(self._mongo, generation)

    async def _write(self, generation: Generation, changes: DocumentChanges, session: AsyncIOMotorClientSession) -> None:
        collection = generation.collection(self._mongo)
        matched = 0
        try:
            if changes.inserted:
                await collection.insert_many(changes.inserted.values(), ordered=False, session=session)
            if changes.changed:
                written = await collection.bulk_write(list(_updates(changes)), ordered=False, session=session)
                matched = written.matched_count
        except BulkWriteError as error:
            # Only numbers: the details hold whole documents, and with them names of people.
            codes = sorted({each["code"] for each in (error.details or {}).get("writeErrors", ())})
            raise _damaged(generation, f"MongoDB refused to write, with the codes {codes}") from None
        except OperationFailure as error:
            if error.code in _OF_THE_DATA:
                raise _damaged(generation, f"MongoDB refused to write, with the code {error.code}") from None
            raise
        if matched != len(changes.changed):
            raise _damaged(generation, f"{len(changes.changed) - matched} documents are missing")

    async def index(self, generation: Generation) -> None:
        indexes = [IndexModel(list(keys)) for keys in generation.model.indexes]
        if indexes:
            with pymongo.timeout(SCAN_SECONDS_MAX):
                await self._patiently(generation.collection(self._mongo).create_indexes(indexes))

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        with suppress(_OvertakenError):
            async with self._transaction() as session:
                await self._switch(generation, pointer, session)
            return True
        return False

    async def _switch(self, generation: Generation, pointer: Pointer, session: AsyncIOMotorClientSession) -> None:
        """Retiring the old generation here fences whoever still writes to it, so that positions never go back."""
        built = await self._mongo.checkpoints.find_one({"_id": checkpoint_id(generation)}, session=session)
        if built is None or pointer.building != generation.number:
            raise _OvertakenError
        if pointer.live is not None:
            old = Generation(generation.model, generation.ledger_id, pointer.live)
            retired = await self._mongo.checkpoints.update_one(
                {"_id": checkpoint_id(old), "position": {"$lte": built["position"]}},
                {"$set": {"retired": True}},
                session=session,
            )
            if not retired.matched_count:
                raise _OvertakenError
        moved = await self._mongo.read_models.update_one(
            {"_id": pointer_id(generation.model, generation.ledger_id), **msgspec.structs.asdict(pointer)},
            {"$set": {"live": generation.number, "building": None, "previous": _kept(generation, pointer)}},
            session=session,
        )
        if not moved.matched_count:
            raise _OvertakenError

    async def reopen(self, generation: Generation) -> None:
        reopening = self._mongo.checkpoints.update_one({"_id": checkpoint_id(generation)}, {"$unset": {"retired": ""}})
        await self._patiently(reopening)

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        found = await self._mongo.read_models.find_one({"_id": pointer_id(model, ledger_id)}) or {}
        return {name: value for name, value in found.items() if name not in _BESIDE_POINTER}

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)
        await self._set_paused(model, ledger_id, {"$set": {"paused": True}})

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._set_paused(model, ledger_id, {"$unset": {"paused": ""}})
        forgetting = self._mongo.read_models.update_one({"_id": pointer_id(model, ledger_id)}, {"$unset": {"paused": ""}})
        await self._patiently(forgetting)

    async def _set_paused(self, model: ReadModel, ledger_id: str, update: Document) -> None:
        """On each checkpoint: a batch that is under way has either stepped before, or finds that it may not."""
        ids = [checkpoint_id(Generation(model, ledger_id, number)) for number in await self.numbers(model, ledger_id)]
        await self._patiently(self._mongo.checkpoints.update_many({"_id": {"$in": ids}}, update))

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        await self._patiently(self._mongo.read_models.update_one({"_id": pointer_id(model, ledger_id)}, {"$set": {name: value}}))

    async def labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = pointer_id(model, ledger_id) + COPY_MARK
        found = self._mongo.read_models.find({"_id": {"$regex": "^" + re.escape(prefix)}}, {"_id": 1})
        return sorted([document["_id"].removeprefix(prefix) async for document in found])

    async def forget(self, model: ReadModel, ledger_id: str) -> None:
        await self._patiently(self._mongo.read_models.delete_one({"_id": pointer_id(model, ledger_id)}))

    async def count(self, generation: Generation) -> int:
        with pymongo.timeout(SCAN_SECONDS_MAX):
            return await generation.collection(self._mongo).count_documents({})

    async def sample(self, generation: Generation, size: int) -> list[str]:
        pipeline: list[Document] = [{"$sample": {"size": size}}, {"$project": {"_id": 1}}]
        return sorted({found["_id"] async for found in generation.collection(self._mongo).aggregate(pipeline)})

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        return {found["_id"]: found async for found in generation.collection(self._mongo).find({"_id": {"$in": names}})}

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        collections = re.compile(re.escape(f"{ledger_id}.{model.name}.") + r"(\d+)")
        checkpoints = re.compile(re.escape(f"{pointer_id(model, ledger_id)}/") + r"(\d+)")
        names = await self._mongo.list_collection_names()
        ids = await self._mongo.checkpoints.distinct("_id")
        matches = [*map(collections.fullmatch, names), *map(checkpoints.fullmatch, ids)]
        return {int(match[1]) for match in matches if match}

    async def drop(self, generation: Generation) -> None:
        await self._patiently(self._mongo.checkpoints.delete_one({"_id": checkpoint_id(generation)}))
        await self._patiently(self._mongo.dead_letters.delete_many(ids_of(generation)))
        await self._patiently(self._mongo.parked_streams.delete_many(ids_of(generation)))
        await self._patiently(generation.collection(self._mongo).drop())

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        stored = generation.collection(self._mongo).with_options(codec_options=DEFAULT_RAW_BSON_OPTIONS)
        cursor: Any = stored.find(batch_size=DIGEST_DOCUMENTS)
        while documents := await cursor.to_list(DIGEST_DOCUMENTS):
            for document in documents:
                yield document.raw


def _updates(changes: DocumentChanges) -> Iterator[UpdateOne]:
    return (UpdateOne({"_id": document_id}, _update(change)) for document_id, change in changes.changed.items())


def _update(change: DocumentChange) -> Document:
    return {"$set": change.fields, "$inc": change.counts} if change.counts else {"$set": change.fields}


def _start(generation: Generation, step: Step) -> Document:
    """The checkpoint, if it is where the step begins and may move."""
    return {"_id": checkpoint_id(generation), "position": step.before, **_MAY_MOVE}


def _moved(step: Step) -> Document:
    update: Document = {"$set": {"position": step.after, "log_hash": step.log_hash}}
    if aside := step.aside:
        update["$inc"] = {"letters": len(aside.letters), "parked": len(aside.parked), "put_aside": aside.put_aside}
        update["$push"] = {"skipped": {"$each": aside.skipped}}
    return update


def _kept(generation: Generation, pointer: Pointer) -> int | None:
    return None if generation.model.personal else pointer.live


def _damaged(generation: Generation, what: str) -> ReadModelDamaged:
    name = generation.model.name
    return ReadModelDamaged(f"the data of {name} are not what its checkpoint says ({what}): run `daybook replay {name}`")


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# KEYS: pointer, checkpoint, origin. ARGV: generation, before, after, log hash, prefix of the keys; in MessagePack, where every
# word is a string: the commands, and the sums that they go on from, as key, field and value, '' for none. A script that fails is
# not undone. Redis refuses for want of memory or disk only before the first write; whatever fails later finds data that are not
# ours, and then the generation must not go on: without its checkpoint it counts as lost.
_APPLY: Final = """
local number = ARGV[1]
if redis.call('HGET', KEYS[1], 'live') ~= number and redis.call('HGET', KEYS[1], 'building') ~= number then return 0 end
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
for _, sum in ipairs(cmsgpack.unpack(ARGV[7])) do
    if (redis.call('HGET', ARGV[5] .. sum[1], sum[2]) or '') ~= sum[3] then return 2 end
end
for place, command in ipairs(cmsgpack.unpack(ARGV[6])) do
    command[2] = ARGV[5] .. command[2]
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then
        if place > 1 then redis.call('DEL', KEYS[2]) end
        return answer
    end
end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[3], 'log_hash', ARGV[4])
return 1
"""

# KEYS: checkpoint. ARGV: prefix of the keys, commands as above, before. Says which command would fail, if it is their turn.
_CHECK: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[3] then return '' end
local kinds = {HSET = 'hash', HINCRBY = 'hash', ZADD = 'zset', ZREM = 'zset', ZINCRBY = 'zset', LPUSH = 'list', LTRIM = 'list'}
local known, set = {}, {}
for _, command in ipairs(cmsgpack.unpack(ARGV[2])) do
    local name, key = command[1], ARGV[1] .. command[2]
    local kind = known[key] or redis.call('TYPE', key).ok
    if kind ~= 'none' and kind ~= kinds[name] then return name .. ' ' .. command[2] .. ', which is a ' .. kind end
    known[key] = kinds[name]
    if name == 'HSET' then
        for place = 3, #command, 2 do set[key .. ' ' .. command[place]] = command[place + 1] end
    elseif name == 'HINCRBY' then
        local value = set[key .. ' ' .. command[3]]
        if not value then value = kind == 'hash' and redis.call('HGET', key, command[3]) or '0' end
        if not string.match(value, '^-?%d+$') or #value > 18 or #command[4] > 18 then
            return 'HINCRBY ' .. command[2] .. ' ' .. command[3] .. ', which is no small integer'
        end
    elseif name == 'ZADD' then
        for place = 3, #command, 2 do
            local score = tonumber(command[place])
            if not score or score ~= score then return 'ZADD ' .. command[2] .. ', a score that is no number' end
        end
    end
end
return ''
"""

# KEYS: pointer. ARGV: live, building and previous as they must be, then as they shall be; '' is none.
_MOVE_POINTER: Final = """
local names = {'live', 'building', 'previous'}
for place, name in ipairs(names) do
    if (redis.call('HGET', KEYS[1], name) or '') ~= ARGV[place] then return 0 end
end
for place, name in ipairs(names) do
    if ARGV[place + 3] == '' then redis.call('HDEL', KEYS[1], name)
    else redis.call('HSET', KEYS[1], name, ARGV[place + 3]) end
end
return 1
"""

# KEYS: pointer. ARGV: name, value. A note must not make a pointer.
_NOTE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
"""

# KEYS: checkpoint, origin. ARGV: version of the read model.
_PREPARE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], '0')
redis.call('HSET', KEYS[2], 'log_hash', '', 'model_version', ARGV[1])
return 1
"""

# KEYS: pointer, the built generation's checkpoint, the live one's. ARGV: live and building as the caller knows them, and what is
# kept for a rollback.
_SWITCH: Final = """
if (redis.call('HGET', KEYS[1], 'live') or '') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[2] then return 0 end
local built, live = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
if not built then return 0 end
if live and tonumber(live) > tonumber(built) then return 0 end
redis.call('HSET', KEYS[1], 'live', ARGV[2])
redis.call('HDEL', KEYS[1], 'building', 'previous')
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'previous', ARGV[3]) end
return 1
"""

_DONE: Final = 1
_OTHER_SUMS: Final = 2
"""What `_APPLY` answers, besides 0 for a batch that is not to be written."""

_WORDS_MAX: Final = 500
"""Pairs in one command: a script can unpack a few thousand words onto its stack, no more."""

_NOT_DATA: Final = frozenset({"checkpoint", "origin", "letters", "parked"})

Command = tuple[str, ...]
Sums = dict[str, dict[str, str]]
"""Key → field → a sum of money, '' where there is none yet."""

_pack: Final = msgspec.msgpack.encode


class RedisSink:
    """Each generation is a set of keys with a prefix of their own."""

    def __init__(self, redis: "Redis") -> None:
        self._redis: Any = redis  # redis-py types its commands for both its clients at once
        self._apply = redis.register_script(_APPLY)
        self._together = Rounds(self._apply_together, len(READ_MODELS))
        self._sums: dict[str, Sums] = {}
        self._check = redis.register_script(_CHECK)
        self._move_pointer = redis.register_script(_MOVE_POINTER)
        self._prepare = redis.register_script(_PREPARE)
        self._switch = redis.register_script(_SWITCH)
        self._note = redis.register_script(_NOTE)

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        found = await self._redis.hgetall(pointer_key(model, ledger_id))
        return Pointer(*(int(found[name]) if name in found else None for name in Pointer.__struct_fields__))

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        arguments = [number or "" for number in msgspec.structs.astuple(before) + msgspec.structs.astuple(after)]
        return bool(await self._move_pointer(keys=[pointer_key(model, ledger_id)], args=arguments))

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(generation.key("checkpoint"))
            pipe.hgetall(generation.key("origin"))
            position, origin = await pipe.execute()
        if position is None or not origin:
            return None
        return Checkpoint(int(position), origin["log_hash"], int(origin["model_version"]), aside_in_hash(origin))

    async def prepare(self, generation: Generation) -> None:
        keys = [generation.key("checkpoint"), generation.key("origin")]
        await self._prepare(keys=keys, args=[generation.model.version])

    async def apply(self, generation: Generation, step: Step, changes: KeyChanges) -> bool:
        """Small batches of several read models that are ready at the same time share a round trip."""
        with _refusals(generation):
            # As the last batch left them, if that was ours; it is the script that makes sure.
            sums = _picked(self._sums.pop(generation.key(""), {}), changes)
            answer = _OTHER_SUMS if sums is None else await self._apply_to(sums, generation, step, changes)
            if answer == _OTHER_SUMS:
                sums = await self._read_sums(generation, changes)
                answer = await self._apply_to(sums, generation, step, changes)
        if answer != _DONE:
            return False
        self._sums[generation.key("")] = _raised(sums or {}, changes)
        return True

    async def _apply_to(self, sums: Sums, generation: Generation, step: Step, changes: KeyChanges) -> int:
        """Sums of money are added up here, in integers without a limit."""
        pointer = pointer_key(generation.model, generation.ledger_id)
        keys = [pointer, generation.key("checkpoint"), generation.key("origin")]
        commands = _pack([*_commands(changes, _raised(sums, changes)), *_commands_aside(step.aside)])
        words = _pack([(key, name, value) for key, values in sums.items() for name, value in values.items()])
        arguments: list[Any] = [generation.number, step.before, step.after, step.log_hash, generation.key(""), commands, words]
        if len(changes) > TOGETHER_CHANGES_MAX:
            return int(await self._apply(keys=keys, args=arguments))
        return int(await self._together.ask([len(keys), *keys, *arguments]))

    async def _apply_together(self, calls: Sequence[list[Any]]) -> Sequence[Any]:
        """Each by itself, and one that fails is answered with its error: all that they share is the round trip."""
        answers = await self._call(calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await self._redis.script_load(_APPLY)
            return await self._call(calls)
        return answers

    async def _call(self, calls: Sequence[list[Any]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(self._apply.sha, *call)
            return list(await pipe.execute(raise_on_error=False))

    async def check(self, generation: Generation, step: Step, changes: KeyChanges) -> None:
        arguments: list[Any] = [generation.key(""), _pack(list(_commands(changes, {}))), step.before]
        if flaw := await self._check(keys=[generation.key("checkpoint")], args=arguments):
            raise _damaged(generation, f"Redis would refuse {flaw}")

    async def read_letters(self, generation: Generation) -> list[Letter]:
        return await letters_in_redis(self._redis, generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await parked_in_redis(self._redis, generation)

    async def _read_sums(self, generation: Generation, changes: KeyChanges) -> Sums:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, sums in changes.sums.items():
                pipe.hmget(generation.key(key), list(sums))
            stored = await pipe.execute()
        return {
            key: {name: value or "" for name, value in zip(sums, values, strict=True)}
            for (key, sums), values in zip(changes.sums.items(), stored, strict=True)
        }

    async def index(self, generation: Generation) -> None:
        """Redis has none."""

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        if pointer.building != generation.number:
            return False
        live = Generation(generation.model, generation.ledger_id, pointer.live or 0)
        keys = [pointer_key(generation.model, generation.ledger_id), generation.key("checkpoint"), live.key("checkpoint")]
        return bool(await self._switch(keys=keys, args=[pointer.live or "", generation.number, _kept(generation, pointer) or ""]))

    async def reopen(self, generation: Generation) -> None:
        """Redis asks the pointer which generations may move."""

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        found = await self._redis.hgetall(pointer_key(model, ledger_id))
        return {name: value for name, value in found.items() if name not in Pointer.__struct_fields__}

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._redis.hdel(pointer_key(model, ledger_id), "paused")

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        await self._note(keys=[pointer_key(model, ledger_id)], args=[name, value])

    async def labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = pointer_key(model, ledger_id) + COPY_MARK
        return sorted({key.removeprefix(prefix).partition(":")[0] async for key in self._scan(prefix)})

    async def forget(self, model: ReadModel, ledger_id: str) -> None:
        await self._redis.delete(pointer_key(model, ledger_id))

    async def count(self, generation: Generation) -> int:
        return len(await self.key_names(generation))

    async def sample(self, generation: Generation, size: int) -> list[str]:
        names = sorted(await self.key_names(generation))
        return sorted(random.sample(names, min(size, len(names))))

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.type(generation.key(name))
            kinds = dict(zip(names, await pipe.execute(), strict=True))
        _, values = await self.read_keys(generation, kinds)
        return {name: value for name, value in values.items() if value is not None}

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        prefix = pointer_key(model, ledger_id) + ":"
        return {int(key.removeprefix(prefix).partition(":")[0]) async for key in self._scan(prefix)}

    async def drop(self, generation: Generation) -> None:
        self._sums.pop(generation.key(""), None)
        await self._redis.delete(generation.key("checkpoint"))
        for some in _lists({key async for key in self._scan(generation.key(""))}, _WORDS_MAX):
            await self._redis.unlink(*some)

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        for names in _lists(await self.key_names(generation), _WORDS_MAX):
            values = await self.pick(generation, names)
            for name in names:
                yield canonical([name, values.get(name)])

    async def key_names(self, generation: Generation) -> set[str]:
        """Of its data, without the prefix."""
        prefix = generation.key("")
        return {key.removeprefix(prefix) async for key in self._scan(prefix)} - _NOT_DATA

    async def read_keys(self, generation: Generation, kinds: Mapping[str, str | None]) -> tuple[int | None, dict[str, Any]]:
        """The position, and what stands under each key as of it; `kinds` says what should.

        That is a dict for a hash or a sorted set, a list for a list, None for nothing, and text about anything else.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(generation.key("checkpoint"))
            for name, kind in kinds.items():
                _read(pipe, generation.key(name), kind)
            position, *values = await pipe.execute(raise_on_error=False)
        found = {name: _plain(value, kind) for (name, kind), value in zip(kinds.items(), values, strict=True)}
        return (None if position is None else int(position)), found

    async def _scan(self, prefix: str) -> AsyncIterator[str]:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
        async for key in self._redis.scan_iter(match=pattern, count=1_000):
            yield key


def _picked(sums: Sums, changes: KeyChanges) -> Sums | None:
    """Those that a batch raises; None where not all are among them."""
    try:
        return {key: {name: sums[key][name] for name in more} for key, more in changes.sums.items()}
    except KeyError:
        return None


def _raised(sums: Sums, changes: KeyChanges) -> Sums:
    return {
        key: {name: str(int(sums[key][name] or 0) + more) for name, more in by_name.items()}
        for key, by_name in changes.sums.items()
    }


_REFUSALS: Final = ("WRONGTYPE", "not an integer", "not a valid float", "would overflow", "not a number")


@contextmanager
def _refusals(generation: Generation) -> Iterator[None]:
    """What Redis says of data, as opposed to what it says of itself: that it has no memory left, say."""
    try:
        yield
    except ResponseError as error:
        if what := next((what for what in _REFUSALS if what in str(error)), None):
            raise _damaged(generation, f"Redis refused to write: {what}") from None
        raise


def _read(pipe: Any, key: str, kind: str | None) -> None:
    match kind:
        case "hash":
            pipe.hgetall(key)
        case "zset":
            pipe.zrange(key, 0, -1, withscores=True)
        case "list":
            pipe.lrange(key, 0, -1)
        case _:
            pipe.type(key)


def _plain(value: Any, kind: str | None) -> Any:
    if isinstance(value, ResponseError):
        return f"a key of another type ({value})"
    if kind in {"hash", "zset", "list"}:
        return (dict(value) if kind == "zset" else value) or None
    return None if value == "none" else f"a key of type {value}"


def _commands(changes: KeyChanges, sums: Sums) -> Iterator[Command]:
    """What the script shall do; fields are set before they are counted up."""
    for key, fields in (*changes.fields.items(), *sums.items()):
        for some in pieces(fields, _WORDS_MAX):
            yield "HSET", key, *map(str, chain.from_iterable(some))
    for key, counts in changes.counts.items():
        yield from (("HINCRBY", key, name, str(count)) for name, count in counts.items())
    for key, scores in changes.scores.items():
        for some in pieces({m: score for m, score in scores.items() if score is not None}, _WORDS_MAX):
            yield "ZADD", key, *(word for member, score in some for word in (str(score), member))
        yield from (("ZREM", key, member) for member, score in scores.items() if score is None)
    for key, counts in changes.score_counts.items():
        yield from (("ZINCRBY", key, str(count), member) for member, count in counts.items())
    for key, values in changes.pushed.items():
        yield "LPUSH", key, *values
        yield "LTRIM", key, "0", str((values.maxlen or 0) - 1)


def _commands_aside(aside: PutAside) -> Iterator[Command]:
    for letter in aside.letters:
        yield "HSET", "letters", str(letter.position), msgspec.json.encode(letter).decode()
    for some in pieces(aside.parked, _WORDS_MAX):
        yield "HSET", "parked", *(str(word) for pair in some for word in pair)
    for name, count in zip(COUNTS, (len(aside.letters), len(aside.parked), aside.put_aside), strict=True):
        if count:
            yield "HINCRBY", "origin", name, str(count)
    for position in aside.skipped:
        yield "HSET", "origin", f"{SKIPPED}{position}", "1"


def _lists(items: Iterable[str], size: int) -> Iterator[list[str]]:
    listed = sorted(items)
    return (listed[start : start + size] for start in range(0, len(listed), size))


def make_sinks(mongo: MongoDatabase, redis: "Redis") -> dict[Store, Sink[Any]]:
    """The sink of each store."""
    return {"mongo": MongoSink(mongo), "redis": RedisSink(redis)}
