"""Knows which workers are alive, and which of them follows a ledger.

Each worker sends a heartbeat to Redis, and learns with it which other workers have sent one recently. All of them then choose the
same worker for each ledger, by rendezvous hashing: when a worker comes or goes, only its own ledgers change hands. Nothing is
locked. Two workers may follow the same ledger for a moment, or for as long as one of them cannot reach Redis. That costs time and
does no harm, because a batch is written only if the checkpoint is where the batch begins.

    daybook:projector:alive     sorted set: the ids of the workers, each with the time of its heartbeat in ms, by Redis' clock
"""

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

log = structlog.get_logger()

ALIVE_KEY: Final = "daybook:projector:alive"

BEAT_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 2.5
"""A worker that has sent no heartbeat for so long has lost its ledgers to the others."""

_BEAT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


class LiveWorkers:
    """The workers that are alive, as one of them knows them. Before its first heartbeat, it takes itself for the only one."""

    def __init__(self, redis: "Redis", worker_id: str, key: str = ALIVE_KEY) -> None:
        """Creates the object. Workers share ledgers with those that have the same `key`."""
        self._redis: Any = redis  # redis-py has one type for the results of its synchronous and asynchronous commands
        self._beat = redis.register_script(_BEAT)
        self._id = worker_id
        self._key = key
        self._ids = {worker_id}

    async def beat(self) -> bool:
        """Sends a heartbeat. Returns True if other workers are alive than before.

        While Redis does not answer, all workers keep the ledgers that they have.
        """
        before = self._ids
        with suppress(*POSTGRES_AND_REDIS_ERRORS):
            self._ids = {*await self._beat(keys=[self._key], args=[self._id, int(ALIVE_SECONDS * 1_000)])}
        if self._ids != before:
            log.info("workers share the ledgers", workers=len(self._ids))
        return self._ids != before

    async def leave(self) -> None:
        """Gives the ledgers of this worker to the others at once."""
        with suppress(*POSTGRES_AND_REDIS_ERRORS):
            await self._redis.zrem(self._key, self._id)

    def is_mine(self, ledger_id: str) -> bool:
        """Returns True if this worker follows the ledger."""
        return len(self._ids) == 1 or chosen_worker(ledger_id, self._ids) == self._id


def chosen_worker(ledger_id: str, worker_ids: Iterable[str]) -> str:
    """Returns the worker that follows a ledger. When one of the others leaves, it stays the same."""
    return max(
        worker_ids, key=lambda worker_id: (blake2b(f"{worker_id}/{ledger_id}".encode(), digest_size=8).digest(), worker_id)
    )
