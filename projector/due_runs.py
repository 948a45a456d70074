"""Finds runs of schedules that are due, and tells the command APIs, which make them.

The worker may not write to the log, so it publishes the next run of each schedule. A command API that hears of it decides a
`RunSchedule`, and goes on until no run of these schedules is due. A message that is lost is sent again by the next run of this,
and one that comes twice changes nothing, because a schedule makes each run once.
"""

from typing import Final

import msgspec
import structlog
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from sqlalchemy import text

from shared.errors import Rebuilding
from shared.logs import kind_of
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.read_models.generations import live_generation
from shared.read_models.shapes import SCHEDULES
from shared.stores.all_stores import Stores
from shared.stores.mongo import MongoDatabase
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

log = structlog.get_logger()

SCHEDULES_MAX: Final = 500
"""The most schedules of a ledger in one message: those that were due first."""

# Finds each ledger with one look into the index, so ledgers without schedules cost nothing.
_LEDGERS_WITH_SCHEDULES: Final = text("""
    SELECT ledger_id, clock_timestamp() FROM log_heads h
    WHERE EXISTS (
        SELECT FROM streams s WHERE s.ledger_id = h.ledger_id AND s.stream_id >= 'schedule-' AND s.stream_id < 'schedule.'
    )
""")


async def tell_due_runs(stores: Stores) -> int:
    """Publishes the next runs of all schedules that are due, and returns their number. Logs why if a store does not answer."""
    found = 0
    try:
        async with stores.engine.connect() as connection:
            ledgers = (await connection.execute(_LEDGERS_WITH_SCHEDULES)).all()
        for ledger_id, now in ledgers:
            if runs := await _due(stores.mongo, stores.redis, ledger_id, timestamp(now)):
                await stores.redis.publish(DUE_RUNS_CHANNEL, msgspec.json.encode(DueRuns(ledger_id, runs)))
                found += len(runs)
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
        log.warning("runs of schedules are made later", error=kind_of(error))
    return found


async def _due(mongo: MongoDatabase, redis: "Redis", ledger_id: str, now: str) -> list[DueRun]:
    try:
        generation = await live_generation(mongo, redis, SCHEDULES, ledger_id)
    except Rebuilding:
        return []
    match = {"status": "active", "next_run.due_at": {"$lte": now}}
    documents = generation.collection(mongo).find(match, {"run_count": 1, "next_run.due_at": 1})
    first = documents.sort("next_run.due_at", 1).limit(SCHEDULES_MAX)
    return sorted([DueRun(each["next_run"]["due_at"], each["_id"], each["run_count"] + 1) async for each in first])
