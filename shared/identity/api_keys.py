"""API keys: an operator makes, rotates and revokes them, and the APIs verify them.

The command API can revoke and rotate keys for a caller with a key that has all their scopes. A key that is made so has that key
as its **origin**: it ends with the origin at the latest, and is revoked with it.

The token of a key is `dbk_<key id>_<secret>`, with a secret of 256 bits. The token is shown only once, and PostgreSQL stores its
SHA-256. A secret of this size cannot be guessed, so a fast hash is safe.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import ApiKeyError
from shared.identity.access import ALL_LEDGERS, SCOPES_FOR_ALL_LEDGERS, Principal
from shared.identity.audit_records import ActCaller, record_everywhere
from shared.identity.credential_cache import CredentialDenied, VerifiedCredential, hash_token
from shared.identity.user_status import read_user_status
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

_KEY_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_KEY_ID_LENGTH: Final = 10
_TOKEN: Final = re.compile(rf"dbk_([a-z2-7]{{{_KEY_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")
_PRINCIPAL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

# ── verifying keys ───────────────────────────────────────────────────────────────────────────────────────────────────

FIND: Final = text("""
    SELECT principal, ledger_id, user_id, scopes, token_hash, extract(epoch FROM expires_at - now())::float8,
           last_used_at IS NULL OR last_used_at < now() - interval '1 minute',
           revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    FROM api_keys
    WHERE key_id = :key_id
""")
NOTE_USE: Final = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE key_id = :key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")


class ApiKeys:
    """Verifies API keys against the table in PostgreSQL, and notes when each key was last used."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._noting: set[asyncio.Task[None]] = set()

    def matches(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def verify(self, token: str) -> VerifiedCredential:
        """Returns the principal of an API key.

        Raises:
            CredentialDenied: there is no such key, its secret is wrong, it has expired or was revoked, or its user is not active.
        """
        key_id = key_id_of(token)
        async with self._engine.connect() as connection:
            row = (await connection.execute(FIND, {"key_id": key_id})).one_or_none()
            # Also compares a hash if there is no such key, so that both cases take the same time.
            matches = hmac.compare_digest(hash_token(token), row[4] if row else b"\0" * 32)
            if row is None or not matches:
                raise CredentialDenied(ledger_id=row[1] if row else "")
            principal = Principal(row[0], key_id, row[1], row[2], frozenset(row[3]))
            if not row[7] or (row[2] is not None and await read_user_status(connection, row[1], row[2]) != "active"):
                raise CredentialDenied(principal)
        if row[6]:
            noting = asyncio.create_task(self._note_use(key_id))
            self._noting.add(noting)
            noting.add_done_callback(self._noting.discard)
        return VerifiedCredential(principal) if row[5] is None else VerifiedCredential(principal, row[5])

    async def close(self) -> None:
        await asyncio.gather(*self._noting, return_exceptions=True)

    async def _note_use(self, key_id: str) -> None:
        """Stores the time of a key's last use, without delaying the request. If this fails, the next verification tries again."""
        with suppress(*POSTGRES_AND_REDIS_ERRORS):
            async with self._engine.begin() as connection:
                await connection.execute(NOTE_USE, {"key_id": key_id})


# ── making and revoking keys ─────────────────────────────────────────────────────────────────────────────────────────


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as PostgreSQL stores it, without the hash of its token."""

    key_id: str
    ledger_id: str
    principal: str
    user_id: str | None
    scopes: list[str]
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    origin_key_id: str | None
    """The key with which this one was made over HTTP."""


class RotatedKey(msgspec.Struct, frozen=True):
    """A key that was made to replace another one. Its token is stored nowhere. The old key is valid until `old_expires_at`."""

    token: str
    expires_at: datetime | None
    old_expires_at: datetime


KeyStatus = Literal["valid", "expired", "revoked"]

INSERT: Final = text("""
    INSERT INTO api_keys (key_id, ledger_id, principal, user_id, scopes, token_hash, expires_at, created_at)
    VALUES (:key_id, :ledger_id, :principal, :user_id, :scopes, :token_hash, now() + :lifetime, now())
""")
LIST: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at, origin_key_id
    FROM api_keys ORDER BY ledger_id, principal, created_at
""")
READ: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at, origin_key_id,
           CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'valid' END
    FROM api_keys
    WHERE ledger_id = :ledger_id AND (created_at, key_id) < (:created_at, :key_id)
    ORDER BY created_at DESC, key_id DESC LIMIT :count
