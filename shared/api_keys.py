"""API keys: made and ended by an administrator, recognised by the APIs.

A key is `dbk_<key id>_<secret>` with a secret of 256 bits; it is shown once, and the database has its SHA-256. A secret of that
size needs no slow hash: nobody guesses it.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.access import Principal
from shared.callers import Found, hash_token
from shared.connections import STORE_ERRORS
from shared.errors import KeyRefused, Unauthorized
from shared.standing import standing_of

_KEY_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_KEY_ID_LENGTH: Final = 10
_TOKEN: Final = re.compile(rf"dbk_([a-z2-7]{{{_KEY_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")
_PRINCIPAL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

# ── the keys of a caller ─────────────────────────────────────────────────────────────────────────────────────────────

FIND: Final = text("""
    SELECT principal, ledger_id, user_id, scopes, token_hash, extract(epoch FROM expires_at - now())::float8,
           last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
    FROM api_keys
    WHERE key_id = :key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")
NOTE_USE: Final = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE key_id = :key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")


class ApiKeys:
    """One kind of `shared.callers.Credentials`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._noting: set[asyncio.Task[None]] = set()

    def recognises(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def look(self, token: str) -> Found:
        """A customer's key is worth nothing while its user is not active."""
        key_id = key_id_of(token)
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND, {"key_id": key_id})).one_or_none()
            # Compared also where there is no such key, so that both take as long.
            matches = hmac.compare_digest(hash_token(token), row[4] if row else b"\0" * 32)
            if row is None or not matches:
                raise Unauthorized
            if row[2] is not None and await standing_of(connection, row[1], row[2]) != "active":
                raise Unauthorized
        if row[6]:
            noting = asyncio.create_task(self._note_use(key_id))
            self._noting.add(noting)
            noting.add_done_callback(self._noting.discard)
        principal = Principal(row[0], key_id, row[1], row[2], frozenset(row[3]))
        return Found(principal) if row[5] is None else Found(principal, row[5])

    async def close(self) -> None:
        await asyncio.gather(*self._noting, return_exceptions=True)

    async def _note_use(self, key_id: str) -> None:
        """Beside the request and never in its way; a note that is lost is made a few seconds later."""
        with suppress(*STORE_ERRORS):
            async with self._engine.begin() as connection:
                await connection.execute(NOTE_USE, {"key_id": key_id})


# ── making and ending them ───────────────────────────────────────────────────────────────────────────────────────────


class ApiKey(msgspec.Struct, frozen=True):
    """What the database has of a key."""

    key_id: str
    ledger_id: str
    principal: str
    user_id: str | None
    scopes: list[str]
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


INSERT: Final = text("""
    INSERT INTO api_keys (key_id, ledger_id, principal, user_id, scopes, token_hash, expires_at, created_at)
    VALUES (:key_id, :ledger_id, :principal, :user_id, :scopes, :token_hash, now() + :lifetime, now())
""")
LIST: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at
    FROM api_keys ORDER BY ledger_id, principal, created_at
""")
GET: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at
    FROM api_keys WHERE key_id = :key_id AND revoked_at IS NULL FOR UPDATE
""")
REVOKE: Final = text("UPDATE api_keys SET revoked_at = now() WHERE key_id = :key_id AND revoked_at IS NULL")
EXPIRE: Final = text("""
    UPDATE api_keys SET expires_at = LEAST(expires_at, now() + :overlap) WHERE key_id = :key_id
""")
NAME_IN_USE: Final = text("SELECT EXISTS (SELECT FROM api_keys WHERE ledger_id = :ledger_id AND principal = :principal)")
LEDGER_EXISTS: Final = text("SELECT EXISTS (SELECT FROM log_heads WHERE ledger_id = :ledger_id)")


async def make_key(
    connection: AsyncConnection,
    name: str,
    scopes: Sequence[str],
    *,
    ledger_id: str = "main",
    user_id: str | None = None,
    lifetime: timedelta | None = None,
) -> str:
    """The token, which is nowhere else. The name becomes the principal.

    Raises:
        KeyRefused: the name is in use, so that two callers would answer to it; or there is no such ledger.
    """
    if not _PRINCIPAL.fullmatch(name):
        raise KeyRefused("a key's name has up to 63 lower-case letters, digits, dots, hyphens and underscores")
    await connection.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    if not await connection.scalar(LEDGER_EXISTS, {"ledger_id": ledger_id}):
        raise KeyRefused(f"there is no ledger {ledger_id!r}")
    if await connection.scalar(NAME_IN_USE, {"ledger_id": ledger_id, "principal": name}):
        raise KeyRefused(
            f"a key of ledger {ledger_id!r} has had the name {name!r}: `daybook keys rotate`, or choose another name"
        )
    return await _insert(connection, name, ledger_id, user_id, scopes, lifetime)


async def rotate_key(connection: AsyncConnection, key_id: str, overlap: timedelta) -> str:
    """A new token for the same principal, valid for as long as the old one was made for. The old one ends after `overlap`.

    Raises:
        KeyRefused: there is no such key, or it was revoked.
    """
    row = (await connection.execute(GET, {"key_id": key_id})).one_or_none()
    if row is None:
        raise KeyRefused(f"there is no key {key_id!r} that is not revoked")
    key = ApiKey(*row)
    await connection.execute(EXPIRE, {"key_id": key_id, "overlap": overlap})
    lifetime = key.expires_at - key.created_at if key.expires_at else None
    return await _insert(connection, key.principal, key.ledger_id, key.user_id, key.scopes, lifetime)


async def revoke_key(connection: AsyncConnection, key_id: str) -> None:
    """Raises:
    KeyRefused: there is no such key, or it was revoked.
    """
    if not (await connection.execute(REVOKE, {"key_id": key_id})).rowcount:
        raise KeyRefused(f"there is no key {key_id!r} that is not revoked")


async def list_keys(connection: AsyncConnection) -> list[ApiKey]:
    return [ApiKey(*row) for row in await connection.execute(LIST)]


async def _insert(
    connection: AsyncConnection,
    principal: str,
    ledger_id: str,
    user_id: str | None,
    scopes: Sequence[str],
    lifetime: timedelta | None,
) -> str:
    key_id = "".join(secrets.choice(_KEY_ID_LETTERS) for _ in range(_KEY_ID_LENGTH))
    token = f"dbk_{key_id}_{secrets.token_urlsafe(32)}"
    row: dict[str, Any] = {
        "key_id": key_id,
        "ledger_id": ledger_id,
        "principal": principal,
        "user_id": user_id,
        "scopes": list(scopes),
        "token_hash": hash_token(token),
        "lifetime": lifetime,
    }
    await connection.execute(INSERT, row)
    return token


def key_id_of(token: str) -> str:
    return token.split("_", 2)[1]
