"""Records denials for auditors: attempts that had no valid credential, lacked a scope, or exceeded a rate limit.

Redis has two lists: one of callers that Daybook knows, and one of strangers. Each has the last `refusals_max` denials, and none
longer than `refusals_days`. So no stranger can displace what concerns a caller.

A denial contains only three things that the caller sent: the public part of an API key, the name of a ledger, and, if the caller
is known, the ids in the path. The path of a stranger is that of the route, with `*` for what varies. A denial contains no body,
no query and no other header.

Recording never delays a request. Equal attempts within a second become one denial with a count. If attempts of one source or of
one kind come too often, further ones are merged: one denial has their number, and no details. A denial that cannot be stored is
dropped and counted.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from shared.identity.allowances import Allowances
from shared.identity.client_addresses import site_of
from shared.input_types import LEDGER_ID
from shared.settings import Settings
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

OF_CALLERS: Final = "daybook:refusals:callers"
OF_STRANGERS: Final = "daybook:refusals:strangers"
STREAMS: Final = (OF_CALLERS, OF_STRANGERS)
DENIAL_CODES: Final[Mapping[int, str]] = {401: "unauthorized", 403: "forbidden", 404: "not-found", 429: "rate-limited"}
SEND_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 3_600
DAY_MILLISECONDS: Final = 86_400_000
CHUNK: Final = 1_000

SOURCE_ITEMS: Final = 50
"""How many denials with details a source may cause at once. A source is a caller, or the site of a stranger."""
SOURCE_SECONDS: Final = 600.0
"""How long it takes until a source may cause one more."""
SHARE: Final = 50
"""The denials of one ledger's callers, or of one kind from strangers, may at once fill a list to 1 / SHARE."""
SHARE_SECONDS: Final = 60.0
MERGE_SECONDS: Final = 300.0
"""How long merged attempts are counted before they are stored as one denial."""
MERGED_MAX: Final = 1_000
"""Of how many sources attempts are merged at the same time. Those of further sources are merged without their source."""

_ID: Final = re.compile(r"(?:[a-z]+-)?[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}|[0-9]{1,16}")
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
_SHOWN_OF_KEY: Final = re.compile(r"[Bb]earer dbk_([a-z2-7]{10})_")
_HIDDEN: Final = "*"
_DEFAULT_LEDGER: Final = "main"


class DeniedAttempt(msgspec.Struct, frozen=True):
    """An attempt that was denied, and its caller if known. The names of the fields are the storage format in Redis."""

    code: str
    api: str
    method: str
    path: str
    address: str
    principal: str
    key_id: str
    ledger_id: str


class Denial(msgspec.Struct, frozen=True):
    """A stored denial: the attempt, how often it was made, and the id of the first of these requests.

    `entry_id` is its id in the list with the number `stream`.
    """

    entry_id: str
    stream: int
    attempt: DeniedAttempt
    request_id: str
    count: int

    @property
    def milliseconds(self) -> int:
        """The time of the denial, in milliseconds since 1970."""
        return self.order[0]

    @property
    def order(self) -> tuple[int, int, int]:
        """The place of the denial among those of all lists. A newer denial has a higher one."""
        milliseconds, _, number = self.entry_id.partition("-")
        return int(milliseconds), int(number), self.stream


class _CountedAttempts(msgspec.Struct):
    """Attempts that are counted and not yet stored."""

    attempt: DeniedAttempt
    request_id: str
    since: float
    count: int = 0


