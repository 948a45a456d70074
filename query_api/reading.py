"""How a read model is read: data and checkpoint as of one moment, in one round trip, once it is as far as the caller needs.

Those who ask at the same time share the round trip (see `rounds`), where what each of them asks is little.

Which generation is live is asked in the same round trip as the data. MongoDB must be told a collection's name beforehand, so
we name the one that was live last time and look again if it no longer is; Redis finds the keys by itself, in a script. A
generation that is replaced or dropped between two questions is therefore never seen half. Nothing here writes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
import orjson
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.moves import Moves
from shared.connections import MongoDatabase
from shared.errors import NotFound, ProjectionBehind, Rebuilding
from shared.event_store import read_head
from shared.read_models import Generation, ReadModel, checkpoint_id, live_generation, pointer_id, pointer_key
from shared.rounds import Rounds
from shared.settings import Settings

T = TypeVar("T")
U = TypeVar("U")
Document = dict[str, Any]
Commands = Sequence[Sequence[str]]

POLL_SECONDS: Final = 0.01
TOLD_POLL_SECONDS: Final = 0.05
"""How often to look for what should have been told."""
LOOKS_MAX: Final = 5
REDIS_QUESTIONS_MAX: Final = 100
"""So many cost Redis well below a millisecond, in which it serves nobody else."""
MONGO_QUESTIONS_MAX: Final = 30
"""All answers of a round come as one document, which MongoDB bounds to 16 MiB."""
SWITCH_SECONDS: Final = 0.0005
"""For `sys.setswitchinterval`: how long the event loop may keep a thread of motor waiting.

