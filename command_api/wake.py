"""Tells the projector that there is something new: at once, at little cost, and without being relied on."""

import asyncio
from typing import Final

import structlog
from redis.asyncio import Redis

from shared.connections import STORE_ERRORS
from shared.logs import kind_of
from shared.read_models import WAKE_CHANNEL

log = structlog.get_logger()


PAUSE_SECONDS: Final = 0.003
"""Between two messages: a projector that was woken takes longer for a batch, and finds in it what was committed meanwhile."""


class Waker:
    """At most one message is under way; what is committed meanwhile is covered by the next."""

    def __init__(self, redis: "Redis", timeout_ms: int) -> None:
        self._redis = redis
        self._timeout_seconds = timeout_ms / 1000
        self._waiting: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def wake(self, ledger_id: str) -> None:
        """Never waits and never raises: a lost wake-up costs the projector's next look, not the caller."""
        self._waiting.add(ledger_id)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            ledger_id = self._waiting.pop()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._redis.publish(WAKE_CHANNEL, ledger_id)
            except STORE_ERRORS as error:
                log.debug("wake-up not sent", ledger_id=ledger_id, error=kind_of(error))
            await asyncio.sleep(PAUSE_SECONDS)
        self._sending = None

    async def close(self) -> None:
        if self._sending is not None:
            await self._sending
