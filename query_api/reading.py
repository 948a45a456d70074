"""Reads the live generation of a read model, after waiting until it has reached the position that the caller needs.

One round trip reads the data, the checkpoint and the pointer to the live generation, all as of the same moment. So a query never
mixes two generations, even if one is replaced or dropped at that time. Small queries that arrive at the same time share a round
trip (`shared.stores.shared_round_trips`).

A query to MongoDB must name its generation in advance. So it names the one that was live last time, and is repeated if another
one is live now. In Redis, a script reads the pointer and finds the keys itself.

Nothing here writes a read model, except that a generation that has lost a key loses its checkpoint too. So the other queries see
the loss, and the worker builds the read model again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
import orjson
import structlog
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.log_clock import LogClock
from query_api.log_replica import LogReplica
from query_api.read_model_positions import ReadModelPositions
from shared.errors import NotFound, ProjectionBehind, Rebuilding
from shared.log.heads import read_head
from shared.read_models.channels import LOST_CHANNEL
from shared.read_models.generations import Generation, checkpoint_id, live_generation, pointer_id, pointer_key
from shared.read_models.shapes import ReadModel
from shared.read_models.stored_state import OptionalStore, read_live_position
from shared.settings import Settings
from shared.stores.mongo import MongoDatabase
from shared.stores.shared_round_trips import SharedRoundTrips

log = structlog.get_logger()

T = TypeVar("T")
U = TypeVar("U")
JsonObject = dict[str, Any]
RedisCommands = Sequence[Sequence[str]]

POLL_SECONDS: Final = 0.01
TOLD_POLL_SECONDS: Final = 0.05
"""How often to read a checkpoint, in seconds, while a message should arrive as soon as it changes."""
LOOKS_MAX: Final = 5
REACHING_SECONDS: Final = 2.0
"""How long to wait, at least, until a second read model has reached the position of the first."""
REDIS_QUESTIONS_MAX: Final = 100
"""How many queries one call of the Redis script may carry. The call blocks Redis, but for well below a millisecond."""
MONGO_QUESTIONS_MAX: Final = 30
"""How many queries may share a round trip to MongoDB. All their answers come in one document, which may have at most 16 MiB."""
SWITCH_SECONDS: Final = 0.0005
"""For `sys.setswitchinterval`: how long the event loop may keep a thread of motor waiting, in seconds.

