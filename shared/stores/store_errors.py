"""Lists the exceptions that the stores' drivers raise, and converts failures at the start of a process to one-line errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from pymongo.errors import PyMongoError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from shared.errors import SettingsInvalid, StoreUnavailable

POSTGRES_AND_REDIS_ERRORS: Final = (
    SQLAlchemyError,
    RedisError,
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    TimeoutError,
)
"""The exceptions for a PostgreSQL (through SQLAlchemy) or Redis that is down or slow. MongoDB's driver raises `PyMongoError`."""

ASYNCPG_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError)
"""The exceptions that `shared.stores.postgres.Driver` raises, besides `TimeoutError`, where SQLAlchemy raises `DBAPIError`."""

POSTGRES_ERRORS: Final = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
MONGO_ERRORS: Final = (PyMongoError,)
REDIS_ERRORS: Final = (RedisError,)
"""The exceptions that tell which store they come from. Those of a broken connection to PostgreSQL are plain `OSError`s."""


@contextmanager
def reading_url(variable: str) -> Iterator[None]:
    """Wraps code that passes the URL of a setting to a driver. Replaces the driver's error, which may contain a password.

    Raises:
        SettingsInvalid: the driver cannot read the URL, or a file that the URL names. The message names only the variable.
    """
    try:
        yield
    except (ArgumentError, PyMongoError, ValueError, OSError):
        raise SettingsInvalid([f"{variable}: not a URL that its driver can read, or a file that it names cannot be"]) from None


@contextmanager
def requiring_answer(store: str) -> Iterator[None]:
    """Wraps code that queries a store while a process starts. Replaces the driver's error by one line for the operator.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    try:
        yield
    except (*POSTGRES_AND_REDIS_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0] or type(error).__name__
        raise StoreUnavailable(f"{store} does not answer: {reason}") from error
