"""Opens what we hold connections to: PostgreSQL, MongoDB, Redis. The only place where a driver is made.

Motor is past its end of life; its successor has nearly the same methods, so leaving it is a change of this file.
Every connection has a bound on how long it may take: a store that hangs is a `StoreUnavailable`, never a wait without end.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import asyncpg
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.database import Database
from pymongo.errors import PyMongoError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import SchemaMismatch, SettingsInvalid, StoreUnavailable, UnsafeStore
from shared.settings import Settings
from shared.tables import SCHEMA_REVISION

Role = Literal["daybook_command", "daybook_projector", "daybook_query", "daybook_admin"]
MongoDatabase = AsyncIOMotorDatabase[dict[str, Any]]

DURABLE: Final = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_apply")}
_REDIS_RETRIES: Final = 3
KEPT_SECONDS: Final = 5


Driver: TypeAlias = asyncpg.Connection
"""A connection to PostgreSQL without SQLAlchemy around it."""

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError)
"""What a `Driver` raises, besides `TimeoutError`, where SQLAlchemy would raise `DBAPIError`."""
_UNUSABLE: Final = (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError)
"""What leaves a connection such that it does not answer, and would not answer the next one or a rollback either."""


@asynccontextmanager
async def open_postgres(settings: Settings, role: Role) -> AsyncIterator[AsyncEngine]:
    """An engine whose sessions act as `role` and so can do no more than that role may."""
    with _readable("DAYBOOK_DATABASE_URL"):
        url, tls = postgres_address(settings.database_url)
    engine = create_async_engine(
        url,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_overflow_max,
        pool_timeout=settings.database_pool_timeout_ms / 1000,
        pool_recycle=settings.database_pool_recycle_seconds,
        pool_pre_ping=settings.database_pool_pre_ping,
        hide_parameters=True,  # or an error would carry ids and amounts into the logs
        connect_args=tls
        | {
            "timeout": settings.database_connect_timeout_ms / 1000,
            # The server's own limit comes first; ours is for a server that does not answer at all.
            "command_timeout": settings.database_statement_timeout_ms / 1000 + 0.5,
            "server_settings": {
                "application_name": role.replace("_", "-"),
                "role": role,
                "jit": "off",
                "statement_timeout": str(settings.database_statement_timeout_ms),
                "lock_timeout": str(settings.database_lock_timeout_ms),
                "idle_in_transaction_session_timeout": str(settings.database_idle_in_transaction_timeout_ms),
            },
        },
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def open_postgres_as_owner(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """For what only the owner of the tables may do, as the migrations do it: no process that serves has this."""
    with _readable("DAYBOOK_MIGRATION_DATABASE_URL"):
        url, tls = postgres_address(settings.migration_database_url or settings.database_url)
    server_settings = {"application_name": "daybook-owner", "lock_timeout": str(settings.database_lock_timeout_ms)}
    connect_args = tls | {"timeout": settings.database_connect_timeout_ms / 1000, "server_settings": server_settings}
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args)
    try:
        yield engine
    finally:
        await engine.dispose()


def postgres_address(url: str) -> tuple[URL, dict[str, Any]]:
    """What libpq says in a URL about TLS (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`), as the driver takes it.

    Raises:
        ValueError, ArgumentError: the URL is none, or names files that are not there or modes that do not exist.
    """
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    asked = {name: str(parsed.query[name]) for name in _LIBPQ_TLS if name in parsed.query}
    parsed = parsed.difference_update_query(_LIBPQ_TLS)
    mode = asked.get("sslmode", "verify-full" if asked else None)
    if mode is None or mode in _WITHOUT_CHECK:
        return parsed, {} if mode is None else {"ssl": False if mode == "disable" else mode}
    if mode not in {"verify-ca", "verify-full"}:
        raise ValueError(mode)
    context = ssl.create_default_context(cafile=asked.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if "sslcert" in asked:
        context.load_cert_chain(asked["sslcert"], asked.get("sslkey"))
    return parsed, {"ssl": context}


_LIBPQ_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_WITHOUT_CHECK: Final = {"disable", "allow", "prefer", "require"}


def redis_tls(url: str) -> dict[str, Any]:
    """redis-py by itself checks who signed the certificate of a `rediss://` server, and not whose it is."""
    return {"ssl_check_hostname": True} if url.startswith("rediss:") else {}


@asynccontextmanager
async def open_mongo(
    settings: Settings, operation_timeout_ms: int | None = None, role: Role = "daybook_query"
) -> AsyncIterator[MongoDatabase]:
    """The database of the read models. Writes are acknowledged by a majority that has them in its journal.

    An operation may take five times as long as finding the server, unless told otherwise. The server knows us by
    `mongo_application`.
    """
    with _readable("DAYBOOK_MONGO_URL"):
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            settings.mongo_url,
            appname=mongo_application(settings.mongo_database, role),
            w="majority",
            journal=True,
            readConcernLevel="majority",
            serverSelectionTimeoutMS=settings.mongo_timeout_ms,
            connectTimeoutMS=settings.mongo_timeout_ms,
            timeoutMS=operation_timeout_ms or settings.mongo_timeout_ms * 5,
        )
    try:
        yield client[settings.mongo_database]
    finally:
        client.close()


