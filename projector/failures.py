"""Stores why a projection has stopped, so that the query API can report it. `shared.read_models.failures` reads it.

If this cannot be stored, nothing else fails: the cause is also in the log lines, and the projection retries in any case.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError
from redis.asyncio import Redis

from shared.errors import DaybookError, EventNotApplied
from shared.read_models.failures import ProjectionFailure, failures_key
from shared.read_models.generations import pointer_id
from shared.read_models.shapes import READ_MODELS, ReadModel
from shared.stores.mongo import MongoDatabase
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

CAUSE_CHARACTERS_MAX: Final = 400


class Failures:
    """Stores and deletes the failures of all read models.

    Keeps a copy in memory: a failure that repeats keeps its first time, and a failure is deleted only once.
    """

    def __init__(self, mongo: MongoDatabase, redis: "Redis") -> None:
        self._mongo = mongo
        self._redis: Any = redis  # redis-py has one type for the results of its synchronous and asynchronous commands
        self._noted: dict[str, ProjectionFailure | None] = {}

    async def note(self, model: ReadModel, ledger_id: str, position: int, error: Exception) -> None:
        read_model_id = pointer_id(model, ledger_id)
        event_position = error.extra["position"] if isinstance(error, EventNotApplied) else None
        failure = ProjectionFailure(_cause(error), position, timestamp(datetime.now(UTC)), event_position)
        before = self._noted.get(read_model_id)
        if before and (before.cause, before.position) == (failure.cause, failure.position):
            failure = before
        self._noted[read_model_id] = failure
        with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            if model.store == "redis":
                document = msgspec.to_builtins(failure)
                await self._mongo.troubles.replace_one({"_id": read_model_id}, document, upsert=True)
            else:
                await self._redis.hset(failures_key(ledger_id), model.name, msgspec.json.encode(failure))

    async def clear(self, model: ReadModel, ledger_id: str) -> None:
        """Deletes the stored failure of a read model, even if an earlier worker stored it."""
        read_model_id = pointer_id(model, ledger_id)
        if self._noted.get(read_model_id, ...) is None:
            return
        with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            if model.store == "redis":
                await self._mongo.troubles.delete_one({"_id": read_model_id})
            else:
                await self._redis.hdel(failures_key(ledger_id), model.name)
            self._noted[read_model_id] = None

    async def read_stored(self, ledger_ids: Sequence[str]) -> set[str]:
        """Returns which read models of these ledgers have a stored failure, as `pointer_id`s. `clear` then deletes them again."""
        in_mongo = [pointer_id(model, ledger_id) for ledger_id in ledger_ids for model in READ_MODELS if model.store == "redis"]
        found = {each["_id"] async for each in self._mongo.troubles.find({"_id": {"$in": in_mongo}}, {"_id": 1})}
        async with self._redis.pipeline(transaction=False) as pipe:
            for ledger_id in ledger_ids:
                pipe.hkeys(failures_key(ledger_id))
            names = await pipe.execute()
        found.update(f"{ledger_id}/{name}" for ledger_id, some in zip(ledger_ids, names, strict=True) for name in some)
        for read_model_id in found:
            # Another worker may have stored it after this one had deleted its own.
            if self._noted.get(read_model_id, ...) is None:
                del self._noted[read_model_id]
        return found


def _cause(error: Exception) -> str:
    text = str(error) if isinstance(error, DaybookError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= CAUSE_CHARACTERS_MAX else text[:CAUSE_CHARACTERS_MAX] + " …"
