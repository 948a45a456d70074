"""What is kept of passwords: a slow hash, and a version by which sessions know whether they were begun with the present one.

The row goes when its user is deactivated or erased, in the transaction that records that. The only SQL on `passwords`. Every
function takes the caller's connection: none of them begins or commits.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.ids import new_id

_READ: Final = text("""
    SELECT hash, CAST(version AS text) FROM passwords WHERE ledger_id = :ledger_id AND user_id = :user_id
""")
_READ_VERSION: Final = text("""
    SELECT CAST(version AS text) FROM passwords WHERE ledger_id = :ledger_id AND user_id = :user_id
""")
_PUT: Final = text("""
    INSERT INTO passwords (ledger_id, user_id, hash, version, changed_at)
    VALUES (:ledger_id, :user_id, :hash, CAST(:version AS uuid), now())
    ON CONFLICT (ledger_id, user_id) DO UPDATE SET hash = :hash, version = CAST(:version AS uuid), changed_at = now()
""")
_RENEW: Final = text("""
    UPDATE passwords SET hash = :hash
    WHERE ledger_id = :ledger_id AND user_id = :user_id AND version = CAST(:version AS uuid)
""")
_FORGET: Final = text("""
    DELETE FROM passwords WHERE ledger_id = :ledger_id AND user_id = ANY (CAST(:user_ids AS text[]))
""")


class KeptPassword(msgspec.Struct, frozen=True):
    hash: str
    version: str
    """Another one with every password that is set, and never the same again."""


async def read(connection: AsyncConnection, ledger_id: str, user_id: str) -> KeptPassword | None:
    row = (await connection.execute(_READ, {"ledger_id": ledger_id, "user_id": user_id})).one_or_none()
    return KeptPassword(*row) if row else None


async def read_version(connection: AsyncConnection, ledger_id: str, user_id: str) -> str | None:
    """Open to those too who may not see hashes."""
    version: str | None = await connection.scalar(_READ_VERSION, {"ledger_id": ledger_id, "user_id": user_id})
    return version


async def put(connection: AsyncConnection, ledger_id: str, user_id: str, hash_: str) -> str:
    """Sets a password; its version."""
    version = new_id()
    await connection.execute(_PUT, {"ledger_id": ledger_id, "user_id": user_id, "hash": hash_, "version": version})
    return version


async def renew(connection: AsyncConnection, ledger_id: str, user_id: str, kept: KeptPassword, hash_: str) -> None:
    """Another hash of the same password, made as hashes are made today."""
    parameters = {"ledger_id": ledger_id, "user_id": user_id, "hash": hash_, "version": kept.version}
    await connection.execute(_RENEW, parameters)


async def forget(connection: AsyncConnection, ledger_id: str, user_ids: Iterable[str]) -> None:
    if wanted := sorted(user_ids):
        await connection.execute(_FORGET, {"ledger_id": ledger_id, "user_ids": wanted})
