"""Finds what is due by the clock and not in the log yet, and tells the command APIs, which record it.

Holds that have expired and runs of schedules become due. The worker may not write to the log, so it publishes what it finds. Each
command API that hears of it decides an `ExpireHold` or a `RunSchedule`: see `command_api.expired_holds` and
`command_api.due_runs`. A message that is lost is sent again by the next look, and one that comes twice changes nothing.

An expired hold counts nowhere, recorded or not; recording it lets the account forget it.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from pymongo.errors import PyMongoError
from sqlalchemy import text

from shared.errors import Rebuilding
from shared.logs import kind_of
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DUE_RUNS_CHANNEL, DueHolds, DueRun, DueRuns
from shared.read_models.generations import Generation, live_generation
from shared.read_models.shapes import HOLDS, SCHEDULES, ReadModel
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

log = structlog.get_logger()

DUE_MAX: Final = 500
"""The most holds or schedules of a ledger in one message: those that were due first."""


NEVER: Final = "~"
"""Comes after every timestamp."""


class DueKind(NamedTuple):
    """A kind of thing that becomes due: where its streams and documents are, and the message about some of a ledger.

    `moment` is the field of a document with the moment from which it is due, and `fields` are those that the message needs.
    """

    stream_prefix: str
    model: ReadModel
    moment: str
    fields: tuple[str, ...]
    channel: str
    message: Callable[[str, list[dict[str, Any]]], msgspec.Struct]


def _holds(ledger_id: str, documents: list[dict[str, Any]]) -> DueHolds:
    return DueHolds(ledger_id, [document["_id"] for document in documents])


def _runs(ledger_id: str, documents: list[dict[str, Any]]) -> DueRuns:
    runs = [DueRun(each["next_run"]["due_at"], each["_id"], each["run_count"] + 1) for each in documents]
    return DueRuns(ledger_id, sorted(runs))


EXPIRED_HOLDS: Final = DueKind("hold", HOLDS, "expires_at", (), DUE_HOLDS_CHANNEL, _holds)
SCHEDULED_RUNS: Final = DueKind("schedule", SCHEDULES, "next_run.due_at", ("run_count",), DUE_RUNS_CHANNEL, _runs)

# Finds each ledger with one look into the index, so ledgers without such streams cost nothing. A full stop sorts after a hyphen.
READ_DUE_LEDGERS: Final = text("""
    SELECT ledger_id, position, clock_timestamp() FROM log_heads h
    WHERE EXISTS (
        SELECT FROM streams s WHERE s.ledger_id = h.ledger_id AND s.stream_id >= :prefix || '-' AND s.stream_id < :prefix || '.'
    )
""")


class DueTeller:
    """Tells what is due of one kind. It looks into a ledger again when the next thing there is due, or when its log has moved."""

    def __init__(self, kind: DueKind) -> None:
        self._kind = kind
        self._next: dict[str, tuple[int, str]] = {}
        """Ledger → a position of its log, and the moment from which something will be due if the log ends there."""

    async def tell(self, stores: Stores) -> int:
        """Publishes what is due in all ledgers, and returns how much it is. Logs why if a store does not answer."""
        found = 0
        try:
            async with stores.engine.connect() as connection:
                ledgers = (await connection.execute(READ_DUE_LEDGERS, {"prefix": self._kind.stream_prefix})).all()
            for ledger_id, head, now in ledgers:
                if documents := await self._due(stores, ledger_id, head, timestamp(now)):
                    message = self._kind.message(ledger_id, documents)
                    await stores.redis.publish(self._kind.channel, msgspec.json.encode(message))
                    found += len(documents)
        except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
            log.warning("what is due is recorded later", kind=self._kind.stream_prefix, error=kind_of(error))
        return found

    async def _due(self, stores: Stores, ledger_id: str, head: int, now: str) -> list[dict[str, Any]]:
        position, moment = self._next.get(ledger_id, (-1, ""))
        if position == head and now < moment:
            return []
        try:
            generation = await live_generation(stores.mongo, stores.redis, self._kind.model, ledger_id)
        except Rebuilding:
            return []
        first = await _first(stores, self._kind, generation, DUE_MAX)
        due = [document for document in first if _moment_of(self._kind, document) <= now]
        if not due and generation.position == head:
            self._next[ledger_id] = head, _moment_of(self._kind, first[0]) if first else NEVER
        return due


async def oldest_due_seconds(stores: Stores, kind: DueKind) -> dict[str, float]:
    """Returns how long the oldest of what is due has waited to be recorded, by ledger; 0 if nothing waits.

    Leaves out ledgers that never had anything of this kind.

    Raises:
        One of POSTGRES_AND_REDIS_ERRORS, PyMongoError: a store does not answer.
    """
    async with stores.engine.connect() as connection:
        ledgers = (await connection.execute(READ_DUE_LEDGERS, {"prefix": kind.stream_prefix})).all()
    waited: dict[str, float] = {}
    for ledger_id, _, now in ledgers:
        waited[ledger_id] = 0.0
        with suppress(Rebuilding):
            generation = await live_generation(stores.mongo, stores.redis, kind.model, ledger_id)
            for oldest in await _first(stores, kind, generation, 1):
                waited[ledger_id] = max((now - datetime.fromisoformat(_moment_of(kind, oldest))).total_seconds(), 0.0)
    return waited


async def _first(stores: Stores, kind: DueKind, generation: Generation, limit: int) -> list[dict[str, Any]]:
    """Returns the documents that are or will be due, in the order of their moments."""
    match = {"status": "active", kind.moment: {"$gt": ""}}
    fields = dict.fromkeys((*kind.fields, kind.moment), 1)
    found = generation.documents().find(stores.mongo, match, fields, order=[(kind.moment, 1)], limit=limit)
    return [document async for document in found]


def _moment_of(kind: DueKind, document: Any) -> str:
    for name in kind.moment.split("."):
        document = document[name]
    return str(document)
