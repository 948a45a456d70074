"""Reset tokens: a user sets a password with one, once. Only the SHA-256 of a token is stored.

A reset token is `dbr_<secret>`, with a secret of 256 bits. A user has at most one; a new one replaces it. It ends when it is
used, after `RESET_SECONDS`, with the key that issued it, and when the user is deactivated or erased. All SQL on the table
`password_resets` is in this file. The functions use the connection in their argument, and never begin or commit a transaction.
"""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import ResetTokenInvalid, Unauthorized
from shared.identity.credential_cache import hash_token
from shared.identity.credential_origin import READ_SECONDS_LEFT, SECONDS_LEFT, Origin

RESET_SECONDS: Final = 3_600
"""The longest time in which a reset token can be used."""
RESET_TOKEN_PATTERN: Final = "^dbr_[A-Za-z0-9_-]{43}$"  # noqa: S105 # the form of a token

_PUT: Final = text("""
    INSERT INTO password_resets (ledger_id, user_id, token_hash, scopes, origin_key_id, expires_at)
    VALUES (:ledger_id, :user_id, :token_hash, :scopes, :origin_key_id, now() + :lifetime)
    ON CONFLICT (ledger_id, user_id) DO UPDATE
    SET token_hash = :token_hash, scopes = :scopes, origin_key_id = :origin_key_id, expires_at = now() + :lifetime
    RETURNING expires_at
""")
_FIND: Final = text(f"""
    SELECT ledger_id, user_id, origin_key_id, scopes FROM password_resets
    WHERE token_hash = :token_hash AND expires_at > now()
      AND {SECONDS_LEFT.format(origin_key_id="password_resets.origin_key_id")} IS NOT NULL
""")  # noqa: S608 # built of constants
_FORGET: Final = text("""
    DELETE FROM password_resets WHERE ledger_id = :ledger_id AND user_id = ANY (CAST(:user_ids AS text[]))
""")


class NewResetToken(msgspec.Struct, frozen=True):
    """A reset token that has just been issued. It is stored nowhere else."""

    token: str
    expires_at: datetime


class PasswordReset(msgspec.Struct, frozen=True):
    """What a reset token is for: the user whose password it sets, and the origin of that password."""

    ledger_id: str
    user_id: str
    origin: Origin


async def issue(connection: AsyncConnection, ledger_id: str, user_id: str, origin: Origin) -> NewResetToken:
    """Issues a reset token for a user, in place of an earlier one.

    Raises:
        Unauthorized: the key that issues the token has ended in the meantime.
    """
    seconds_left = await connection.scalar(READ_SECONDS_LEFT, {"origin_key_id": origin.key_id})
    if seconds_left is None:
        raise Unauthorized
    token = f"dbr_{secrets.token_urlsafe(32)}"
    row = {
        "ledger_id": ledger_id,
        "user_id": user_id,
        "token_hash": hash_token(token),
        "scopes": list(origin.scopes),
        "origin_key_id": origin.key_id,
        "lifetime": timedelta(seconds=min(RESET_SECONDS, seconds_left)),
    }
    return NewResetToken(token, (await connection.execute(_PUT, row)).scalar_one())


async def find(connection: AsyncConnection, token: str) -> PasswordReset:
    """Returns what a reset token is for.

    Raises:
        ResetTokenInvalid: there is no such token, it was used, or it has ended.
    """
    row = (await connection.execute(_FIND, {"token_hash": hash_token(token)})).one_or_none()
    if row is None:
        raise ResetTokenInvalid
    return PasswordReset(row[0], row[1], Origin(row[2], tuple(row[3])))


async def forget(connection: AsyncConnection, ledger_id: str, user_ids: Iterable[str]) -> None:
    """Deletes the reset tokens of these users."""
    if wanted := sorted(user_ids):
        await connection.execute(_FORGET, {"ledger_id": ledger_id, "user_ids": wanted})