With Python's default of 5 ms, the next round trip is sent only after this process has sent the answers of the last one. So
MongoDB and this process would work in turns instead of at the same time.
"""

# With this read concern, MongoDB reads a snapshot that a majority of its servers has committed. So nothing that a query reads can
# be rolled back, and the pointer, the checkpoint and the documents are as of the same moment.
_SNAPSHOT: Final = ReadConcern("snapshot")
_SNAPSHOT_TOO_OLD: Final = 239
_SNAPSHOT_UNAVAILABLE: Final = 246
_QUERY_PLAN_KILLED: Final = 175

# Runs the commands in ARGV[1], a JSON array of arrays, on the keys of the live generation. Redis runs nothing else during the
# script. If a command fails, or if its key was lost, its answer is the error, so that the other commands still get their answers.
_READ_LIVE: Final = """
local live = redis.call('HGET', KEYS[1], 'live')
if not live then return {} end
local prefix = KEYS[1] .. ':' .. live .. ':'
local answers = {redis.call('GET', prefix .. 'checkpoint')}
local names = prefix .. 'names'
for _, command in ipairs(cjson.decode(ARGV[1])) do
    local name = command[2]
    command[2] = prefix .. name
    if redis.call('EXISTS', command[2]) == 1 then answers[#answers + 1] = redis.pcall(unpack(command))
    elseif redis.call('TYPE', names).ok == 'set' and redis.call('SISMEMBER', names, name) == 0 then
        answers[#answers + 1] = redis.pcall(unpack(command))
    else answers[#answers + 1] = redis.error_reply('LOST ' .. name) end
end
return answers
"""

# Deletes the checkpoint of the live generation, so that the generation counts as lost.
_GIVE_UP: Final = """
local live = redis.call('HGET', KEYS[1], 'live')
return live and redis.call('DEL', KEYS[1] .. ':' .. live .. ':checkpoint') or 0
"""
_SIGNS_OF_LOSS: Final = ("LOST", "WRONGTYPE")


class Freshness(msgspec.Struct, frozen=True):
    """The minimum position of an answer, and how long to wait until the read model has reached it.

    If the time is not enough, `strict` queries fail, and other queries get an answer that is marked as stale.
    """

    min_position: int = 0
    wait_seconds: float = 0
    strict: bool = False


class AsOf(msgspec.Struct, Generic[T], frozen=True):
    """Data that include all events up to `position`. `stale` is True if the caller's minimum position is later."""

    position: int
    data: T
    stale: bool = False

    def holding(self, data: U) -> "AsOf[U]":
        """Returns other data with the position and the `stale` of these data."""
        return AsOf(self.position, data, self.stale)

    def limiting(self, other: "AsOf[U]") -> "AsOf[U]":
        """Returns `other` with the earlier of both positions. Call it if these data were needed to find `other`."""
        return AsOf(min(self.position, other.position), other.data, self.stale or other.stale)


class CallerView:
    """Reads the read models of one ledger for one caller, as fresh as the caller needs them.

    `customer` is the id of the user if the caller is a customer, and otherwise None. Queries must add `own` to their filter or
    check `sees`, so that customers see only what they own.
    """

    def __init__(self, reader: "Reader", ledger_id: str, freshness: Freshness, customer: str | None = None) -> None:
        self.reader = reader
        self.ledger_id = ledger_id
        self.freshness = freshness
        self.customer = customer

    def own(self, field: str) -> JsonObject:
        """Returns a filter for the documents that the caller may see. `field` is the field with the owner's user id."""
        return {} if self.customer is None else {field: self.customer}

    def sees(self, owner_id: str | None) -> bool:
        return self.customer is None or self.customer == owner_id

    def reaching(self, position: int) -> "CallerView":
        """Returns a view whose answers include all events up to a position. It waits for them, and fails if that takes long."""
        seconds = max(self.freshness.wait_seconds, REACHING_SECONDS)
        return CallerView(self.reader, self.ledger_id, Freshness(position, seconds, strict=True), self.customer)

    async def now(self) -> str:
        """Returns the time by PostgreSQL's clock, which decides what has expired, as RFC 3339 in UTC."""
        return await self.reader.clock.now()

    async def documents(self, model: ReadModel, pipeline: Sequence[JsonObject], *, alone: bool = False) -> AsOf[list[JsonObject]]:
        """Runs an aggregation pipeline on a read model in MongoDB and returns its documents.

        With `alone`, the query does not share a round trip. Use it for a query that may take long or return much.

        Raises:
            NotFound: there is no such ledger.
            Rebuilding: the ledger has no live generation of this read model.
            ProjectionBehind: the query is strict, and the read model did not reach the minimum position in time.
        """
        return await self.fresh(model, lambda: self.reader.look_in_mongo(model, self.ledger_id, pipeline, alone=alone))

    async def values(self, model: ReadModel, *commands: Sequence[str]) -> AsOf[list[Any]]:
        """Runs reading commands on a read model in Redis and returns their answers.

        The second word of each command is a key within the read model, without the prefix of the generation. Raises the same
        errors as `documents`.
        """
        return await self.fresh(model, lambda: self.reader.look_in_redis(model, self.ledger_id, commands))

    async def fresh(self, model: ReadModel, look: Callable[[], Awaitable[AsOf[T]]]) -> AsOf[T]:
        """Calls `look` until the data have reached the caller's minimum position or the waiting time has passed.

        The first read is left out if the last message says that the read model is still behind.
        """
        freshness, reader = self.freshness, self.reader
        loop = asyncio.get_running_loop()
        end = loop.time() + freshness.wait_seconds if freshness.wait_seconds else 0.0
        in_vain = end and reader.is_behind(model, self.ledger_id, freshness.min_position)
        found = None if in_vain else await _look_before(end, look)
        while found is None or (found.position < freshness.min_position and loop.time() < end):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await reader.reached(model, self.ledger_id, freshness.min_position)
            found = await _look_before(end, look)
            if found is None or found.position < freshness.min_position:
                reader.forget(model, self.ledger_id)
        return as_fresh_as_can_be(found, freshness)


async def _look_before(end: float, look: Callable[[], Awaitable[AsOf[T]]]) -> AsOf[T] | None:
    """Calls `look`. Returns None if there is no live generation yet and time is left to wait for one.

    A new ledger has no generation until the worker has applied its first events.
    """
    try:
        return await look()
    except Rebuilding:
        if asyncio.get_running_loop().time() >= end:
            raise
        return None


def as_fresh_as_can_be(found: AsOf[T], freshness: Freshness) -> AsOf[T]:
    """Returns the data, marked as stale if they have not reached the caller's minimum position.

    Raises:
        ProjectionBehind: the query is strict, and the data have not reached the minimum position.
    """
    if found.position >= freshness.min_position:
        return found
    if freshness.strict:
        raise ProjectionBehind(position=found.position, lag_events=freshness.min_position - found.position)
    return msgspec.structs.replace(found, stale=True)


class Reader:
    """Reads the live generations of the read models of all ledgers, without waiting for a position."""

    def __init__(
        self,
        postgres: AsyncEngine,
        mongo: MongoDatabase,
        redis: "Redis",
        settings: Settings,
        optional: Mapping[str, OptionalStore] | None = None,
        replica: LogReplica | None = None,
    ) -> None:
        """Reads from these stores. `optional` are the optional stores that are in use, by name."""
        self.optional = optional or {}
        self.replica = replica or LogReplica(None)
        self.postgres = postgres
        self.mongo = mongo
        self.redis = redis
        self.settings = settings
        self._mongo_seconds = settings.mongo_timeout_ms / 1000
        self._redis_seconds = settings.redis_timeout_ms / 1000
        self._pointers = mongo.get_collection("pointers", read_concern=_SNAPSHOT)
        self._read_live = redis.register_script(_READ_LIVE)
        self._give_up = redis.register_script(_GIVE_UP)
        self._mongo_rounds: dict[str, SharedRoundTrips[Sequence[JsonObject], AsOf[list[JsonObject]] | None]] = {}
        self._redis_rounds: dict[str, SharedRoundTrips[RedisCommands, AsOf[list[Any]] | None]] = {}
        self._live_numbers: dict[str, int] = {}
        self.positions = ReadModelPositions(redis)
        self.clock = LogClock(postgres)
        self.polls: dict[str, asyncio.Task[int]] = {}

    async def look_in_mongo(
        self, model: ReadModel, ledger_id: str, pipeline: Sequence[JsonObject], *, alone: bool = False
    ) -> AsOf[list[JsonObject]]:
        """Runs an aggregation pipeline on the live generation and returns its documents, with the checkpoint.

        With `alone`, the query does not share a round trip, so that no other query waits for it.

        Raises:
            NotFound: there is no such ledger.
            Rebuilding: the ledger has no live generation of this read model.
        """
        if alone:
            [found] = await self._look_together(model, ledger_id, [pipeline])
        else:
            pointer = pointer_id(model, ledger_id)
            rounds = self._mongo_rounds.get(pointer)
            if rounds is None:
                look = partial(self._look_together, model, ledger_id)
                rounds = self._mongo_rounds[pointer] = SharedRoundTrips(look, MONGO_QUESTIONS_MAX)
            found = await rounds.ask(pipeline)
        return found or await self._missing(model, ledger_id)

    async def _look_together(
        self, model: ReadModel, ledger_id: str, pipelines: Sequence[Sequence[JsonObject]]
    ) -> Sequence[AsOf[list[JsonObject]] | None]:
        """Runs the pipelines in one round trip, as of the same position. Returns None for each if no generation is live."""
        pointer = pointer_id(model, ledger_id)
        for _ in range(LOOKS_MAX):
            number = self._live_numbers.get(pointer, 1)
            found = await self._aggregate(pointer, Generation(model, ledger_id, number), pipelines)
            if found is None:
                await asyncio.sleep(POLL_SECONDS)
            elif not found or found[0]["live"] is None:
                break
            elif found[0]["live"] != number:
                self._live_numbers[pointer] = found[0]["live"]
            elif not found[0]["checkpoint"]:
                break
            else:
                position = found[0]["checkpoint"][0]["position"]
                return [AsOf(position, found[0][str(place)]) for place in range(len(pipelines))]
        return [None] * len(pipelines)

    async def _aggregate(
        self, pointer: str, generation: Generation, pipelines: Sequence[Sequence[JsonObject]]
    ) -> list[JsonObject] | None:
        """Runs the pipelines on one generation, and reads the pointer and the checkpoint with them.

        Returns None if MongoDB cannot answer at the moment: a collection is being made or dropped, or the snapshot is too old.
        """
        documents = generation.documents()
        stages = [
            {"$match": {"_id": pointer}},
            _lookup("checkpoints", [{"$match": {"_id": checkpoint_id(generation)}}], "checkpoint"),
            *(_lookup(documents.collection_name, documents.stages(each), str(place)) for place, each in enumerate(pipelines)),
        ]
        try:
            async with asyncio.timeout(self._mongo_seconds):
                found = await self._pointers.aggregate(stages).to_list(1)
        except OperationFailure as failure:
            if failure.code in {_SNAPSHOT_TOO_OLD, _SNAPSHOT_UNAVAILABLE, _QUERY_PLAN_KILLED}:
                return None
            raise
        for answer in found:
            for place in range(len(pipelines)):
                answer[str(place)] = [*map(documents.told, answer[str(place)])]
        return found

    async def look_in_redis(self, model: ReadModel, ledger_id: str, commands: RedisCommands) -> AsOf[list[Any]]:
        """Runs reading commands on the live generation. Raises the same errors as `look_in_mongo`."""
        pointer = pointer_key(model, ledger_id)
        rounds = self._redis_rounds.get(pointer)
        if rounds is None:
            rounds = self._redis_rounds[pointer] = SharedRoundTrips(partial(self._read_together, pointer), REDIS_QUESTIONS_MAX)
        try:
            return await rounds.ask(commands) or await self._missing(model, ledger_id)
        except ResponseError as error:
            if str(error).startswith(_SIGNS_OF_LOSS):
                await self.give_up(model, ledger_id)
            raise

    async def give_up(self, model: ReadModel, ledger_id: str) -> NoReturn:
        """Lets the worker build a read model again that has lost data in Redis.

        Raises:
            Rebuilding: always.
        """
        if await self._give_up(keys=[pointer_key(model, ledger_id)]):
            log.error("read model lost data", projection=model.name, ledger_id=ledger_id)
            await self.redis.publish(LOST_CHANNEL, ledger_id)
        raise rebuilding(model)

    async def _read_together(self, pointer: str, asked: Sequence[RedisCommands]) -> list[AsOf[list[Any]] | Exception | None]:
        """Runs the commands of several queries in one script, as of the same position.

        Returns None for each query if no generation is live, and the error for a query with a command that failed.
        """
        words = orjson.dumps([command for commands in asked for command in commands])
        async with asyncio.timeout(self._redis_seconds):
            position, *answers = await self._read_live(keys=[pointer], args=[words]) or (None,)
        if position is None:
            return [None] * len(asked)
        each: Iterator[Any] = iter(answers)
        return [_of_one(int(position), list(islice(each, len(commands)))) for commands in asked]

    async def _missing(self, model: ReadModel, ledger_id: str) -> NoReturn:
        """Raises the right error when no generation is live.

        Raises:
            NotFound: there is no such ledger.
            Rebuilding: the ledger exists.
        """
        await self.require_ledger(ledger_id)
        raise rebuilding(model)

    async def require_ledger(self, ledger_id: str) -> int:
        """Checks that the ledger exists. Returns the last position of its log.

        Raises:
            NotFound: there is no such ledger.
        """
        async with self.postgres.connect() as connection:
            try:
                return (await read_head(connection, ledger_id)).position
            except NotFound:
                msg = "There is no such ledger."
                raise NotFound(msg) from None

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def is_behind(self, model: ReadModel, ledger_id: str, position: int) -> bool:
        """True if the last message says that the read model has not reached this position."""
        told = self.positions.position(pointer_id(model, ledger_id))
        return told is not None and told < position

    async def reached(self, model: ReadModel, ledger_id: str, position: int) -> None:
        """Waits until a message or the checkpoint says that the read model has reached this position. Has no time limit."""
        while await self.checkpoint_soon(model, ledger_id, position) < position:
            pass

    def forget(self, model: ReadModel, ledger_id: str) -> None:
        """Forgets the last message about the read model. Call it if the message turned out to be wrong."""
        self.positions.forget(pointer_id(model, ledger_id))

    async def checkpoint_soon(self, model: ReadModel, ledger_id: str, wanted: int) -> int:
        """Returns the position in the last message if it is at least `wanted`. Otherwise polls, and returns the checkpoint.

        The result may still be less than `wanted`, and is -1 if no generation is live. All queries that wait for a read model
        share one poll, so that waiting queries do not slow down a worker that is behind.
        """
        key = pointer_id(model, ledger_id)
        told = self.positions.position(key)
        if told is not None and told >= wanted:
            return told
        poll = self.polls.get(key)
        # A poll that is done has an old result. A query that waits in a loop could get the same poll for ever: awaiting a task
        # that is done does not let other callbacks run, so `_forget` would never remove the poll.
        if poll is None or poll.done():
            poll = self.polls[key] = asyncio.create_task(self._poll(model, ledger_id))
            poll.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(poll)

    async def _poll(self, model: ReadModel, ledger_id: str) -> int:
        key = pointer_id(model, ledger_id)
        before = self.positions.position(key)
        await self.positions.next(key, TOLD_POLL_SECONDS if self.positions.is_heard else POLL_SECONDS)
        told = self.positions.position(key)
        if told is not None and told != before:
            return told
        if model.store in self.optional:
            position = await read_live_position(self.optional[model.store], model, ledger_id)
            return -1 if position is None else position
        try:
            return (await live_generation(self.mongo, self.redis, model, ledger_id)).position
        except Rebuilding:
            return -1

    def _forget(self, key: str, poll: asyncio.Task[int]) -> None:
        """Removes a finished poll. Reads its error, or asyncio would warn if every query that waited for it has ended."""
        if self.polls.get(key) is poll:
            del self.polls[key]
        if not poll.cancelled():
            poll.exception()


def rebuilding(model: ReadModel) -> Rebuilding:
    return Rebuilding(f"The read model {model.name!r} is being rebuilt.", projection=model.name)


def _of_one(position: int, answers: list[Any]) -> AsOf[list[Any]] | Exception:
    return next((answer for answer in answers if isinstance(answer, Exception)), None) or AsOf(position, answers)


def _lookup(collection_name: str, pipeline: Sequence[JsonObject], name: str) -> JsonObject:
    return {"$lookup": {"from": collection_name, "pipeline": list(pipeline), "as": name}}
