"""The API key of a development stack: made once for its database, with all scopes, and kept in its folder."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dev.servers import write_private
from shared.access import SCOPES
from shared.api_keys import ApiKeys, list_keys, make_key, rotate_key
from shared.connections import open_postgres
from shared.errors import Unauthorized
from shared.settings import Settings

NAME: Final = "development"


async def development_key(folder: Path, environment: Mapping[str, str]) -> str:
    """The configured one; else the one that was kept, if this database knows it; else a new one."""
    if configured := os.environ.get("DAYBOOK_API_KEY"):
        return configured
    file = folder / "development.key"
    async with open_postgres(_owners(environment), "daybook_admin") as engine:
        if file.exists() and await _is_valid(engine, file.read_text()):
            return file.read_text()
        async with engine.begin() as connection:
            token = await _new_key(connection)
    write_private(file, token)
    return token


def _owners(environment: Mapping[str, str]) -> Settings:
    return Settings(
        database_url=environment["DAYBOOK_MIGRATION_DATABASE_URL"],
        mongo_url=environment["DAYBOOK_MONGO_URL"],
        redis_url=environment["DAYBOOK_REDIS_URL"],
        secret=environment["DAYBOOK_SECRET"],
        master_keys=environment["DAYBOOK_MASTER_KEYS"],
    )


async def _is_valid(engine: AsyncEngine, token: str) -> bool:
    keys = ApiKeys(engine)
    try:
        await keys.look(token)
    except Unauthorized:
        return False
    finally:
        await keys.close()
    return True


async def _new_key(connection: AsyncConnection) -> str:
    """The database may know an older one, whose token was lost with the folder."""
    lost = [key for key in await list_keys(connection) if (key.principal, key.ledger_id, key.revoked_at) == (NAME, "main", None)]
    if lost:
        return await rotate_key(connection, lost[-1].key_id, timedelta())
    return await make_key(connection, NAME, SCOPES)
