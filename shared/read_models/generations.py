"""Generations of read models: the names of their keys and collections, which one is live, and their checkpoints.

A read model is stored in MongoDB or Redis, in one or more generations. A pointer names the live generation. The checkpoint of a
generation is stored beside its data and is written in the same atomic step. Even after a store was emptied or restored, the
checkpoint therefore matches the data. If a ledger has no pointer for a read model, the read model is being rebuilt; queries then
get an error and not an empty result.

    MongoDB   pointers           {_id: "main/users", live: 2 | null, building: 3 | null, previous: 1 | null, notes}
              checkpoints        {_id: "main/users/1", position: 812, log_hash: that of event 812, model_version: 1,
                                  collection_uuid, retired: true once another generation is live}
              users              the documents of all ledgers: see `shared.read_models.documents`
    Redis     daybook:{main}:balances                   hash: live, building, previous, notes; a field that is null is absent
              daybook:{main}:balances:1:checkpoint      "812"
              daybook:{main}:balances:1:origin          hash: log_hash (hexadecimal), model_version
              daybook:{main}:balances:1:names           set: the names of all keys that the generation must have
              daybook:{main}:balances:1:<key>           the data; the braces keep a ledger on one node of a cluster

`previous` is the generation that was live before and is kept for a rollback. The notes of a pointer are `paused` (the time since
which the read model is paused) and `rate` (the events per second of the last rebuild). A copy as of a past moment is a read model
with a label in its name, such as `users@audit`; no query reads a copy.

The set `names` tells a key that Redis has lost from one that was never written. A process that notices a loss deletes the
checkpoint. Then the generation counts as lost, queries are answered `rebuilding`, and the worker builds a new generation.

`log_hash` shows from which history a generation was built. If a log was restored from a backup and then got other events, the
hash at the checkpoint's position no longer matches.
"""

from functools import lru_cache

import msgspec
from redis.asyncio import Redis

from shared.errors import Rebuilding
from shared.read_models.documents import GenerationDocuments
from shared.read_models.shapes import ReadModel
from shared.stores.mongo import MongoDatabase


class Generation(msgspec.Struct, frozen=True):
    """One complete copy of a ledger's read model. `position` is its checkpoint: the copy contains all events up to it."""

    model: ReadModel
    ledger_id: str
    number: int
    position: int = 0

    def documents(self) -> GenerationDocuments:
        return _documents(self.model.name, self.ledger_id, self.number)

    def key(self, *parts: str) -> str:
        return ":".join((pointer_key(self.model, self.ledger_id), str(self.number), *parts))


_documents = lru_cache(maxsize=4_096)(GenerationDocuments)
"""The same object each time: a query needs it in less time than it takes to make one."""


def pointer_id(model: ReadModel, ledger_id: str) -> str:
    return f"{ledger_id}/{model.name}"


def checkpoint_id(generation: Generation) -> str:
    return f"{pointer_id(generation.model, generation.ledger_id)}/{generation.number}"


def pointer_key(model: ReadModel, ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:{model.name}"


async def live_generation(mongo: MongoDatabase, redis: "Redis", model: ReadModel, ledger_id: str) -> Generation:
    """Returns the generation that readers see, with the position of its checkpoint.

    Raises:
        Rebuilding: no generation is live yet.
    """
    number = await _live_number(mongo, redis, model, ledger_id)
    if number is not None:
        generation = Generation(model, ledger_id, number)
        position = await read_checkpoint(mongo, redis, generation)
        if position is not None:
            return msgspec.structs.replace(generation, position=position)
    msg = f"The read model {model.name!r} is being rebuilt."
    raise Rebuilding(msg, projection=model.name)


async def read_checkpoint(mongo: MongoDatabase, redis: "Redis", generation: Generation) -> int | None:
    """Returns the position up to which the generation holds all events; None if the generation does not exist."""
    if generation.model.store == "mongo":
        checkpoint = await mongo.checkpoints.find_one({"_id": checkpoint_id(generation)})
        return checkpoint["position"] if checkpoint else None
    stored = await redis.get(generation.key("checkpoint"))
    return int(stored) if stored is not None else None


async def _live_number(mongo: MongoDatabase, redis: "Redis", model: ReadModel, ledger_id: str) -> int | None:
    if model.store == "mongo":
        pointer = await mongo.pointers.find_one({"_id": pointer_id(model, ledger_id)})
        return pointer["live"] if pointer else None
    stored = await redis.hget(pointer_key(model, ledger_id), "live")  # type: ignore[misc]  # typed for both clients at once
    return int(stored) if stored else None
