"""Servers once per test run, a fresh database per test. What a test does not ask for is not started."""

import asyncio
import gc
import itertools
import os
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from pymongo import MongoClient
from redis.asyncio import Redis as RedisClient
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.processes import migrate
from dev.servers import Mongo, Postgres, Redis, start_all, stop_all
from shared.connections import open_postgres
from shared.settings import Settings
from tests.keys import OPERATOR, add_key
from tests.log import MASTER_KEY
from tests.running import Servers, Stack, run_stack

# A developer's shell may point at a running stack, which no test may touch.
for variable in [name for name in os.environ if name.startswith("DAYBOOK_")]:
    del os.environ[variable]

TEMPLATE = "daybook_template"
REDIS_DATABASES = itertools.cycle(range(1, 64))
NUMBERS = itertools.count(1)


# A shell that runs the tests in its background has Ctrl-C ignored, also by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker("services")


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Not below pytest's own folders, which it keeps: three servers' data for each of the last runs are much."""
    with tempfile.TemporaryDirectory(prefix="daybook-tests-") as folder:
        yield Path(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(server_folder: Path) -> AsyncIterator[Servers]:
    """PostgreSQL, MongoDB and Redis for the whole run. A test that kills or freezes one needs servers of its own."""
    postgres, mongo, redis = (
        Postgres("postgres", server_folder),
        Mongo("mongo", server_folder),
        Redis("redis", server_folder),
    )
    await start_all(postgres, mongo, redis)
    # Asked while a server was still starting, a driver can leave its socket to the collector; no test is to be blamed for that.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    yield Servers(postgres, mongo, redis)
    await stop_all(postgres, mongo, redis)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_database(servers: Servers, server_folder: Path) -> str:
    """The name of a database that has been through all migrations and has the operator's key, once per run."""
    await _as_superuser(servers.postgres, f"CREATE DATABASE {TEMPLATE} OWNER daybook")
    await migrate(server_folder, {"DAYBOOK_DATABASE_URL": _at(servers.postgres, TEMPLATE)})
    # In a loop of its own, which ends with all that the connection leaves behind: the one of the session stops here.
    await asyncio.to_thread(asyncio.run, add_key(_at(servers.postgres, TEMPLATE), token=OPERATOR))
    return TEMPLATE


@pytest_asyncio.fixture
async def settings(servers: Servers, template_database: str) -> AsyncIterator[Settings]:
    """Settings that point to a migrated, empty database, an empty MongoDB database and an empty Redis database."""
    async with _fresh_settings(servers, template_database) as fresh:
        yield fresh


@pytest_asyncio.fixture
async def elsewhere(servers: Servers, template_database: str) -> AsyncIterator[Settings]:
    """As `settings`, and others."""
    async with _fresh_settings(servers, template_database) as fresh:
        yield fresh


@asynccontextmanager
async def _fresh_settings(servers: Servers, template_database: str) -> AsyncIterator[Settings]:
    name = f"daybook_test_{next(NUMBERS)}"
    redis_url = servers.redis.url.removesuffix("/0") + f"/{next(REDIS_DATABASES)}"
    await asyncio.gather(
        _as_superuser(servers.postgres, f"CREATE DATABASE {name} TEMPLATE {template_database} OWNER daybook"),
        _empty(redis_url),
    )
    yield Settings(
        database_url=_at(servers.postgres, name),
        mongo_url=servers.mongo.url,
        mongo_database=name,
        redis_url=redis_url,
        secret="for tests only, and long enough to be taken",
        master_keys=MASTER_KEY,
    )
    await _as_superuser(servers.postgres, f"DROP DATABASE {name} WITH (FORCE)")
    with MongoClient[dict[str, object]](servers.mongo.url) as client:
        client.drop_database(name)


@pytest_asyncio.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """As the command API has it."""
    async with open_postgres(settings, "daybook_command") as opened:
        yield opened


@pytest_asyncio.fixture
async def stack(settings: Settings, tmp_path: Path) -> AsyncIterator[Stack]:
    """The two APIs and the worker as real processes. For more environment variables use `run_stack` itself."""
    async with run_stack(settings, tmp_path) as running:
        yield running


def _at(postgres: Postgres, database: str) -> str:
    return postgres.url.removesuffix("daybook") + database


async def _as_superuser(postgres: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _empty(redis_url: str) -> None:
    async with RedisClient.from_url(redis_url) as client:
        await client.flushdb()
