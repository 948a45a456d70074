"""Opens connections to all three stores together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.stores.mongo import MongoDatabase, open_mongo
from shared.stores.postgres import Role, open_postgres
from shared.stores.redis import open_redis


class Stores(NamedTuple):
    """Connections to PostgreSQL, MongoDB and Redis."""

    engine: AsyncEngine
    mongo: MongoDatabase
    redis: "Redis"


@asynccontextmanager
async def open_stores(settings: Settings, role: Role) -> AsyncIterator[Stores]:
    """Opens all stores with long timeouts, for processes that write read models in batches.

    This sends nothing to the stores, so it succeeds even if a store is down.
    """
    async with (
        open_postgres(settings, role) as engine,
        open_mongo(settings, role=role) as mongo,
        open_redis(settings, settings.redis_timeout_ms * 5) as redis,
    ):
        yield Stores(engine, mongo, redis)
