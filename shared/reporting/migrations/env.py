"""Runs the migrations of SQL reporting on the database of DAYBOOK_REPORTING_URL. With `--sql`, prints them for its dialect."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from shared.reporting.store import VERSION_TABLE, make_engine, reporting_address
from shared.reporting.tables import METADATA

CONNECT_SECONDS = 10.0

url: str = context.config.attributes["url"]


def migrate_offline() -> None:
    address, _ = reporting_address(url, CONNECT_SECONDS)
    context.configure(
        dialect_name=address.get_backend_name(), target_metadata=METADATA, literal_binds=True, version_table=VERSION_TABLE
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        compare_type=True,
        compare_server_default=True,
        version_table=VERSION_TABLE,
        on_version_apply=context.config.attributes.get("on_version_apply"),  # `daybook migrate` prints each migration
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    engine = make_engine(url, CONNECT_SECONDS)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    migrate_offline()
else:
    asyncio.run(migrate_online())
