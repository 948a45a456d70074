"""Sessions of users who have logged in: in Redis, found by a token of which Redis has the SHA-256.

A session ends when it was not used for a while, and in the end in any case; Redis's clock decides. It is worth nothing unless
its user is active and has the password that it was begun with, which PostgreSQL says: so a new password, a deactivation and
an erasure end all sessions even where Redis lost the order to end them.

When it was used last is a key beside it, which expires when it has not been used for too long. So to recognise a session takes no
more of Redis than reading, and setting a text: no right to change a hash, which is what balances are.

Redis away: `StoreUnavailable` in bounded time, never a free pass.
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

from shared import passwords
from shared.access import CUSTOMER_SCOPES, Principal
from shared.callers import Found, hash_token
from shared.connections import STORE_ERRORS
from shared.errors import StoreUnavailable, Unauthorized
from shared.settings import Settings
from shared.standing import standing_of

SESSIONS_MAX: Final = 20
"""Of one user; with one more, the oldest ends."""

_TOKEN: Final = re.compile(r"dbs_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")

# KEYS: session, its last use, the user's sessions. ARGV: session id, idle ms, most ms, then the session's fields and values.
# Gives when it began and when it ends.
_BEGIN: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends = now + ARGV[3]
redis.call('HSET', KEYS[1], 'created_at', now, 'ends_at', ends, unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], now, 'PX', math.min(ARGV[2], ARGV[3]))
redis.call('ZADD', KEYS[3], t[1] * 1000000 + t[2], ARGV[1])  -- so that no two begin at once
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return {tostring(now), tostring(ends)}
"""


class Session(msgspec.Struct, frozen=True):
    """One of a user's, as the user may see it. `expires_at` is when it ends if it is not used, `ends_at` when in any case."""

    id: str
    network: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ends_at: datetime


class Begun(msgspec.Struct, frozen=True):
    """A new session. The token is nowhere else."""

    token: str
    session_id: str
    expires_at: datetime
    ends_at: datetime


class Sessions:
    """One kind of `shared.callers.Credentials`, and what begins and ends them."""

    def __init__(self, engine: AsyncEngine, redis: "Redis", settings: Settings) -> None:
        self._engine = engine
        self._redis = redis
        self._seconds = settings.redis_timeout_ms / 1000
        self._idle_ms = settings.session_idle_seconds * 1000
        self._most_ms = settings.session_max_seconds * 1000
        self._begin = redis.register_script(_BEGIN)

    # ── recognising ──────────────────────────────────────────────────────────────────────────────────────────────────

    def recognises(self, token: str) -> bool:
        return _TOKEN.fullmatch(token) is not None

    async def look(self, token: str) -> Found:
        """A look counts as use, and so moves the session's expiry."""
        session_id = str(uuid.UUID(token.split("_", 2)[1]))
        fields, (seconds, microseconds) = await self._together(("HGETALL", _key(session_id)), ("TIME",))
        if not hmac.compare_digest(hash_token(token).hex(), fields.get("token_hash", "")):
            raise Unauthorized
        ledger_id, user_id = fields["ledger_id"], fields["user_id"]
        async with self._engine.connect() as connection:
            if await passwords.read_version(connection, ledger_id, user_id) != fields["password_version"]:
                raise Unauthorized
            if await standing_of(connection, ledger_id, user_id) != "active":
                raise Unauthorized
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        left_ms = min(self._idle_ms, int(fields["ends_at"]) - now_ms)
        # Only where it is still there: what has ended does not come back.
        if left_ms <= 0 or not await self._bounded(self._redis.set(_used(session_id), now_ms, px=left_ms, xx=True)):
            raise Unauthorized
        principal = Principal(f"user:{user_id}", session_id, ledger_id, user_id, frozenset(CUSTOMER_SCOPES))
        return Found(principal, left_ms / 1000)

    async def close(self) -> None:
        """Nothing is open."""

    # ── beginning and ending ─────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, ledger_id: str, user_id: str, password_version: str, network: str) -> Begun:
        session_id = str(uuid.uuid4())
        token = f"dbs_{uuid.UUID(session_id).hex}_{secrets.token_urlsafe(32)}"
        fields = {
            "token_hash": hash_token(token).hex(),
            "ledger_id": ledger_id,
            "user_id": user_id,
            "password_version": password_version,
            "network": network,
        }
        flat = [part for field in fields.items() for part in field]
        index = _index(ledger_id, user_id)
        arguments: list[str | int] = [session_id, self._idle_ms, self._most_ms, *flat]
        now, ends = await self._bounded(self._begin([_key(session_id), _used(session_id), index], arguments))
        for oldest in await self._bounded(self._redis.zrange(index, 0, -SESSIONS_MAX - 1)):
            await self.end(ledger_id, user_id, oldest)
        expires = min(int(now) + self._idle_ms, int(ends))
        return Begun(token, session_id, _moment(expires), _moment(int(ends)))

    async def all_of(self, ledger_id: str, user_id: str) -> list[Session]:
        """Those that have not ended, the newest first."""
        ids = await self._bounded(self._redis.zrevrange(_index(ledger_id, user_id), 0, -1))
        asked = [question for each in ids for question in (("HGETALL", _key(each)), ("GET", _used(each)))]
        found = await self._together(*asked)
        those = zip(ids, found[::2], found[1::2], strict=True)
        return [self._session(session_id, fields, int(used)) for session_id, fields, used in those if fields and used]

    async def end(self, ledger_id: str, user_id: str, session_id: str) -> None:
        """Nothing happens where it has ended, or is another user's."""
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
        return Session(session_id, fields["network"], *moments)

    async def _together(self, *asked: tuple[str, ...]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for question in asked:
            pipeline.execute_command(*question)
        answers: list[Any] = await self._bounded(pipeline.execute())
        return answers

    async def _bounded(self, asking: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds):
                return await asking
        except STORE_ERRORS as error:
            raise StoreUnavailable from error


def _key(session_id: str) -> str:
    return f"daybook:session:{session_id}"


def _used(session_id: str) -> str:
    return f"{_key(session_id)}:used"


def _index(ledger_id: str, user_id: str) -> str:
    return f"daybook:sessions:{ledger_id}:{user_id}"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