def blocking(mongo: MongoDatabase) -> "Database[dict[str, Any]]":
    """The same database, for a thread of one's own that may wait: all that motor does is to call this in threads."""
    database: Database[dict[str, Any]] = mongo.delegate
    return database


class KeptConnection:
    """A connection of the pool that its only user keeps from one transaction to the next, and on which it talks to the driver.

    For short transactions, of which there are many: taking a connection, and SQLAlchemy's part in BEGIN, a statement and COMMIT,
    are more work than the transaction. It is given back when it was not used for `KEPT_SECONDS`, and at once while others could
    miss it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Driver]:
        """Raises:
        TimeoutError, one of DRIVER_ERRORS, sqlalchemy.exc.SQLAlchemyError.
        """
        driver = await self._open()
        try:
            yield driver
        except _UNUSABLE:
            driver.terminate()
            raise
        finally:
            await self._keep(driver)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Driver]:
        """A transaction, committed at the end and rolled back by an error.

        Raises:
            TimeoutError, one of DRIVER_ERRORS, sqlalchemy.exc.SQLAlchemyError: nothing was committed, unless COMMIT was sent.
        """
        async with self.connected() as driver:
            transaction = driver.transaction()
            await transaction.start()
            try:
                yield driver
            except _UNUSABLE:
                raise
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()

    async def _open(self) -> Driver:
        if self._idle:
            self._idle.cancel()
        if self._connection is None:
            self._connection = await self._engine.connect()
        return await driver_of(self._connection)

    async def _keep(self, driver: Driver) -> None:
        pool: Any = self._engine.pool
        if driver.is_closed() or pool.checkedout() > pool.size() // 2:
            await self.release()
        else:
            self._idle = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._release_soon)

    def _release_soon(self) -> None:
        self._releasing = asyncio.create_task(self._give_back(self._take()))

    async def release(self) -> None:
        """Gives the connection back; the next transaction takes another."""
        await self._give_back(self._take())
        if self._releasing:
            await self._releasing

    def _take(self) -> AsyncConnection | None:
        """At once: who comes while it is given back must not find it any more."""
        connection, self._connection = self._connection, None
        return connection

    async def _give_back(self, connection: AsyncConnection | None) -> None:
        if connection is None:
            return
        if (await driver_of(connection)).is_closed():
            await connection.invalidate()
        await connection.close()


async def driver_of(connection: AsyncConnection) -> Driver:
    """The driver's own connection below SQLAlchemy's. What is sent on it is in the transaction that SQLAlchemy began, if any."""
    driver: Driver = (await connection.get_raw_connection()).driver_connection
    return driver


def mongo_application(database_name: str, role: Role) -> str:
    return f"{role}/{database_name}"[:128]


@asynccontextmanager
async def open_redis(settings: Settings, operation_timeout_ms: int | None = None) -> AsyncIterator["Redis"]:
    """A client that answers or raises within the timeout, and that outlives a restart of the server."""
    timeout = settings.redis_timeout_ms / 1000
    with _readable("DAYBOOK_REDIS_URL"):
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            decode_responses=True,
            max_connections=64,
            timeout=timeout,
            socket_timeout=(operation_timeout_ms or settings.redis_timeout_ms) / 1000,
            socket_connect_timeout=timeout,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), _REDIS_RETRIES),
            retry_on_error=[RedisConnectionError],
            **redis_tls(settings.redis_url),
        )
    client: Redis = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def _readable(variable: str) -> Iterator[None]:
    """What a driver says of a URL that it cannot read may hold a part of it, and so a password: only the variable is named."""
    try:
        yield
    except (ArgumentError, PyMongoError, ValueError, OSError):
        raise SettingsInvalid([f"{variable}: not a URL that its driver can read, or a file that it names cannot be"]) from None


class Stores(NamedTuple):
    """All three at once."""

    engine: AsyncEngine
    mongo: MongoDatabase
    redis: "Redis"


@asynccontextmanager
async def open_stores(settings: Settings, role: Role) -> AsyncIterator[Stores]:
    """For those who write read models, in batches that may take their time. Nothing has answered yet."""
    async with (
        open_postgres(settings, role) as engine,
        open_mongo(settings, role=role) as mongo,
        open_redis(settings, settings.redis_timeout_ms * 5) as redis,
    ):
        yield Stores(engine, mongo, redis)


STORE_ERRORS: Final = (SQLAlchemyError, RedisError, RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
"""What a store that is down, slow or restarting makes its driver raise (MongoDB's own are in `pymongo.errors`)."""


@contextmanager
def _answering(store: str) -> Iterator[None]:
    """For the start of a process, whose failure an operator reads in one line."""
    try:
        yield
    except (*STORE_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0] or type(error).__name__
        raise StoreUnavailable(f"{store} does not answer: {reason}") from error


async def require_schema(engine: AsyncEngine, wait_seconds: int) -> None:
    """Waits at most `wait_seconds` for the migrations.

    Raises:
        SchemaMismatch: the schema is missing, older or newer than this code.
        StoreUnavailable: nobody can say.
    """
    end = time.monotonic() + wait_seconds
    with _answering("PostgreSQL"):
        while (found := await _schema_revision(engine)) != SCHEMA_REVISION:
            if time.monotonic() >= end:
                what = f"the database's schema is {found or 'missing'}, this code needs {SCHEMA_REVISION}"
                raise SchemaMismatch(f"{what}: run `daybook migrate`")
            await asyncio.sleep(0.2)


async def _schema_revision(engine: AsyncEngine) -> str | None:
    try:
        async with engine.connect() as connection:
            revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return revision
    except DBAPIError as error:
        # Without the migrations there is no table, and not even the role we log in as.
        if getattr(error.orig, "sqlstate", None) in {"42P01", "42704", "22023", "42501"}:
            return None
        raise


async def require_durable_postgres(engine: AsyncEngine) -> None:
    """Raises:
    UnsafeStore: an acknowledged command could be lost when the server loses power.
    StoreUnavailable: nobody can say.
    """
    with _answering("PostgreSQL"):
        async with engine.connect() as connection:
            values = {name: await connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) for name in DURABLE}
    for name, value in values.items():
        if value not in DURABLE[name]:
            msg = f"PostgreSQL runs with {name} = {value}: acknowledged commands could be lost; set it to on"
            raise UnsafeStore(msg)


async def require_lasting_redis(redis: "Redis") -> None:
    """Raises:
    UnsafeStore: the server may evict keys, and with them balances.
    StoreUnavailable: nobody can say.
    """
    with _answering("Redis"):
        policy = (await redis.info("memory")).get("maxmemory_policy")
    if policy != "noeviction":
        msg = f"Redis runs with maxmemory-policy {policy}: it may evict balances; set it to noeviction"
        raise UnsafeStore(msg)
