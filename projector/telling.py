"""Tells those who wait for read models how far these have come: at once, at little cost, and without being relied on."""

import asyncio
from typing import Final

import orjson
import structlog
from redis.asyncio import Redis

from shared.connections import STORE_ERRORS
from shared.logs import kind_of
from shared.read_models import MOVED_CHANNEL, ReadModel, pointer_id

log = structlog.get_logger()

TELL_SECONDS: Final = 0.05


class Telling:
    """At most one message is under way; what moves meanwhile is in the next."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._news: dict[str, int] = {}
        self._sending: asyncio.Task[None] | None = None

    def tell(self, model: ReadModel, ledger_id: str, position: int) -> None:
        """Never waits and never raises: what is not told is found by looking."""
        self._news[pointer_id(model, ledger_id)] = position
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._news:
            news, self._news = self._news, {}
            try:
                async with asyncio.timeout(TELL_SECONDS):
                    await self._redis.publish(MOVED_CHANNEL, orjson.dumps(news))
            except STORE_ERRORS as error:
                log.debug("not told", error=kind_of(error))
        self._sending = None

    async def close(self) -> None:
        if self._sending is not None:
            await self._sending