class _DenialList:
    """The attempts that wait to be stored in one of the lists."""

    def __init__(self, stream: str, items_max: int) -> None:
        self.stream = stream
        self._detailed: dict[DeniedAttempt, _CountedAttempts] = {}
        self._merged: dict[tuple[str, str], _CountedAttempts] = {}
        self._sources = Allowances(SOURCE_ITEMS, SOURCE_SECONDS)
        self._shares = Allowances(max(SOURCE_ITEMS, items_max // SHARE), SHARE_SECONDS)

    def add(self, attempt: DeniedAttempt, source: str, share: str, request_id: str) -> bool:
        """Counts an attempt. Returns False if it was merged with others of its source."""
        now = time.monotonic()
        waiting = self._detailed.get(attempt)
        if waiting is None and self._sources.take(source, now) and self._shares.take(share, now):
            waiting = self._detailed[attempt] = _CountedAttempts(attempt, request_id, now)
        if waiting is not None:
            waiting.count += 1
            return True
        key, without_details = (source, attempt.code), {"method": _HIDDEN, "path": _HIDDEN, "key_id": _HIDDEN}
        if key not in self._merged and len(self._merged) >= MERGED_MAX:
            key, without_details = ("", attempt.code), {**without_details, "address": "", "principal": "", "ledger_id": ""}
        merged = self._merged.get(key)
        if merged is None:
            merged = self._merged[key] = _CountedAttempts(msgspec.structs.replace(attempt, **without_details), request_id, now)
        merged.count += 1
        return False

    def take(self, *, everything: bool) -> list[_CountedAttempts]:
        """Removes and returns what is to be stored now: what has details, and what was merged for long enough."""
        now = time.monotonic()
        due = [key for key, each in self._merged.items() if everything or now - each.since >= MERGE_SECONDS]
        taken = [*self._detailed.values(), *(self._merged.pop(key) for key in due)]
        self._detailed = {}
        return taken


class DenialRecorder:
    """Records the denied attempts on one API."""

    def __init__(self, redis: "Redis", settings: Settings, api: str) -> None:
        """Starts the task that sends denials to Redis. `api` is the name of the API."""
        self._redis = redis
        self._max = settings.refusals_max
        self._days = settings.refusals_days
        self._api = api
        self._of_callers, self._of_strangers = (_DenialList(stream, settings.refusals_max) for stream in STREAMS)
        self._closed = False
        self._sending = keep_running("sender of denials", self._send_now_and_then)
        self.recorded = 0
        self.merged = 0
        self.dropped = 0
        self.displaced = 0

    def record(self, scope: Mapping[str, Any], status: int) -> None:
        """Records a request if its answer with this status is a denial. Never waits and never raises."""
        if not self._is_denial(scope, status):
            return
        attempt, request_id = self._attempt(scope, DENIAL_CODES[status]), scope["state"]["request_id"]
        if attempt.principal:
            detailed = self._of_callers.add(
                attempt, f"{attempt.ledger_id}:{attempt.principal}", share=attempt.ledger_id, request_id=request_id
            )
        else:
            kind = f"{attempt.code} {attempt.method} {attempt.path}"
            detailed = self._of_strangers.add(attempt, site_of(attempt.address), share=kind, request_id=request_id)
        self.merged += not detailed

    async def close(self) -> None:
        self._closed = True
        await end_tasks(self._sending)
        await self._send(everything=True)

    def _is_denial(self, scope: Mapping[str, Any], status: int) -> bool:
        """True if an answer with this status is a denial. Statuses 401, 403 and 429 always are.

        A 404 is a denial only if it may hide something that exists: if the caller is a customer or named another ledger.
        """
        principal = scope["state"].get("principal")
        if status != 404 or principal is None:  # noqa: PLR2004 # not found
            return status != 404  # noqa: PLR2004 # without a known caller, a 404 is about a path that does not exist
        if principal.has_all_ledgers:
            return False
        return principal.user_id is not None or _named_ledger(scope, principal.ledger_id) != principal.ledger_id

    def _attempt(self, scope: Mapping[str, Any], code: str) -> DeniedAttempt:
        """Returns the attempt of a request. The caller is known if the credential is valid, or was until it ended."""
        state = scope["state"]
        principal = state.get("principal") or state.get("former_principal")
        return DeniedAttempt(
            code=code,
            api=self._api,
            method=scope["method"] if scope["method"] in _METHODS else _HIDDEN,
            path=_shown(state.get("route", _HIDDEN), scope["path"] if principal else ""),
            address=state.get("address", ""),
            principal=principal.principal if principal else "",
            key_id=principal.key_id if principal else _claimed_key(scope["headers"]),
            ledger_id=principal.ledger_id
            if principal and not principal.has_all_ledgers
            else state.get("claimed_ledger") or _named_ledger(scope, _DEFAULT_LEDGER),
        )

    async def _send_now_and_then(self) -> None:
        trim_at = time.monotonic()
        while not self._closed:
            await asyncio.sleep(SEND_SECONDS)
            await self._send()
            if time.monotonic() >= trim_at:
                trim_at = time.monotonic() + TRIM_SECONDS
                await self._forget_old()

    async def _send(self, *, everything: bool = False) -> None:
        for denials in (self._of_callers, self._of_strangers):
            if waiting := denials.take(everything=everything):
                await self._store(denials.stream, waiting)

    async def _store(self, stream: str, waiting: Sequence[_CountedAttempts]) -> None:
        total = sum(each.count for each in waiting)
        try:
            async with asyncio.timeout(SEND_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                for each in waiting:
                    fields: dict[Any, Any] = {**msgspec.structs.asdict(each.attempt), "request_id": each.request_id}
                    pipeline.xadd(stream, fields | {"count": each.count})
                pipeline.xtrim(stream, maxlen=self._max, approximate=True)
                *_, displaced = await pipeline.execute()
            self.recorded += total
            self.displaced += displaced
        except Exception as error:  # noqa: BLE001 # whatever happened, these denials are dropped
            self.dropped += total
            log.warning("denials not recorded", attempts=total, error=type(error).__name__)

    async def _forget_old(self) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for stream in STREAMS:
                    await self._redis.xtrim(stream, minid=str(_oldest(self._days)), approximate=False)
        except POSTGRES_AND_REDIS_ERRORS as error:
            log.warning("old denials not removed", error=type(error).__name__)


def _oldest(days: int) -> int:
    return max(0, int(time.time() * 1000) - days * DAY_MILLISECONDS)


def _shown(route: str, path: str) -> str:
    """Returns the path of the route with the ids of `path`, and with `*` in place of each variable part that is not an id.

    Such a part may be a name, or a secret that the caller put there by mistake.
    """
    template, sent = route.split("/"), path.split("/")
    sent += [""] * (len(template) - len(sent))
    return "/".join(
        part if "{" not in part else actual if _ID.fullmatch(actual) else _HIDDEN
        for part, actual in zip(template, sent, strict=False)
    )


def _named_ledger(scope: Mapping[str, Any], otherwise: str) -> str:
    """Returns the ledger that the request names, or `otherwise` if it names none or has a name of the wrong form.

    The path of a request names a ledger only if its route says so in the state.
    """
    if named := scope["state"].get("named_ledger"):
        return str(named)
    for name, value in scope["headers"]:
        if name == b"daybook-ledger":
            ledger_id: str = value[:200].decode("latin-1")
            return ledger_id if LEDGER_ID.fullmatch(ledger_id) else otherwise
    return otherwise


def _claimed_key(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the key id in a credential that is not valid, or an empty text. The id of an API key is not a secret."""
    for name, value in headers:
        if name == b"authorization" and (shown := _SHOWN_OF_KEY.match(value[:200].decode("latin-1"))):
            return shown[1]
    return ""


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_denials(
    redis: "Redis", settings: Settings, ledger_id: str, before: tuple[str, int] | None, limit: int
) -> list[Denial]:
    """Returns up to `limit` denials on this ledger, newest first.

    `before` has the `entry_id` and the `stream` of a denial. If it is given, only older denials are returned.
    """
    found = [await _read_list(redis, settings, number, ledger_id, before, limit) for number in range(len(STREAMS))]
    return list(merge(*found, key=lambda denial: denial.order, reverse=True))[:limit]


async def _read_list(
    redis: "Redis", settings: Settings, number: int, ledger_id: str, before: tuple[str, int] | None, limit: int
) -> list[Denial]:
    found: list[Denial] = []
    end = "+"
    if before is not None:
        end = before[0] if number < before[1] else f"({before[0]}"  # of two lists with the same entry id, the second is newer
    while len(found) < limit:
        oldest = str(_oldest(settings.refusals_days))
        entries = await redis.xrevrange(STREAMS[number], max=end, min=oldest, count=CHUNK)
        found += _denials_of(number, (entry for entry in entries if entry[1]["ledger_id"] in {"", ledger_id}))
        if len(entries) < CHUNK:
            break
        end = f"({entries[-1][0]}"
    return found[:limit]


def _denials_of(number: int, entries: Iterable[tuple[str, dict[str, str]]]) -> Iterator[Denial]:
    for entry_id, fields in entries:
        attempt = DeniedAttempt(**{name: fields[name] for name in DeniedAttempt.__struct_fields__})
        yield Denial(entry_id, number, attempt, fields["request_id"], int(fields["count"]))
