"""Migrated databases for tests. They are created ahead of need, because creating one takes longer than a short test."""

import asyncio
import itertools
import subprocess
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import asyncpg
from pymongo import MongoClient

from dev.daybook_processes import migrate
from dev.servers import Mongo, Postgres, start_all, stop_all
from tests.harness.keys import OPERATOR, add_key

READY: Final = 2
"""The number of databases that are kept ready."""
TEMPLATE: Final = "template_of_tests"
"""A copy of the database `daybook` that nobody can connect to: PostgreSQL copies no database that somebody is connected to."""


async def make_migrated_postgres(folder: Path) -> Path:
    """Makes a PostgreSQL with all migrations and the operator's key, stops it, and returns its folder within `folder`."""
    postgres = Postgres("postgres", folder)
    await start_all(postgres)
    await migrate(folder, {"DAYBOOK_DATABASE_URL": postgres.url})
    # A separate event loop ends together with everything that the connection leaves open. The loop of the run would stop here.
    await asyncio.to_thread(asyncio.run, add_key(postgres.url, token=OPERATOR))
    await asyncio.to_thread(asyncio.run, _make_template(postgres))
    await stop_all(postgres)
    return postgres.folder


async def _make_template(postgres: Postgres) -> None:
    """Copies the migrated database `daybook`, for `Databases`."""
    await _execute(postgres.superuser_url, f"CREATE DATABASE {TEMPLATE} TEMPLATE daybook OWNER daybook ALLOW_CONNECTIONS false")


def copy_postgres(migrated: Path, folder: Path) -> Postgres:
    """Returns a PostgreSQL server, not yet started. Its database `daybook` has all migrations and the operator's key."""
    server = Postgres("postgres", folder)
    subprocess.run(["cp", "--archive", migrated, server.folder], check=True)
    return server


class Databases:
    """Creates databases ahead of need, and drops used ones in the background.

    PostgreSQL mostly waits for the disk while it does either, and no test depends on when it is done.
    """

    def __init__(self, postgres: Postgres, mongo: Mongo) -> None:
        self._postgres = postgres
        self._mongo = mongo
        self._numbers = itertools.count(1)
        self._makers = ThreadPoolExecutor(1, "make-databases")
        self._droppers = ThreadPoolExecutor(1, "drop-databases")
        self._made: deque[Future[str]] = deque()
        self._dropped: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        self._made.extend(self._makers.submit(self._make) for _ in range(READY))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops the background work. Remaining databases are not dropped, because they end with their servers."""
        self._makers.shutdown(cancel_futures=True)
        self._droppers.shutdown(cancel_futures=True)

    async def take(self) -> str:
        """Returns a name for both stores: an empty database in PostgreSQL, and a database in MongoDB that does not exist yet."""
        self._made.append(self._makers.submit(self._make))
        return await asyncio.wrap_future(self._made.popleft())

    def drop(self, name: str) -> None:
        """Drops the databases of this name in PostgreSQL and MongoDB, in the background. Raises the errors of earlier drops."""
        while self._dropped and self._dropped[0].done():
            self._dropped.popleft().result()
        self._dropped.append(self._droppers.submit(self._drop, name))

    def _make(self) -> str:
        name = f"daybook_test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER daybook")
        return name

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        with MongoClient[dict[str, object]](self._mongo.url) as client:
            client.drop_database(name)

    def _execute(self, statement: str) -> None:
        asyncio.run(_execute(self._postgres.superuser_url, statement))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, ssl=False)  # if asyncpg asked for TLS and got none, it would leave a socket open
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
