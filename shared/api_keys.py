"""API keys: made and ended by an administrator, recognised by the APIs.

A key is `dbk_<key id>_<secret>` with a secret of 256 bits; it is shown once, and the database has its SHA-256. A secret of that
size needs no slow hash: nobody guesses it. Whatever is wrong with a credential, the answer is the same.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.access import Principal
from shared.connections import STORE_ERRORS
from shared.errors import KeyRefused, Unauthorized

KNOWN_SECONDS: Final = 5.0
"""A key that was revoked is taken for so long at most."""
KNOWN_MAX: Final = 10_000
AUTHORIZATION_MAX: Final = 200

_KEY_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_KEY_ID_LENGTH: Final = 10
_AUTHORIZATION: Final = re.compile(rf"[Bb]earer (dbk_([a-z2-7]{{{_KEY_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}})")
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


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    until: float


class KeyRing:
    """Recognises callers. What was found is remembered for seconds, by the SHA-256 of the token: the way of a request that comes
    again is a hash and a dictionary. Only valid tokens are remembered, so nobody can fill the memory.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[bytes, _Known] = {}
        self._looking: dict[bytes, asyncio.Task[Principal]] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def principal(self, authorization: Sequence[str]) -> Principal:
        """Who sends these `Authorization` headers; there must be one.

        Raises:
            Unauthorized: it is no valid key, for whatever reason.
        """
        if len(authorization) != 1 or len(authorization[0]) > AUTHORIZATION_MAX:
            raise Unauthorized
        credential = _AUTHORIZATION.fullmatch(authorization[0])
        if credential is None:
            raise Unauthorized
        token_hash = hash_token(credential[1])
        known = self._known.get(token_hash)
        if known is not None and time.monotonic() < known.until:
            return known.principal
        return await self._look_once(token_hash, credential[2])

    def has_seen(self, authorization: Sequence[str]) -> bool:
        """Whether these headers were valid when they were looked up last. They may not be any more."""
        credential = _AUTHORIZATION.fullmatch(authorization[0]) if len(authorization) == 1 else None
        return credential is not None and hash_token(credential[1]) in self._known

    async def close(self) -> None:
        await asyncio.gather(*self._noting, *self._looking.values(), return_exceptions=True)

    async def _look_once(self, token_hash: bytes, key_id: str) -> Principal:
        """All who come with one token wait for one look."""
        looking = self._looking.get(token_hash)
        if looking is None:
            looking = self._looking[token_hash] = asyncio.create_task(self._look(token_hash, key_id))
            looking.add_done_callback(lambda done: self._looked(token_hash, done))
        return await asyncio.shield(looking)

    def _looked(self, token_hash: bytes, done: asyncio.Task[Principal]) -> None:
        """A failure counts as seen even when all who waited have gone."""
        del self._looking[token_hash]
        if not done.cancelled():
            done.exception()

    async def _look(self, token_hash: bytes, key_id: str) -> Principal:
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND, {"key_id": key_id})).one_or_none()
        # Compared also where there is no such key, so that both take as long.
        matches = hmac.compare_digest(token_hash, row[4] if row else b"\0" * 32)
        if row is None or not matches:
            self._known.pop(token_hash, None)
            raise Unauthorized
        principal = Principal(row[0], key_id, row[1], row[2], frozenset(row[3]))
        self._remember(token_hash, principal, KNOWN_SECONDS if row[5] is None else min(KNOWN_SECONDS, row[5]))
        if row[6]:
            noting = asyncio.create_task(self._note_use(key_id))
            self._noting.add(noting)
            noting.add_done_callback(self._noting.discard)
        return principal

    def _remember(self, token_hash: bytes, principal: Principal, seconds: float) -> None:
        self._known.pop(token_hash, None)
        self._known[token_hash] = _Known(principal, time.monotonic() + seconds)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    async def _note_use(self, key_id: str) -> None:
        """Beside the request and never in its way; a note that is lost is made a few seconds later."""
        with suppress(*STORE_ERRORS):
            async with self._engine.begin() as connection:
                await connection.execute(NOTE_USE, {"key_id": key_id})


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


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
