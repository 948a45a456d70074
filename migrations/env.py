"""Runs the migrations as the owner of the database, one process at a time. With `--sql`, prints them instead.

A statement that waits for the lock of a table makes all later statements on that table wait behind it. So a migration waits for
less time than a command does, gives up, lets the others go on, and tries again.

All migrations are one transaction, unless one makes an index of a table that exists: `shared.stores.concurrent_index` commits
what came before it.
"""

import asyncio
import os
import sys

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import SettingsInvalid
from shared.log.tables import metadata
from shared.stores.concurrent_index import LOCK_WAIT
from shared.stores.postgres import postgres_address
from shared.stores.store_errors import reading_url

MIGRATION_LOCK = 0x6461_7962_6F6F_6B  # "daybook"
LOCK_TRIES = 120
LOCK_PAUSE_SECONDS = 0.5
LOCK_NOT_AVAILABLE = "55P03"


def owner_url() -> str:
    url = os.environ.get("DAYBOOK_MIGRATION_DATABASE_URL") or os.environ.get("DAYBOOK_DATABASE_URL")
    if not url:
        raise SettingsInvalid(["DAYBOOK_DATABASE_URL: field required"])
    return url


def migrate_offline() -> None:
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def try_lock(connection: Connection) -> bool:
    """Takes the lock of the migrations for this session, or returns False if another session has it.

    A session that waited for the lock in PostgreSQL would have a snapshot, and whoever makes an index concurrently waits for the
    end of all snapshots: the two would wait for each other.
    """
    connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT}'"))
    # If this process is killed while it makes an index, PostgreSQL must notice, or it keeps the lock until the index is made.
    connection.execute(text("SET client_connection_check_interval = '1s'"))
    has_lock = bool(connection.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")))
    connection.commit()
    return has_lock


def migrate(connection: Connection) -> None:
    """Runs the migrations. The connection must have the lock."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        on_version_apply=context.config.attributes.get("on_version_apply"),  # `daybook migrate` prints each migration
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    """Runs the migrations. If two processes migrate at once, the second waits for the first, and then has nothing to do."""
    with reading_url("DAYBOOK_DATABASE_URL, or DAYBOOK_MIGRATION_DATABASE_URL"):
        url, tls = postgres_address(owner_url())
    engine = create_async_engine(url, poolclass=NullPool, connect_args=tls)
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            async with engine.connect() as connection:
                while not await connection.run_sync(try_lock):  # noqa: ASYNC110 # another process has it
                    await asyncio.sleep(LOCK_PAUSE_SECONDS)
                await connection.run_sync(migrate)
            break
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or not tries_left:
                raise
        sys.stderr.write("another session holds a lock that the migrations need: trying again\n")
        await asyncio.sleep(LOCK_PAUSE_SECONDS)
    await engine.dispose()


if context.is_offline_mode():
    migrate_offline()
else:
    asyncio.run(migrate_online())