""")
GET: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at, origin_key_id
    FROM api_keys WHERE key_id = :key_id AND revoked_at IS NULL FOR UPDATE
""")
FIND_IN_LEDGER: Final = text("""
    SELECT key_id, ledger_id, principal, user_id, scopes, expires_at, created_at, last_used_at, revoked_at, origin_key_id
    FROM api_keys WHERE ledger_id = :ledger_id AND key_id = :key_id
""")
# A key that is being made must be seen by a revocation of its origin, so one waits for the other.
LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('daybook ends of keys', 0))")
REVOKE: Final = text("""
    SELECT key_id, ledger_id FROM revoke_api_key(:key_id) AS ended (key_id) JOIN api_keys USING (key_id)
    ORDER BY key_id = :key_id DESC, created_at, key_id
""")
ROTATE: Final = text("SELECT rotate_api_key(:key_id, :origin_key_id, :new_key_id, :token_hash, :overlap)")
EXPIRE: Final = text("""
    UPDATE api_keys SET expires_at = LEAST(expires_at, now() + :overlap) WHERE key_id = :key_id
""")
NAME_IN_USE: Final = text("""
    SELECT EXISTS (
        SELECT FROM api_keys
        WHERE principal = :principal AND (ledger_id = :ledger_id OR ledger_id = :all_ledgers OR :ledger_id = :all_ledgers)
    )
""")
LEDGER_EXISTS: Final = text("SELECT EXISTS (SELECT FROM log_heads WHERE ledger_id = :ledger_id)")


async def make_key(
    connection: AsyncConnection,
    name: str,
    scopes: Sequence[str],
    *,
    ledger_id: str = "main",
    user_id: str | None = None,
    lifetime: timedelta | None = None,
    caller: ActCaller,
) -> str:
    """Makes an API key and returns its token, which is stored nowhere. `name` becomes the principal of the key.

    This is recorded as an act of `caller`, like the acts of `rotate_key` and `revoke_key`.

    Raises:
        ApiKeyError: the name has the wrong form, another key of the ledger has had it, there is no such ledger, or a key for
            `ALL_LEDGERS` would have a scope that is for one ledger.
    """
    if not _PRINCIPAL.fullmatch(name):
        raise ApiKeyError("the name of a key must be up to 63 lower-case letters, digits, dots, hyphens and underscores")
    await connection.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    if ledger_id == ALL_LEDGERS:
        if user_id is not None or not set(scopes) <= set(SCOPES_FOR_ALL_LEDGERS):
            raise ApiKeyError(f"a key for all ledgers can have no scope but {', '.join(SCOPES_FOR_ALL_LEDGERS)}, and no user")
    elif not await connection.scalar(LEDGER_EXISTS, {"ledger_id": ledger_id}):
        raise ApiKeyError(f"there is no ledger {ledger_id!r}")
    if await connection.scalar(NAME_IN_USE, {"ledger_id": ledger_id, "principal": name, "all_ledgers": ALL_LEDGERS}):
        raise ApiKeyError(
            f"another key of ledger {ledger_id!r} has had the name {name!r}: rotate that key with `daybook keys rotate`, or "
            "choose another name"
        )
    token = await _insert(connection, name, ledger_id, user_id, scopes, lifetime)
    made = {"key_id": key_id_of(token), "principal": name, "user_id": user_id, "scopes": list(scopes)}
    await record_everywhere(connection, ledger_id, "key-made", made | {"lifetime_seconds": _seconds(lifetime)}, caller)
    return token


async def rotate_key(connection: AsyncConnection, key_id: str, overlap: timedelta, caller: ActCaller) -> str:
    """Makes a new key for the principal of an old key, with the same lifetime, and returns its token.

    The old key expires after `overlap`, or earlier if it expires earlier anyway.

    Raises:
        ApiKeyError: there is no such key, or it was revoked.
    """
    row = (await connection.execute(GET, {"key_id": key_id})).one_or_none()
    if row is None:
        raise ApiKeyError(f"there is no key {key_id!r} that is not revoked")
    key = ApiKey(*row)
    await connection.execute(EXPIRE, {"key_id": key_id, "overlap": overlap})
    lifetime = key.expires_at - key.created_at if key.expires_at else None
    token = await _insert(connection, key.principal, key.ledger_id, key.user_id, key.scopes, lifetime)
    rotated = {"key_id": key_id, "new_key_id": key_id_of(token), "overlap_seconds": _seconds(overlap)}
    await record_everywhere(connection, key.ledger_id, "key-rotated", rotated | {"lifetime_seconds": _seconds(lifetime)}, caller)
    return token


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


