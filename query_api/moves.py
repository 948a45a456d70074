"""Where read models have come to, as the projector tells it to those who wait for them.

Only a hint, which saves looking again and again: whoever is told so looks, and what is not told is found by looking.
"""

import asyncio
import math
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.connections import STORE_ERRORS
from shared.read_models import MOVED_CHANNEL

IDLE_SECONDS: Final = 10.0
"""Where nobody has waited for so long, nobody listens."""

LOOK_SECONDS: Final = 0.5

_decode: Final = msgspec.json.Decoder(dict[str, int]).decode


class Moves:
    """Listens while somebody waits. Read models are named as their pointers are (`shared.read_models.pointer_id`)."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._positions: dict[str, int] = {}
        self._moved: dict[str, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._channel: PubSub | None = None

    @property
    def is_heard(self) -> bool:
        """Whether it would be told if a read model moved now."""
        return self._channel is not None

    def position(self, read_model: str) -> int | None:
        """As it was told last."""
        return self._positions.get(read_model)

    def forget(self, read_model: str) -> None:
        """What was told is not so."""
        self._positions.pop(read_model, None)

    async def next(self, read_model: str, seconds: float) -> None:
        """Returns when it is told that the read model has moved, or after so many seconds."""
        self._asked_at = asyncio.get_running_loop().time()
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        moved = self._moved.setdefault(read_model, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await moved.wait()

    async def close(self) -> None:
        """Ends listening by asking: a cancellation in the middle of a read would leave the connection to chance."""
        self._asked_at = -math.inf
        if self._channel is not None:
            with suppress(*STORE_ERRORS):
                await self._channel.unsubscribe()
        if listening := self._listening:
            await asyncio.wait([listening], timeout=LOOK_SECONDS)
            listening.cancel()

    async def _listen(self) -> None:
        try:
            with suppress(*STORE_ERRORS):
                await self._hear()
                return
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._listening = None

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            try:
                await channel.subscribe(MOVED_CHANNEL)
                self._channel = channel
                while loop.time() < self._asked_at + IDLE_SECONDS:
                    if message := await channel.get_message(timeout=LOOK_SECONDS):
                        self._tell(message["data"])
            finally:
                self._channel = None
                self._positions.clear()

    def _tell(self, message: str) -> None:
        with suppress(msgspec.MsgspecError):
            for read_model, position in _decode(message).items():
                self._positions[read_model] = position
                if moved := self._moved.pop(read_model, None):
                    moved.set()
