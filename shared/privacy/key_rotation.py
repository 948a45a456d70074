"""Rotates the master key: wraps all person keys with the newest master key. Only the owner of the tables has this permission."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.privacy.person_keys import PersonKeys

KEYS_PER_TRANSACTION_MAX: Final = 1_000


async def rotate_master_keys(owner: AsyncEngine, person_keys: PersonKeys, advance: Callable[[int], object]) -> int:
    """Wraps all person keys of older master keys with the newest one, and returns their number.

    Calls `advance` after each transaction with the number of keys in it. If the rotation is interrupted, the next call continues
    with the remaining keys. At the end, the table is rewritten, so that its file contains no old copies of keys.
    """
    rewrapped = 0
    while count := await _rewrap_some(owner, person_keys):
        rewrapped += count
        advance(count)
    async with owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("VACUUM (FULL) person_keys"))
    return rewrapped


async def _rewrap_some(owner: AsyncEngine, person_keys: PersonKeys) -> int:
    async with owner.begin() as connection:
        return await person_keys.rewrap(connection, KEYS_PER_TRANSACTION_MAX)
