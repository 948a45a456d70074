"""Sessions of users who have logged in. Redis stores them, with only the SHA-256 of each token.

A session ends when it is not used for too long, and after a maximum time even if it is used. Both times are measured by the clock
of Redis. A session is valid only while its user is active and has the same password as at the beginning of the session, and
while the key lasts that the password comes from (`shared.identity.credential_origin`). It has the scopes that the password gives.
All of that is in PostgreSQL. So a new password, a deactivation, an erasure or the revocation of that key ends the sessions, even
if Redis loses the command that deletes them.

The time of last use has its own Redis key, which expires when the session is not used for too long. So a process that verifies
sessions only needs the rights to read from Redis and to set text values. It does not need the right to change hashes, in which
balances are stored. In a cluster, the keys of a session are on one server, and the list of a user's sessions may be on another.

If Redis does not answer, a request with a session gets `StoreUnavailable` within a bounded time. It is never admitted.
"""

import asyncio
import hmac
import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import StoreUnavailable
from shared.identity import passwords
from shared.identity.access import Principal
from shared.identity.credential_cache import CredentialDenied, VerifiedCredential, hash_token
from shared.identity.passwords import PasswordVersion
from shared.identity.user_status import read_user_status
from shared.settings import Settings
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

SESSIONS_MAX: Final = 20
"""How many sessions a user can have at the same time. One more ends the oldest."""

_TOKEN: Final = re.compile(r"dbs_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")

