"""The revision of PostgreSQL's schema that this code needs, and the check that each process makes when it starts."""

import asyncio
import time
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SchemaMismatch
from shared.stores.store_errors import requiring_answer

SCHEMA_REVISION: Final = "0013"
"""The schema revision that this code was written for. A test compares it with the newest migration."""


async def require_schema(engine: AsyncEngine, wait_seconds: int) -> None:
    """Waits until the schema has the revision `SCHEMA_REVISION`, for at most `wait_seconds`.

    Raises:
        SchemaMismatch: after this time, the schema is missing, or older or newer than this code.
        StoreUnavailable: PostgreSQL does not answer.
    """
    end = time.monotonic() + wait_seconds
    with requiring_answer("PostgreSQL"):
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
        # Before the migrations, neither the table nor this process's role exists.
        if getattr(error.orig, "sqlstate", None) in {"42P01", "42704", "22023", "42501"}:
            return None
        raise
