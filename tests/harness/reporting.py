"""Databases for SQL reporting, in each of the three kinds of servers, migrated and empty."""

import asyncio
import itertools
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from sqlalchemy import delete, text

from dev.servers import MariaDb
from shared.reporting.schema import reporting_migrations
from shared.reporting.store import ReportingStore, make_engine
from shared.reporting.tables import METADATA
from tests.harness.running import Servers

KINDS: Final = ("sqlite", "mariadb", "postgresql")
_NUMBERS: Final = itertools.count(1)


async def new_database(kind: str, servers: Servers, mariadb: MariaDb | None, folder: Path) -> str:
    """Returns the URL of a new database of this kind, without tables."""
    name = f"reporting_{next(_NUMBERS)}"
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder}/{name}.sqlite"
    if kind == "postgresql":
        connection = await asyncpg.connect(servers.postgres.superuser_url)
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER daybook")
        finally:
            await connection.close()
        return servers.postgres.url.replace("postgresql://", "postgresql+asyncpg://").removesuffix("daybook") + name
    assert mariadb
    engine = make_engine(mariadb.url, 10)
    async with engine.begin() as session:
        await session.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return mariadb.url_of(name)


async def migrate_reporting(url: str, revision: str = "head") -> None:
    await asyncio.to_thread(command.upgrade, reporting_migrations(url), revision)


async def empty_reporting(store: ReportingStore) -> None:
    """Deletes all rows, as if the database had been made anew."""
    async with store.engine.begin() as connection:
        for table in reversed(METADATA.sorted_tables):
            await connection.execute(delete(table))
