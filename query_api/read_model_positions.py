"""Listens to the worker's messages about the positions that read models have reached, for queries that wait.

The messages are only hints that make polling rarer. A query that receives a message still reads the checkpoint, and a lost
message only delays the query.
"""

import asyncio
import math
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.read_models.channels import MOVED_CHANNEL
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

IDLE_SECONDS: Final = 10.0
"""How long to listen after the last query that waited, in seconds."""

LOOK_SECONDS: Final = 0.5

_decode: Final = msgspec.json.Decoder(dict[str, int]).decode


class ReadModelPositions:
    """The last position that a message named for each read model. Listens for messages only while queries wait.

    The arguments `read_model` are pointer ids (`shared.read_models.generations.pointer_id`).
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._positions: dict[str, int] = {}
        self._moved: dict[str, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._channel: PubSub | None = None

    @property
    def is_heard(self) -> bool:
        """True if this object is subscribed now, so a message arrives when a read model advances."""
        return self._channel is not None

    def position(self, read_model: str) -> int | None:
        """Returns the position in the last message about the read model, or None if there was no message."""
        return self._positions.get(read_model)

    def forget(self, read_model: str) -> None:
        """Forgets the last message about the read model. Call it if the message turned out to be wrong."""
        self._positions.pop(read_model, None)

    async def next(self, read_model: str, seconds: float) -> None:
        """Waits for the next message about the read model, but at most this many seconds."""
        self._asked_at = asyncio.get_running_loop().time()
        if self._listening is None:
            self._listening = keep_running("listener of positions", self._listen)
        moved = self._moved.setdefault(read_model, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await moved.wait()

    async def close(self) -> None:
        """Stops listening by sending Redis a command. To cancel a read would leave the connection in an undefined state."""
        self._asked_at = -math.inf
        if self._channel is not None:
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                await self._channel.unsubscribe()
        if listening := self._listening:
            await asyncio.wait([listening], timeout=LOOK_SECONDS)
            await end_tasks(listening)

    async def _listen(self) -> None:
        try:
            await self._hear()
        except POSTGRES_AND_REDIS_ERRORS:
            await asyncio.sleep(LOOK_SECONDS)
        self._listening = None

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            try:
                await channel.subscribe(MOVED_CHANNEL)
                self._channel = channel
                while loop.time() < self._asked_at + IDLE_SECONDS:
                    if message := await channel.get_message(timeout=LOOK_SECONDS):
                        self._take(message["data"])
            finally:
                self._channel = None
                self._positions.clear()

    def _take(self, message: str) -> None:
        with suppress(msgspec.MsgspecError):
            for read_model, position in _decode(message).items():
                self._positions[read_model] = position
                if moved := self._moved.pop(read_model, None):
                    moved.set()
