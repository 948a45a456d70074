"""Publishes the positions of read models, so that waiting readers need not poll. Nothing depends on these messages."""

import asyncio
from typing import Final

import orjson
import structlog
from redis.asyncio import Redis

from shared.logs import kind_of
from shared.read_models.channels import MOVED_CHANNEL
from shared.read_models.generations import pointer_id
from shared.read_models.shapes import ReadModel
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

PUBLISH_SECONDS_MAX: Final = 0.05
CLOSE_SECONDS: Final = 1.0


class MovedNotifier:
    """Publishes positions, one message at a time. Positions that change while a message is sent go into the next message."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._news: dict[str, int] = {}
        self._sending: asyncio.Task[None] | None = None

    def tell(self, model: ReadModel, ledger_id: str, position: int) -> None:
        """Publishes a position. Never waits and never raises: a reader that misses the message polls the position."""
        self._news[pointer_id(model, ledger_id)] = position
        if self._sending is None:
            self._sending = keep_running("sender of positions", self._send)

    async def _send(self) -> None:
        while self._news:
            news, self._news = self._news, {}
            try:
                async with asyncio.timeout(PUBLISH_SECONDS_MAX):
                    await self._redis.publish(MOVED_CHANNEL, orjson.dumps(news))
            except POSTGRES_AND_REDIS_ERRORS as error:
                log.debug("not told", error=kind_of(error))
        self._sending = None

    async def close(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=CLOSE_SECONDS)
        if self._sending is not None:
            await end_tasks(self._sending)
