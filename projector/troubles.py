"""Notes why a projection does not go on, where readers look for it. See `shared.read_models`.

Best effort: what cannot be noted has been logged, and the projection's own retrying does not depend on it.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError
from redis.asyncio import Redis

from shared.connections import STORE_ERRORS, MongoDatabase
from shared.errors import DaybookError
from shared.events import timestamp
from shared.read_models import ReadModel, Trouble, pointer_id, troubles_key

CAUSE_CHARACTERS_MAX: Final = 400


class Troubles:
    """Remembers what it noted, so that the same cause keeps its beginning and a cleared one is cleared once."""

    def __init__(self, mongo: MongoDatabase, redis: "Redis") -> None:
        self._mongo = mongo
        self._redis: Any = redis  # redis-py types its commands for both its clients at once
        self._noted: dict[str, Trouble | None] = {}

    async def note(self, model: ReadModel, ledger_id: str, position: int, error: Exception) -> None:
        read_model_id = pointer_id(model, ledger_id)
        trouble = Trouble(_cause(error), position, timestamp(datetime.now(UTC)))
        before = self._noted.get(read_model_id)
        if before and (before.cause, before.position) == (trouble.cause, trouble.position):
            trouble = before
        self._noted[read_model_id] = trouble
        with suppress(*STORE_ERRORS, PyMongoError):
            if model.store == "redis":
                document = msgspec.structs.asdict(trouble)
                await self._mongo.troubles.replace_one({"_id": read_model_id}, document, upsert=True)
            else:
                await self._redis.hset(troubles_key(ledger_id), model.name, msgspec.json.encode(trouble))

    async def clear(self, model: ReadModel, ledger_id: str) -> None:
        """Also what a worker before this one left behind."""
        read_model_id = pointer_id(model, ledger_id)
        if self._noted.get(read_model_id, ...) is None:
            return
        with suppress(*STORE_ERRORS, PyMongoError):
            if model.store == "redis":
                await self._mongo.troubles.delete_one({"_id": read_model_id})
            else:
                await self._redis.hdel(troubles_key(ledger_id), model.name)
            self._noted[read_model_id] = None


def _cause(error: Exception) -> str:
    text = str(error) if isinstance(error, DaybookError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= CAUSE_CHARACTERS_MAX else text[:CAUSE_CHARACTERS_MAX] + " …"