async def revoke_key(connection: AsyncConnection, key_id: str, caller: ActCaller) -> list[str]:
    """Revokes an API key, and with it all that comes from it: keys, reset tokens, passwords and sessions.

    Returns the ids of the keys that end, with the key itself as the first. Processes that have cached one of them or a session
    accept it for a few seconds more.

    Raises:
        ApiKeyError: there is no such key, or it was revoked.
    """
    await connection.execute(LOCK)
    ended = [tuple(row) for row in await connection.execute(REVOKE, {"key_id": key_id})]
    if not ended:
        raise ApiKeyError(f"there is no key {key_id!r} that is not revoked")
    for ended_id, ledger_id in ended:
        await record_everywhere(connection, ledger_id, "key-revoked", {"key_id": ended_id}, caller)
    return [ended_id for ended_id, _ in ended]


async def rotate_key_with(
    connection: AsyncConnection, key: ApiKey, origin_key_id: str, overlap: timedelta, caller: ActCaller
) -> RotatedKey | None:
    """Makes a new key for the principal of `key`, for a caller with another key, the origin.

    Returns None if one of both keys has ended meanwhile, the origin lacks a scope, or it is a customer's or of another ledger.
    """
    await connection.execute(LOCK)
    token = _new_token()
    new = {"new_key_id": key_id_of(token), "token_hash": hash_token(token)}
    named = {"key_id": key.key_id, "origin_key_id": origin_key_id, "overlap": overlap}
    ends = await connection.scalar(ROTATE, named | new)
    if ends is None:
        return None
    lifetime = ends[0] - await connection.scalar(text("SELECT now()")) if ends[0] else None
    rotated = {"key_id": key.key_id, "new_key_id": key_id_of(token), "overlap_seconds": _seconds(overlap)}
    await record_everywhere(connection, key.ledger_id, "key-rotated", rotated | {"lifetime_seconds": _seconds(lifetime)}, caller)
    return RotatedKey(token, *ends)


async def find_key(connection: AsyncConnection, ledger_id: str, key_id: str) -> ApiKey | None:
    """Returns a key of a ledger, also one that has ended."""
    row = (await connection.execute(FIND_IN_LEDGER, {"ledger_id": ledger_id, "key_id": key_id})).one_or_none()
    return ApiKey(*row) if row else None


async def list_keys(connection: AsyncConnection) -> list[ApiKey]:
    return [ApiKey(*row) for row in await connection.execute(LIST)]


async def read_keys(
    connection: AsyncConnection, ledger_id: str, before: tuple[datetime, str], count: int
) -> list[tuple[ApiKey, KeyStatus]]:
    """Returns keys of a ledger, newest first. `before` is the creation and the id of the key that they follow."""
    parameters = {"ledger_id": ledger_id, "created_at": before[0], "key_id": before[1], "count": count}
    return [(ApiKey(*row[:-1]), row[-1]) for row in await connection.execute(READ, parameters)]


async def _insert(
    connection: AsyncConnection,
    principal: str,
    ledger_id: str,
    user_id: str | None,
    scopes: Sequence[str],
    lifetime: timedelta | None,
) -> str:
    token = _new_token()
    row: dict[str, Any] = {
        "key_id": key_id_of(token),
        "ledger_id": ledger_id,
        "principal": principal,
        "user_id": user_id,
        "scopes": list(scopes),
        "token_hash": hash_token(token),
        "lifetime": lifetime,
    }
    await connection.execute(INSERT, row)
    return token


def _new_token() -> str:
    key_id = "".join(secrets.choice(_KEY_ID_LETTERS) for _ in range(_KEY_ID_LENGTH))
    return f"dbk_{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(token: str) -> str:
    return token.split("_", 2)[1]
