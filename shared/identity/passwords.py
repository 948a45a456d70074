"""Reads and writes stored passwords: a slow hash, a version that changes with each new password, and the origin.

A session remembers the password version from its beginning, and ends when the version changes or the origin ends. The transaction
that deactivates or erases a user also deletes the user's row. All SQL on the table `passwords` is in this file. The functions use
the connection in their argument, and never begin or commit a transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.identity.credential_origin import SECONDS_LEFT, Origin
from shared.ids import new_id

_VERSION: Final = f"""
    CAST(version AS text), origin_key_id, scopes, {SECONDS_LEFT.format(origin_key_id="passwords.origin_key_id")}
"""
_READ: Final = text(f"""
    SELECT hash, {_VERSION} FROM passwords WHERE ledger_id = :ledger_id AND user_id = :user_id
""")  # noqa: S608 # built of constants
_READ_VERSION: Final = text(f"""
    SELECT {_VERSION} FROM passwords WHERE ledger_id = :ledger_id AND user_id = :user_id
""")  # noqa: S608 # built of constants
_PUT: Final = text("""
    INSERT INTO passwords (ledger_id, user_id, hash, version, changed_at, scopes, origin_key_id)
    VALUES (:ledger_id, :user_id, :hash, CAST(:version AS uuid), now(), :scopes, :origin_key_id)
    ON CONFLICT (ledger_id, user_id) DO UPDATE
    SET hash = :hash, version = CAST(:version AS uuid), changed_at = now(), scopes = :scopes, origin_key_id = :origin_key_id
""")
_RENEW: Final = text("""
    UPDATE passwords SET hash = :hash
    WHERE ledger_id = :ledger_id AND user_id = :user_id AND version = CAST(:version AS uuid)
""")
_FORGET: Final = text("""
    DELETE FROM passwords WHERE ledger_id = :ledger_id AND user_id = ANY (CAST(:user_ids AS text[]))
""")


class PasswordVersion(msgspec.Struct, frozen=True):
    """A password without its hash. A session that was begun with the password has the scopes of the origin."""

    id: str
    """A unique id that is made each time a password is set."""
    origin: Origin
    seconds_left: float
    """The seconds until the origin ends; infinity if it does not expire."""


class StoredPassword(msgspec.Struct, frozen=True):
    hash: str
    version: PasswordVersion


async def read(connection: AsyncConnection, ledger_id: str, user_id: str) -> StoredPassword | None:
    """Returns the user's password, or None if there is none or its origin has ended."""
    row = (await connection.execute(_READ, {"ledger_id": ledger_id, "user_id": user_id})).one_or_none()
    version = _version(row[1:]) if row else None
    return StoredPassword(row[0], version) if row and version else None


async def read_version(connection: AsyncConnection, ledger_id: str, user_id: str) -> PasswordVersion | None:
    """Returns only the version of the user's password, or None. Also works for a process that may not read the hashes."""
    row = (await connection.execute(_READ_VERSION, {"ledger_id": ledger_id, "user_id": user_id})).one_or_none()
    return _version(row) if row else None


def _version(row: Sequence[Any]) -> PasswordVersion | None:
    version, key_id, scopes, seconds_left = row
    return PasswordVersion(version, Origin(key_id, tuple(scopes)), seconds_left) if seconds_left is not None else None


async def put(connection: AsyncConnection, ledger_id: str, user_id: str, hash_: str, origin: Origin) -> str:
    """Sets a password and returns the id of its version."""
    version = new_id()
    parameters = {"ledger_id": ledger_id, "user_id": user_id, "hash": hash_, "version": version}
    await connection.execute(_PUT, parameters | {"scopes": list(origin.scopes), "origin_key_id": origin.key_id})
    return version


async def renew(connection: AsyncConnection, ledger_id: str, user_id: str, kept: StoredPassword, hash_: str) -> None:
    """Replaces the hash of a password with a hash of the same password that has the current parameters.

    Does nothing if the password was changed in the meantime.
    """
    parameters = {"ledger_id": ledger_id, "user_id": user_id, "hash": hash_, "version": kept.version.id}
    await connection.execute(_RENEW, parameters)


async def forget(connection: AsyncConnection, ledger_id: str, user_ids: Iterable[str]) -> None:
    if wanted := sorted(user_ids):
        await connection.execute(_FORGET, {"ledger_id": ledger_id, "user_ids": wanted})
