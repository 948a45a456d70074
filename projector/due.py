"""Finds what is due by the clock and not in the log yet, and tells the command APIs, which record it.

Holds that have expired and runs of schedules become due. The worker may not write to the log, so it publishes what it finds. Each
command API that hears of it decides an `ExpireHold` or a `RunSchedule`: see `command_api.expired_holds` and
`command_api.due_runs`. A message that is lost is sent again by the next look, and one that comes twice changes nothing.

An expired hold counts nowhere, recorded or not; recording it lets the account forget it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from pymongo.errors import PyMongoError
from sqlalchemy import text

from shared.errors import Rebuilding
from shared.logs import kind_of
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DUE_RUNS_CHANNEL, DueHolds, DueRun, DueRuns
from shared.read_models.generations import live_generation
from shared.read_models.shapes import HOLDS, SCHEDULES, ReadModel
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

log = structlog.get_logger()

DUE_MAX: Final = 500
"""The most holds or schedules of a ledger in one message: those that were due first."""


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
    SELECT ledger_id, clock_timestamp() FROM log_heads h
    WHERE EXISTS (
        SELECT FROM streams s WHERE s.ledger_id = h.ledger_id AND s.stream_id >= :prefix || '-' AND s.stream_id < :prefix || '.'
    )
""")


async def tell_due(stores: Stores, kind: DueKind) -> int:
    """Publishes what is due in all ledgers, and returns how much it is. Logs why if a store does not answer."""
    found = 0
    try:
        async with stores.engine.connect() as connection:
            ledgers = (await connection.execute(READ_DUE_LEDGERS, {"prefix": kind.stream_prefix})).all()
        for ledger_id, now in ledgers:
            if documents := await _due(stores, kind, ledger_id, timestamp(now)):
                await stores.redis.publish(kind.channel, msgspec.json.encode(kind.message(ledger_id, documents)))
                found += len(documents)
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
        log.warning("what is due is recorded later", kind=kind.stream_prefix, error=kind_of(error))
    return found


async def oldest_due_seconds(stores: Stores, kind: DueKind) -> dict[str, float]:
    """Returns how long the oldest of what is due has waited to be recorded, by ledger; 0 if nothing waits.

    Leaves out ledgers that never had anything of this kind.

    Raises:
        One of POSTGRES_AND_REDIS_ERRORS, PyMongoError: a store does not answer.
    """
    async with stores.engine.connect() as connection:
        ledgers = (await connection.execute(READ_DUE_LEDGERS, {"prefix": kind.stream_prefix})).all()
    waited: dict[str, float] = {}
    for ledger_id, now in ledgers:
        oldest = await _due(stores, kind, ledger_id, timestamp(now), 1)
        waited[ledger_id] = (now - datetime.fromisoformat(_moment_of(kind, oldest[0]))).total_seconds() if oldest else 0.0
    return waited


def _moment_of(kind: DueKind, document: Any) -> str:
    for name in kind.moment.split("."):
        document = document[name]
    return str(document)


async def _due(stores: Stores, kind: DueKind, ledger_id: str, now: str, limit: int = DUE_MAX) -> list[dict[str, Any]]:
    try:
        generation = await live_generation(stores.mongo, stores.redis, kind.model, ledger_id)
    except Rebuilding:
        return []
    match = {"status": "active", kind.moment: {"$lte": now}}
    found = generation.collection(stores.mongo).find(match, dict.fromkeys((*kind.fields, kind.moment), 1))
    return [document async for document in found.sort(kind.moment, 1).limit(limit)]
