"""What a read model could not take in: how it stands in the store, and how it is read. See `projector.dead_letters`.

An event that cannot be applied to a read model becomes a dead letter of its generation, and its streams are parked there: what
comes after it in them is put aside too, and parks its own streams in turn. So of every stream a generation holds all events up
to some version, and none after. It is written in the same step as the checkpoint, and goes with the generation:

    MongoDB   checkpoints        {…, letters, parked, put_aside: numbers; skipped: [positions]}
              dead_letters       {_id: "main/users/1/0000000000000812", position, event_id, type, streams, cause, attempts, since}
              parked_streams     {_id: "main/users/1/user-…", position: that of the event which parked it}
    Redis     …:balances:1:letters                      hash: "812" → JSON of the same
              …:balances:1:parked                       hash: stream → position
              …:balances:1:origin                       …, letters, parked, put_aside; "skipped:812": "1"

`skipped` are the events that the generation left out because an operator said so (`ProjectionEventSkipped`).
"""

import re
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from shared.connections import MongoDatabase
from shared.read_models import Generation, checkpoint_id

COUNTS: Final = ("letters", "parked", "put_aside")


class Letter(msgspec.Struct, frozen=True):
    """An event that could not be applied. `cause` says where the code failed and never what it said: that may quote a person."""

    position: int
    event_id: str
    type: str
    streams: list[str]
    cause: str
    attempts: int
    since: str


class Aside(msgspec.Struct, frozen=True):
    """How much a generation has put aside. `put_aside` counts the events behind the letters."""

    letters: int = 0
    parked: int = 0
    put_aside: int = 0
    skipped: frozenset[int] = frozenset()


NOTHING_ASIDE: Final = Aside()
SKIPPED: Final = "skipped:"


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def aside_in_document(checkpoint: dict[str, Any]) -> Aside:
    """From a checkpoint."""
    numbers = {name: checkpoint.get(name, 0) for name in COUNTS}
    return Aside(**numbers, skipped=frozenset(checkpoint.get("skipped", ())))


def ids_of(generation: Generation) -> dict[str, Any]:
    """The filter for what is kept of one generation in a collection of all."""
    return {"_id": {"$regex": "^" + re.escape(checkpoint_id(generation) + "/")}}


async def letters_in_mongo(mongo: MongoDatabase, generation: Generation) -> list[Letter]:
    found = mongo.dead_letters.find(ids_of(generation)).sort("_id", 1)
    return [msgspec.convert(each, Letter) async for each in found]


async def parked_in_mongo(mongo: MongoDatabase, generation: Generation) -> dict[str, int]:
    prefix = checkpoint_id(generation) + "/"
    return {each["_id"].removeprefix(prefix): each["position"] async for each in mongo.parked_streams.find(ids_of(generation))}


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def aside_in_hash(origin: dict[str, str]) -> Aside:
    """From the origin that stands beside a checkpoint."""
    numbers = {name: int(origin.get(name, 0)) for name in COUNTS}
    return Aside(**numbers, skipped=frozenset(int(name.removeprefix(SKIPPED)) for name in origin if name.startswith(SKIPPED)))


async def letters_in_redis(redis: "Redis", generation: Generation) -> list[Letter]:
    client: Any = redis  # redis-py types its commands for both its clients at once
    letters = (msgspec.json.decode(value, type=Letter) for value in await client.hvals(generation.key("letters")))
    return sorted(letters, key=lambda letter: letter.position)


async def parked_in_redis(redis: "Redis", generation: Generation) -> dict[str, int]:
    client: Any = redis
    return {stream_id: int(position) for stream_id, position in (await client.hgetall(generation.key("parked"))).items()}


# ── either ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_aside(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> Aside:
    if generation.model.store == "mongo":
        return aside_in_document(await mongo.checkpoints.find_one({"_id": checkpoint_id(generation)}) or {})
    client: Any = redis
    return aside_in_hash(await client.hgetall(generation.key("origin")))


async def read_letters(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> list[Letter]:
    """In the order of the log."""
    if generation.model.store == "mongo":
        return await letters_in_mongo(mongo, generation)
    return await letters_in_redis(redis, generation)


async def read_parked(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> dict[str, int]:
    """Stream → the position of the event that parked it."""
    if generation.model.store == "mongo":
        return await parked_in_mongo(mongo, generation)
    return await parked_in_redis(redis, generation)
