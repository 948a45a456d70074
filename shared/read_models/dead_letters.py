"""Reads the dead letters and parked streams of a generation. `projector.dead_letters` decides which events become dead letters.

An event that a generation cannot apply becomes its dead letter, and the generation parks the streams of that event. Later events
of a parked stream are not applied either, and their other streams are parked too. For every stream, a generation therefore
holds all events up to some version and none after it. Dead letters are written together with the checkpoint, and deleted with
the generation:

    MongoDB   checkpoints        {…, letters, parked, put_aside: numbers; skipped: [positions]}
              dead_letters       {_id: "main/users/1/0000000000000812", position, event_id, type, streams, cause, attempts, since}
              parked_streams     {_id: "main/users/1/user-…", position: that of the event which parked it}
    Redis     …:balances:1:letters                      hash: "812" → JSON of the same
              …:balances:1:parked                       hash: stream → position
              …:balances:1:origin                       …, letters, parked, put_aside; "skipped:812": "1"

`letters`, `parked` and `put_aside` are the fields of a `DeadLetterSummary`. `skipped` are the positions of the events that an
operator decided to leave out (see `ProjectionEventSkipped`).
"""

from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from shared.read_models.generations import Generation, checkpoint_id
from shared.stores.mongo import MongoDatabase

COUNTS: Final = ("letters", "parked", "put_aside")
"""The stored numbers. A `DeadLetterSummary` has fields of the same names."""

SKIPPED: Final = "skipped:"


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a read model could not apply.

    `cause` names the place in the code that failed. It never contains the text of the error, which may include personal data.
    """

    position: int
    event_id: str
    type: str
    streams: list[str]
    cause: str
    attempts: int
    since: str


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """How many dead letters and parked streams a generation has.

    `put_aside` counts the later events of parked streams, which are not applied. `skipped` are the positions of the events that
    an operator decided to leave out permanently.
    """

    letters: int = 0
    parked: int = 0
    put_aside: int = 0
    skipped: frozenset[int] = frozenset()


NO_DEAD_LETTERS: Final = DeadLetterSummary()


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def summary_in_document(checkpoint: dict[str, Any]) -> DeadLetterSummary:
    """Returns the summary of the dead letters, which the document of a checkpoint in MongoDB contains."""
    numbers = {name: checkpoint.get(name, 0) for name in COUNTS}
    return DeadLetterSummary(**numbers, skipped=frozenset(checkpoint.get("skipped", ())))


def ids_of_generation(generation: Generation) -> dict[str, Any]:
    """Returns a MongoDB filter for the documents of one generation in `dead_letters` or `parked_streams`."""
    begin = checkpoint_id(generation)
    return {"_id": {"$gte": f"{begin}/", "$lt": f"{begin}0"}}  # 0 comes right after the slash


async def dead_letters_in_mongo(mongo: MongoDatabase, generation: Generation) -> list[DeadLetter]:
    found = mongo.dead_letters.find(ids_of_generation(generation)).sort("_id", 1)
    return [msgspec.convert(each, DeadLetter) async for each in found]


async def parked_streams_in_mongo(mongo: MongoDatabase, generation: Generation) -> dict[str, int]:
    prefix = checkpoint_id(generation) + "/"
    found = mongo.parked_streams.find(ids_of_generation(generation))
    return {each["_id"].removeprefix(prefix): each["position"] async for each in found}


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def summary_in_hash(origin: dict[str, str]) -> DeadLetterSummary:
    """Returns the summary that the Redis hash `origin` of a generation contains."""
    numbers = {name: int(origin.get(name, 0)) for name in COUNTS}
    skipped = frozenset(int(name.removeprefix(SKIPPED)) for name in origin if name.startswith(SKIPPED))
    return DeadLetterSummary(**numbers, skipped=skipped)


async def dead_letters_in_redis(redis: "Redis", generation: Generation) -> list[DeadLetter]:
    client: Any = redis  # redis-py's types do not tell its asynchronous client from the blocking one
    letters = (msgspec.json.decode(value, type=DeadLetter) for value in await client.hvals(generation.key("letters")))
    return sorted(letters, key=lambda letter: letter.position)


async def parked_streams_in_redis(redis: "Redis", generation: Generation) -> dict[str, int]:
    client: Any = redis
    return {stream_id: int(position) for stream_id, position in (await client.hgetall(generation.key("parked"))).items()}


# ── either store ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_dead_letter_summary(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> DeadLetterSummary:
    if generation.model.store == "mongo":
        return summary_in_document(await mongo.checkpoints.find_one({"_id": checkpoint_id(generation)}) or {})
    client: Any = redis
    return summary_in_hash(await client.hgetall(generation.key("origin")))


async def read_dead_letters(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> list[DeadLetter]:
    """Returns the dead letters of a generation, in the order of the log."""
    if generation.model.store == "mongo":
        return await dead_letters_in_mongo(mongo, generation)
    return await dead_letters_in_redis(redis, generation)


async def read_parked_streams(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> dict[str, int]:
    """Returns the parked streams of a generation, each with the position of the event that parked it."""
    if generation.model.store == "mongo":
        return await parked_streams_in_mongo(mongo, generation)
    return await parked_streams_in_redis(redis, generation)
