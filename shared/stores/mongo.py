"""Connections to MongoDB. Only this module imports motor.

Motor is past its end of life. Its successor has nearly the same methods, so only this file must change to replace motor.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.client_session import ClientSession
from pymongo.database import Database

from shared.settings import Settings
from shared.stores.postgres import Role
from shared.stores.store_errors import reading_url

MongoDatabase: TypeAlias = AsyncIOMotorDatabase[dict[str, Any]]
MongoCollection: TypeAlias = AsyncIOMotorCollection[dict[str, Any]]
MongoSession: TypeAlias = AsyncIOMotorClientSession
BlockingMongoSession: TypeAlias = ClientSession


@asynccontextmanager
async def open_mongo(
    settings: Settings, operation_timeout_ms: int | None = None, role: Role = "daybook_query"
) -> AsyncIterator[MongoDatabase]:
    """Yields the MongoDB database of the read models. Writes are acknowledged when a majority of servers has journaled them.

    No option of the URL makes a write or a read weaker than that.

    An operation fails after `operation_timeout_ms`. The default is five times the timeout for finding the server.
    """
    with reading_url("DAYBOOK_MONGO_URL"):
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            settings.mongo_url,
            appname=mongo_application(settings.mongo_database, role),
            w="majority",
            journal=True,
            readConcernLevel="majority",
            retryWrites=True,
            serverSelectionTimeoutMS=settings.mongo_timeout_ms,
            connectTimeoutMS=settings.mongo_timeout_ms,
            timeoutMS=operation_timeout_ms or settings.mongo_timeout_ms * 5,
        )
    try:
        yield client[settings.mongo_database]
    finally:
        client.close()


def blocking(mongo: MongoDatabase) -> "Database[dict[str, Any]]":
    """Returns the same MongoDB database with blocking calls, for a function that runs in a thread.

    Motor makes the same calls in threads.
    """
    database: Database[dict[str, Any]] = mongo.delegate
    return database


def mongo_application(database_name: str, role: Role) -> str:
    """Returns the name under which MongoDB lists Daybook's connections. MongoDB allows 128 bytes."""
    return f"{role}/{database_name}"[:128]
