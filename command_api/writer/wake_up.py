"""Sends the worker a wake-up after a commit. A lost wake-up only causes a delay, because the worker also polls the log."""

import asyncio
from typing import Final

import structlog
from redis.asyncio import Redis

from shared.logs import kind_of
from shared.read_models.channels import WAKE_CHANNEL
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()


PAUSE_SECONDS: Final = 0.003
"""The pause between two messages. The worker needs longer than this for a batch, and reads later commits with the next one."""

CLOSE_SECONDS: Final = 1.0


class Waker:
    """Sends wake-ups, one at a time. If a ledger has several commits in the meantime, the next message covers all of them."""

    def __init__(self, redis: "Redis", timeout_ms: int) -> None:
        self._redis = redis
        self._timeout_seconds = timeout_ms / 1000
        self._waiting: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def wake(self, ledger_id: str) -> None:
        """Schedules a wake-up for a ledger. Never waits and never raises, because the command has already succeeded."""
        self._waiting.add(ledger_id)
        if self._sending is None:
            self._sending = keep_running("sender of wake-ups", self._send)

    async def _send(self) -> None:
        while self._waiting:
            ledger_id = self._waiting.pop()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._redis.publish(WAKE_CHANNEL, ledger_id)
            except POSTGRES_AND_REDIS_ERRORS as error:
                log.debug("wake-up not sent", ledger_id=ledger_id, error=kind_of(error))
            await asyncio.sleep(PAUSE_SECONDS)
        self._sending = None

    async def close(self) -> None:
        """Waits until all scheduled wake-ups are sent, but no longer than `CLOSE_SECONDS`."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=CLOSE_SECONDS)
        if self._sending is not None:
            await end_tasks(self._sending)
