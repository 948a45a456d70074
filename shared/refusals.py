"""Who was refused: attempts that failed for want of a credential, a right or permits, for an auditor to look at.

Kept in Redis, the last `refusals_max` of them and none for longer than `refusals_days`. Nothing of what was sent is kept: no
body, no query, no header but the public part of a key, and of a path only what our routes and ids consist of. Recording is beside
the request: it never waits, and what cannot be kept is dropped and counted. Attempts that are alike are one entry for each
second, with their number, so that a flood of them does not wash away the others.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from shared.connections import STORE_ERRORS
from shared.settings import Settings

log = structlog.get_logger()

STREAM: Final = "daybook:refusals"
CODES: Final[Mapping[int, str]] = {401: "unauthorized", 403: "forbidden", 404: "not-found", 429: "rate-limited"}
SEND_SECONDS: Final = 1.0
WAITING_MAX: Final = 1_000
TRIM_SECONDS: Final = 3_600
DAY_MILLISECONDS: Final = 86_400_000
CHUNK: Final = 1_000

_ID: Final = re.compile(r"(?:[a-z]+-)?[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}|[0-9]{1,16}")
_SHOWN_OF_KEY: Final = re.compile(r"[Bb]earer dbk_([a-z2-7]{10})_")
_HIDDEN: Final = "*"


class Attempt(msgspec.Struct, frozen=True):
    """What was tried, and by whom as far as that is known. The fields are those of an entry."""

    code: str
    api: str
    method: str
    path: str
    address: str
    principal: str
    key_id: str
    ledger_id: str


class Refusal(msgspec.Struct, frozen=True):
    """An entry: an attempt, how often it was made within a second, and the id of the first request."""

    entry_id: str
    attempt: Attempt
    request_id: str
    count: int

    @property
    def milliseconds(self) -> int:
        """When, since 1970."""
        return int(self.entry_id.partition("-")[0])


class Refusals:
    """Takes note of refused attempts on one API."""

    def __init__(self, redis: "Redis", settings: Settings, api: str, paths: Iterable[str]) -> None:
        """`api` is its name; `paths` are those of its routes."""
        self._redis = redis
        self._max = settings.refusals_max
        self._days = settings.refusals_days
        self._api = api
        self._words = {part for path in paths for part in path.split("/") if "{" not in part}
        self._waiting: dict[Attempt, tuple[str, int]] = {}
        self._closed = False
        self._sending = asyncio.create_task(self._send_now_and_then())
        self.recorded = 0
        self.dropped = 0

    def note(self, scope: Mapping[str, Any], status: int) -> None:
        """Takes note of a request that is answered with this status, if that is a refusal. Never waits, never raises."""
        if not self._is_refusal(scope, status):
            return
        attempt = self._attempt(scope, CODES[status])
        request_id, count = self._waiting.get(attempt, (scope["state"]["request_id"], 0))
        if not count and len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        self._waiting[attempt] = (request_id, count + 1)

    async def close(self) -> None:
        self._closed = True
        self._sending.cancel()
        await asyncio.wait([self._sending], timeout=SEND_SECONDS)
        await self._send()

    def _is_refusal(self, scope: Mapping[str, Any], status: int) -> bool:
        """What is not found is one only for who may not see everything: a customer, or who asks for another ledger."""
        principal = scope["state"].get("principal")
        if status != 404 or principal is None:  # noqa: PLR2004 # not found
            return status != 404  # noqa: PLR2004 # a path that nobody has
        asked = [value for name, value in scope["headers"] if name == b"daybook-ledger"]
        return principal.user_id is not None or (bool(asked) and asked[0] != principal.ledger_id.encode())

    def _attempt(self, scope: Mapping[str, Any], code: str) -> Attempt:
        state = scope["state"]
        principal = state.get("principal")
        return Attempt(
            code=code,
            api=self._api,
            method=scope["method"][:10],
            path=self._shown(scope["path"]),
            address=state.get("address", ""),
            principal=principal.principal if principal else "",
            key_id=principal.key_id if principal else _claimed_key(scope["headers"]),
            ledger_id=principal.ledger_id if principal else "",
        )

    def _shown(self, path: str) -> str:
        """Somebody's name, or a secret in the wrong place, is hidden."""
        parts = path.split("/")[:10]
        return "/".join(part if part in self._words or _ID.fullmatch(part) else _HIDDEN for part in parts)

    async def _send_now_and_then(self) -> None:
        trimmed = 0.0
        while not self._closed:
            await asyncio.sleep(SEND_SECONDS)
            await self._send()
            if time.monotonic() - trimmed > TRIM_SECONDS:
                trimmed = time.monotonic()
                await self._forget_old()

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                for attempt, (request_id, count) in waiting.items():
                    fields: dict[Any, Any] = {**msgspec.structs.asdict(attempt), "request_id": request_id, "count": count}
                    pipeline.xadd(STREAM, fields, maxlen=self._max, approximate=True)
                await pipeline.execute()
            self.recorded += sum(count for _, count in waiting.values())
        except STORE_ERRORS as error:
            self.dropped += sum(count for _, count in waiting.values())
            log.warning("refused attempts not recorded", attempts=len(waiting), error=type(error).__name__)

    async def _forget_old(self) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._redis.xtrim(STREAM, minid=str(_oldest(self._days)), approximate=False)
        except STORE_ERRORS as error:
            log.warning("old refusals not removed", error=type(error).__name__)


def _oldest(days: int) -> int:
    return max(0, int(time.time() * 1000) - days * DAY_MILLISECONDS)


def _claimed_key(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id in a credential that is not valid: whose key that was, or who pretends to have it. It is no secret."""
    for name, value in headers:
        if name == b"authorization" and (shown := _SHOWN_OF_KEY.match(value[:200].decode("latin-1"))):
            return shown[1]
    return ""


async def read_refusals(redis: "Redis", settings: Settings, ledger_id: str, before: str | None, limit: int) -> list[Refusal]:
    """Those on this ledger and those of nobody known, the newest first, before an entry."""
    found: list[Refusal] = []
    end = "+" if before is None else f"({before}"
    while len(found) < limit:
        entries = await redis.xrevrange(STREAM, max=end, min=str(_oldest(settings.refusals_days)), count=CHUNK)
        found += [_refusal(*entry) for entry in entries if entry[1]["ledger_id"] in {"", ledger_id}]
        if len(entries) < CHUNK:
            break
        end = f"({entries[-1][0]}"
    return found[:limit]


def _refusal(entry_id: str, fields: dict[str, str]) -> Refusal:
    attempt = Attempt(**{name: fields[name] for name in Attempt.__struct_fields__})
    return Refusal(entry_id, attempt, fields["request_id"], int(fields["count"]))