By default it is 5 ms: the question of the next round is sent when this one is answered, and MongoDB and we work in turns.
"""

# The state at the last commit that a majority has: nothing that was read can be rolled back, and pointer,
# checkpoint and documents belong to the same moment.
_SNAPSHOT: Final = ReadConcern("snapshot")
_SNAPSHOT_TOO_OLD: Final = 239
_SNAPSHOT_UNAVAILABLE: Final = 246
_QUERY_PLAN_KILLED: Final = 175

# Runs the commands of ARGV[1], a JSON array of arrays, on the keys of the live generation. Redis runs a script as one step. A
# command that fails is answered with its error, so that it spoils no other's answer.
_READ_LIVE: Final = """
local live = redis.call('HGET', KEYS[1], 'live')
if not live then return {} end
local prefix = KEYS[1] .. ':' .. live .. ':'
local answers = {redis.call('GET', prefix .. 'checkpoint')}
for _, command in ipairs(cjson.decode(ARGV[1])) do
    command[2] = prefix .. command[2]
    answers[#answers + 1] = redis.pcall(unpack(command))
end
return answers
"""


class Freshness(msgspec.Struct, frozen=True):
    """What the caller needs to see. `strict`: rather no answer than one from before `min_position`."""

    min_position: int = 0
    wait_seconds: float = 0
    strict: bool = False


class AsOf(msgspec.Struct, Generic[T], frozen=True):
    """Data that hold everything up to `position`. `stale`: the caller needed a later one."""

    position: int
    data: T
    stale: bool = False

    def holding(self, data: U) -> "AsOf[U]":
        """Other data as of the same position."""
        return AsOf(self.position, data, self.stale)

    def limiting(self, other: "AsOf[U]") -> "AsOf[U]":
        """What was found with the help of this, and so holds no later than this does."""
        return AsOf(min(self.position, other.position), other.data, self.stale or other.stale)


class View:
    """The read models of one ledger, as fresh as one caller needs them, and with no more in them than the caller may see.

    `customer` is the user whose own that is; None where it is everything.
    """

    def __init__(self, reader: "Reader", ledger_id: str, freshness: Freshness, customer: str | None = None) -> None:
        self.reader = reader
        self.ledger_id = ledger_id
        self.freshness = freshness
        self.customer = customer

    def own(self, field: str) -> Document:
        """The filter that leaves a customer what is their own: `field` is that of the user's id."""
        return {} if self.customer is None else {field: self.customer}

    def sees(self, owner_id: str | None) -> bool:
        return self.customer is None or self.customer == owner_id

    async def documents(self, model: ReadModel, pipeline: Sequence[Document], *, alone: bool = False) -> AsOf[list[Document]]:
        """What an aggregation pipeline makes of a read model in MongoDB. `alone`: it may take long or find much.

        Raises:
            NotFound: there is no such ledger.
            Rebuilding: the read model is not there yet, or no longer.
            ProjectionBehind: the caller is strict, and waiting did not help.
        """
        return await self._fresh(model, lambda: self.reader.look_in_mongo(model, self.ledger_id, pipeline, alone=alone))

    async def values(self, model: ReadModel, *commands: Sequence[str]) -> AsOf[list[Any]]:
        """The answers of Redis to reading commands whose keys, their second words, are those of the read model.

        Raises what `documents` raises.
        """
        return await self._fresh(model, lambda: self.reader.look_in_redis(model, self.ledger_id, commands))

    async def _fresh(self, model: ReadModel, look: Callable[[], Awaitable[AsOf[T]]]) -> AsOf[T]:
        """Looks at once, unless it is known to be in vain, and again when the read model is where the caller needs it."""
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
    """None where there is no read model, and time to wait for one: the first events of a ledger make it."""
    try:
        return await look()
    except Rebuilding:
        if asyncio.get_running_loop().time() >= end:
            raise
        return None


def as_fresh_as_can_be(found: AsOf[T], freshness: Freshness) -> AsOf[T]:
    """Raises:
    ProjectionBehind: the caller is strict, and what was found is too old.
    """
    if found.position >= freshness.min_position:
        return found
    if freshness.strict:
        raise ProjectionBehind(position=found.position, lag_events=freshness.min_position - found.position)
    return msgspec.structs.replace(found, stale=True)


class Reader:
    """Looks at the read models of all ledgers, as they are now."""

    def __init__(self, postgres: AsyncEngine, mongo: MongoDatabase, redis: "Redis", settings: Settings) -> None:
        self.postgres = postgres
        self.mongo = mongo
        self.redis = redis
        self.settings = settings
        self._mongo_seconds = settings.mongo_timeout_ms / 1000
        self._redis_seconds = settings.redis_timeout_ms / 1000
        self._pointers = mongo.get_collection("read_models", read_concern=_SNAPSHOT)
        self._read_live = redis.register_script(_READ_LIVE)
        self._mongo_rounds: dict[str, Rounds[Sequence[Document], AsOf[list[Document]] | None]] = {}
        self._redis_rounds: dict[str, Rounds[Commands, AsOf[list[Any]] | None]] = {}
        self._live_numbers: dict[str, int] = {}
        self.moves = Moves(redis)
        self.polls: dict[str, asyncio.Task[int]] = {}

    async def look_in_mongo(
        self, model: ReadModel, ledger_id: str, pipeline: Sequence[Document], *, alone: bool = False
    ) -> AsOf[list[Document]]:
        """`alone`: it may take long, and nobody else shall wait for it."""
        if alone:
            [found] = await self._look_together(model, ledger_id, [pipeline])
        else:
            pointer = pointer_id(model, ledger_id)
            rounds = self._mongo_rounds.get(pointer)
            if rounds is None:
                look = partial(self._look_together, model, ledger_id)
                rounds = self._mongo_rounds[pointer] = Rounds(look, MONGO_QUESTIONS_MAX)
            found = await rounds.ask(pipeline)
        return found or await self._missing(model, ledger_id)

    async def _look_together(
        self, model: ReadModel, ledger_id: str, pipelines: Sequence[Sequence[Document]]
    ) -> Sequence[AsOf[list[Document]] | None]:
        """None for all where there is no read model. All are as of the same position."""
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
        self, pointer: str, generation: Generation, pipelines: Sequence[Sequence[Document]]
    ) -> list[Document] | None:
        """None where the server cannot say now: a collection is being made or dropped, or what was true then is forgotten."""
        collection_name = generation.collection(self.mongo).name
        stages = [
            {"$match": {"_id": pointer}},
            _lookup("checkpoints", [{"$match": {"_id": checkpoint_id(generation)}}], "checkpoint"),
            *(_lookup(collection_name, pipeline, str(place)) for place, pipeline in enumerate(pipelines)),
        ]
        try:
            async with asyncio.timeout(self._mongo_seconds):
                return await self._pointers.aggregate(stages).to_list(1)
        except OperationFailure as failure:
            if failure.code in {_SNAPSHOT_TOO_OLD, _SNAPSHOT_UNAVAILABLE, _QUERY_PLAN_KILLED}:
                return None
            raise

    async def look_in_redis(self, model: ReadModel, ledger_id: str, commands: Commands) -> AsOf[list[Any]]:
        pointer = pointer_key(model, ledger_id)
        rounds = self._redis_rounds.get(pointer)
        if rounds is None:
            rounds = self._redis_rounds[pointer] = Rounds(partial(self._read_together, pointer), REDIS_QUESTIONS_MAX)
        return await rounds.ask(commands) or await self._missing(model, ledger_id)

    async def _read_together(self, pointer: str, asked: Sequence[Commands]) -> list[AsOf[list[Any]] | Exception | None]:
        """None for all where there is no read model. All are as of the same position."""
        words = orjson.dumps([command for commands in asked for command in commands])
        async with asyncio.timeout(self._redis_seconds):
            position, *answers = await self._read_live(keys=[pointer], args=[words]) or (None,)
        if position is None:
            return [None] * len(asked)
        each: Iterator[Any] = iter(answers)
        return [_of_one(int(position), list(islice(each, len(commands)))) for commands in asked]

    async def _missing(self, model: ReadModel, ledger_id: str) -> NoReturn:
        """Only a ledger that exists can have read models to rebuild."""
        await self.require_ledger(ledger_id)
        raise rebuilding(model)

    async def require_ledger(self, ledger_id: str) -> int:
        """The last position of the ledger's log.

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
        """Whether it was told lately to have come less far than this."""
        told = self.moves.position(pointer_id(model, ledger_id))
        return told is not None and told < position

    async def reached(self, model: ReadModel, ledger_id: str, position: int) -> None:
        """Waits until a read model is told, or seen, to be as far as this."""
        while await self.checkpoint_soon(model, ledger_id, position) < position:
            pass

    def forget(self, model: ReadModel, ledger_id: str) -> None:
        """What was told of the read model is not so."""
        self.moves.forget(pointer_id(model, ledger_id))

    async def checkpoint_soon(self, model: ReadModel, ledger_id: str, wanted: int) -> int:
        """The checkpoint a moment from now, or what was told of it where that is enough; -1 where there is none.

        All who wait for a read model share one poll: a projector that is behind is not made slower by those who wait for it.
        """
        key = pointer_id(model, ledger_id)
        told = self.moves.position(key)
        if told is not None and told >= wanted:
            return told
        poll = self.polls.get(key)
        # One that is done but not forgotten yet says nothing new. Who waits in a loop would get it for ever: to await what is
        # done gives nobody else a turn, the forgetting included.
        if poll is None or poll.done():
            poll = self.polls[key] = asyncio.create_task(self._poll(model, ledger_id))
            poll.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(poll)

    async def _poll(self, model: ReadModel, ledger_id: str) -> int:
        key = pointer_id(model, ledger_id)
        before = self.moves.position(key)
        await self.moves.next(key, TOLD_POLL_SECONDS if self.moves.is_heard else POLL_SECONDS)
        told = self.moves.position(key)
        if told is not None and told != before:
            return told
        try:
            return (await live_generation(self.mongo, self.redis, model, ledger_id)).position
        except Rebuilding:
            return -1

    def _forget(self, key: str, poll: asyncio.Task[int]) -> None:
        """A failure counts as seen even when all who waited for this poll have given up."""
        if self.polls.get(key) is poll:
            del self.polls[key]
        if not poll.cancelled():
            poll.exception()


def rebuilding(model: ReadModel) -> Rebuilding:
    return Rebuilding(f"The read model {model.name!r} is being rebuilt.", projection=model.name)


def _of_one(position: int, answers: list[Any]) -> AsOf[list[Any]] | Exception:
    return next((answer for answer in answers if isinstance(answer, Exception)), None) or AsOf(position, answers)


def _lookup(collection_name: str, pipeline: Sequence[Document], name: str) -> Document:
    return {"$lookup": {"from": collection_name, "pipeline": list(pipeline), "as": name}}
