"""Reads the facts that make the balance of one account: its entries from MongoDB, and its balance from Redis.

Queries read them through the query API. This is for operators, who explain a balance without it.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from redis.asyncio import Redis

from shared.errors import NotFound, ProjectionBehind
from shared.read_models.generations import live_generation
from shared.read_models.shapes import BALANCES, ENTRIES, Entry, entry_id
from shared.stores.mongo import MongoDatabase

WAIT_SECONDS: Final = 5.0
"""How long to wait until the entries have reached the account's newest event."""
POLL_SECONDS: Final = 0.05


class StoredBalance(msgspec.Struct, frozen=True):
    """What an account has posted, in minor units, as of the account's event at `position`."""

    currency: str
    posted: int
    position: int


async def read_balance(mongo: MongoDatabase, redis: "Redis", ledger_id: str, account_id: str) -> StoredBalance:
    """Returns the balance of an account.

    Raises:
        NotFound: there is no such account.
        Rebuilding: the ledger has no live generation of `balances`.
    """
    generation = await live_generation(mongo, redis, BALANCES, ledger_id)
    names = ["currency", "posted", "position"]
    currency, posted, position = await redis.hmget(generation.key(f"account:{account_id}"), names)  # type: ignore[misc]
    if currency is None or posted is None or position is None:
        msg = f"There is no account {account_id} in ledger {ledger_id!r}."
        raise NotFound(msg)
    return StoredBalance(currency, int(posted), int(position))


async def read_entries(mongo: MongoDatabase, redis: "Redis", ledger_id: str, account_id: str, up_to: int) -> AsyncIterator[Entry]:
    """Yields the entries of an account up to a position, in the order of the log. First waits until all of them are there.

    Raises:
        ProjectionBehind: the entries have not reached the position in time.
        Rebuilding: the ledger has no live generation of `entries`.
    """
    end = asyncio.get_running_loop().time() + WAIT_SECONDS
    while (generation := await live_generation(mongo, redis, ENTRIES, ledger_id)).position < up_to:
        if asyncio.get_running_loop().time() >= end:
            raise ProjectionBehind(position=generation.position, lag_events=up_to - generation.position)
        await asyncio.sleep(POLL_SECONDS)
    ids = {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, up_to)}
    async for document in generation.documents().find(mongo, {"_id": ids}, {"item": 1}):
        yield msgspec.json.decode(document["item"], type=Entry)
