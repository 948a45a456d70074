"""Provides the API key of a development stack. The key has all scopes. It is made once and kept in the stack's folder."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import Unauthorized
from shared.identity.access import SCOPES
from shared.identity.api_keys import ApiKeys, list_keys, make_key, rotate_key
from shared.identity.audit_records import ActCaller
from shared.login_name import login_name
from shared.private_files import write_private
from shared.settings import Settings, read_settings
from shared.stores.postgres import open_postgres

NAME: Final = "development"


async def development_key(folder: Path, environment: Mapping[str, str]) -> str:
    """Returns the first of these keys: DAYBOOK_API_KEY, the key in the folder if PostgreSQL knows it, or a new key."""
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
    return read_settings(
        database_url=environment["DAYBOOK_MIGRATION_DATABASE_URL"],
        mongo_url=environment["DAYBOOK_MONGO_URL"],
        redis_url=environment["DAYBOOK_REDIS_URL"],
        secret=environment["DAYBOOK_SECRET"],
        master_keys=environment["DAYBOOK_MASTER_KEYS"],
    )


async def _is_valid(engine: AsyncEngine, token: str) -> bool:
    keys = ApiKeys(engine)
    try:
        await keys.verify(token)
    except Unauthorized:
        return False
    finally:
        await keys.close()
    return True


async def _new_key(connection: AsyncConnection) -> str:
    """Returns a new key. If PostgreSQL has a development key whose token was lost with the folder, this key is rotated."""
    caller = ActCaller.operator(login_name())
    lost = [key for key in await list_keys(connection) if (key.principal, key.ledger_id, key.revoked_at) == (NAME, "main", None)]
    if lost:
        return await rotate_key(connection, lost[-1].key_id, timedelta(), caller)
    return await make_key(connection, NAME, SCOPES, caller=caller)
