"""Finds holds that have expired and whose expiry is not in the log yet, and tells the command APIs, which record it.

Nothing depends on it: an expired hold counts nowhere, recorded or not. Recording tidies up: the account forgets the hold. The
worker may not write to the log, so it publishes the ids, and each command API that hears them decides an `ExpireHold` for each. A
message that is lost is sent again by the next run.
"""

from typing import Final

import msgspec
import structlog
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from sqlalchemy import text

from shared.errors import Rebuilding
from shared.logs import kind_of
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DueHolds
from shared.read_models.generations import live_generation
from shared.read_models.shapes import HOLDS
from shared.stores.all_stores import Stores
from shared.stores.mongo import MongoDatabase
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

log = structlog.get_logger()

DUE_MAX: Final = 500
"""The most holds of a ledger in one run."""

# Finds each ledger with one look into the index, so ledgers without holds cost nothing.
_LEDGERS_WITH_HOLDS: Final = text("""
    SELECT ledger_id, clock_timestamp() FROM log_heads h
    WHERE EXISTS (
        SELECT FROM streams s WHERE s.ledger_id = h.ledger_id AND s.stream_id >= 'hold-' AND s.stream_id < 'hold.'
    )
""")


async def tell_due_holds(stores: Stores) -> int:
    """Publishes the holds of all ledgers that have expired, and returns their number. Logs why if a store does not answer."""
    found = 0
    try:
        async with stores.engine.connect() as connection:
            ledgers = (await connection.execute(_LEDGERS_WITH_HOLDS)).all()
        for ledger_id, now in ledgers:
            if hold_ids := await _due(stores.mongo, stores.redis, ledger_id, timestamp(now)):
                await stores.redis.publish(DUE_HOLDS_CHANNEL, msgspec.json.encode(DueHolds(ledger_id, hold_ids)))
                found += len(hold_ids)
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
        log.warning("expired holds are recorded later", error=kind_of(error))
    return found


async def _due(mongo: MongoDatabase, redis: "Redis", ledger_id: str, now: str) -> list[str]:
    try:
        generation = await live_generation(mongo, redis, HOLDS, ledger_id)
    except Rebuilding:
        return []
    match = {"status": "active", "expires_at": {"$lte": now}}
    documents = generation.collection(mongo).find(match, {"_id": 1}).sort("expires_at", 1).limit(DUE_MAX)
    return [document["_id"] async for document in documents]