# KEYS: the session, its last use. ARGV: the longest time without use in ms, the longest duration in ms, then the fields of the
# session with their values. Returns when the session begins and when it ends at the latest, in ms since 1970.
_BEGIN: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends = now + ARGV[2]
redis.call('HSET', KEYS[1], 'created_at', now, 'ends_at', ends, unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], now, 'PX', math.min(ARGV[1], ARGV[2]))
return {tostring(now), tostring(ends)}
"""
# KEYS: the list of the user's sessions. ARGV: the session id, the longest duration in ms.
_LIST: Final = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000000 + t[2], ARGV[1])  -- in microseconds, so that no two sessions are equally old
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


class Session(msgspec.Struct, frozen=True):
    """A session with the fields that its user may see.

    It ends at `expires_at` if it is not used before then, and at `ends_at` even if it is used.
    """

    id: str
    network: str
    origin_key_id: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ends_at: datetime


class NewSession(msgspec.Struct, frozen=True):
    """A session that has just begun. Its token is stored nowhere else."""

    token: str
    session_id: str
    expires_at: datetime
    ends_at: datetime


class Sessions:
    """Begins and ends sessions, and verifies their tokens."""

    def __init__(self, engine: AsyncEngine, redis: "Redis", settings: Settings) -> None:
        self._engine = engine
        self._redis = redis
        self._seconds = settings.redis_timeout_ms / 1000
        self._idle_ms = settings.session_idle_seconds * 1000
        self._most_ms = settings.session_max_seconds * 1000
        self._begin = redis.register_script(_BEGIN)
        self._list = redis.register_script(_LIST)

    # ── verifying ────────────────────────────────────────────────────────────────────────────────────────────────────

    def matches(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def verify(self, token: str) -> VerifiedCredential:
        """Returns the principal of a session's token. This counts as a use of the session, so it postpones `expires_at`.

        Raises:
            CredentialDenied: the session does not exist or has ended, or its user's status or password has changed.
            StoreUnavailable: Redis does not answer.
        """
        session_id = str(uuid.UUID(token.split("_", 2)[1]))
        fields, (seconds, microseconds) = await self._together(("HGETALL", _key(session_id)), ("TIME",))
        if not hmac.compare_digest(hash_token(token).hex(), fields.get("token_hash", "")):
            raise CredentialDenied(ledger_id=fields.get("ledger_id", ""))
        ledger_id, user_id = fields["ledger_id"], fields["user_id"]
        principal = Principal(f"user:{user_id}", session_id, ledger_id, user_id, frozenset())
        async with self._engine.connect() as connection:
            password = await passwords.read_version(connection, ledger_id, user_id)
            if password is None or password.id != fields["password_version"]:
                raise CredentialDenied(principal)
            if await read_user_status(connection, ledger_id, user_id) != "active":
                raise CredentialDenied(principal)
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        left_ms = min(self._idle_ms, int(fields["ends_at"]) - now_ms)
        # Set only if the key still exists, so that a session that has ended does not begin again.
        if left_ms <= 0 or not await self._bounded(self._redis.set(_used(session_id), now_ms, px=left_ms, xx=True)):
            raise CredentialDenied(principal)
        principal = msgspec.structs.replace(principal, scopes=frozenset(password.origin.scopes))
        return VerifiedCredential(principal, min(left_ms / 1000, password.seconds_left))

    async def close(self) -> None:
        """Does nothing, because this object holds no connections."""

    # ── beginning and ending ─────────────────────────────────────────────────────────────────────────────────────────

    async def begin(
        self, ledger_id: str, user_id: str, password: PasswordVersion, network: str, session_id: str | None = None
    ) -> NewSession:
        """Begins a session, which ends with the origin of the password at the latest. End those `beyond_limit` afterwards.

        `session_id` comes from `new_session_id`. Without it, this method makes one.
        """
        session_id = session_id or new_session_id()
        token = f"dbs_{uuid.UUID(session_id).hex}_{secrets.token_urlsafe(32)}"
        fields = {
            "token_hash": hash_token(token).hex(),
            "ledger_id": ledger_id,
            "user_id": user_id,
            "password_version": password.id,
            "network": network,
            "origin_key_id": password.origin.key_id,
        }
        flat = [part for field in fields.items() for part in field]
        index = _index(ledger_id, user_id)
        most_ms = int(min(self._most_ms, max(1, password.seconds_left * 1000)))
        # If only one of the two is done, nobody has the token, and a list may name sessions that do not exist.
        beginning = self._begin([_key(session_id), _used(session_id)], [self._idle_ms, most_ms, *flat])
        (now, ends), _ = await self._bounded(asyncio.gather(beginning, self._list([index], [session_id, most_ms])))
        expires = min(int(now) + self._idle_ms, int(ends))
        return NewSession(token, session_id, _moment(expires), _moment(int(ends)))

    async def beyond_limit(self, ledger_id: str, user_id: str) -> list[str]:
        """Returns the ids of the oldest sessions of the user that are more than `SESSIONS_MAX`."""
        ids: list[str] = await self._bounded(self._redis.zrange(_index(ledger_id, user_id), 0, -SESSIONS_MAX - 1))
        return ids

    async def all_of(self, ledger_id: str, user_id: str) -> list[Session]:
        """Returns the sessions of the user that have not ended, newest first."""
        ids = await self._bounded(self._redis.zrevrange(_index(ledger_id, user_id), 0, -1))
        asked = [command for each in ids for command in (("HGETALL", _key(each)), ("GET", _used(each)))]
        found = await self._together(*asked)
        those = zip(ids, found[::2], found[1::2], strict=True)
        return [self._session(session_id, fields, int(used)) for session_id, fields, used in those if fields and used]

    async def end(self, ledger_id: str, user_id: str, session_id: str) -> None:
        """Ends a session. Does nothing if it has ended already or belongs to another user."""
        owners = await self._bounded(self._redis.hmget(_key(session_id), ["ledger_id", "user_id"]))
        if owners == [ledger_id, user_id]:
            await self._bounded(self._redis.delete(_key(session_id), _used(session_id)))
        if owners in ([ledger_id, user_id], [None, None]):
            await self._bounded(self._redis.zrem(_index(ledger_id, user_id), session_id))

    async def end_all(self, ledger_id: str, user_id: str) -> None:
        index = _index(ledger_id, user_id)
        ids = await self._bounded(self._redis.zrange(index, 0, -1))
        await self._bounded(self._redis.delete(index, *map(_key, ids), *map(_used, ids)))

    def _session(self, session_id: str, fields: Mapping[str, str], used: int) -> Session:
        created, ends = int(fields["created_at"]), int(fields["ends_at"])
        moments = map(_moment, (created, used, min(used + self._idle_ms, ends), ends))
        return Session(session_id, fields["network"], fields["origin_key_id"], *moments)

    async def _together(self, *asked: tuple[str, ...]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in asked:
            pipeline.execute_command(*command)
        answers: list[Any] = await self._bounded(pipeline.execute())
        return answers

    async def _bounded(self, asking: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds):
                return await asking
        except POSTGRES_AND_REDIS_ERRORS as error:
            raise StoreUnavailable from error


def new_session_id() -> str:
    return str(uuid.uuid4())


def _key(session_id: str) -> str:
    return f"daybook:session:{{{session_id}}}"


def _used(session_id: str) -> str:
    return f"{_key(session_id)}:used"


def _index(ledger_id: str, user_id: str) -> str:
    return f"daybook:sessions:{ledger_id}:{user_id}"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
