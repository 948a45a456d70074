"""Hears what the worker publishes for the command APIs: see `projector.due`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from redis.asyncio import Redis

from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

LISTEN_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.5
"""The pause before this process listens again when Redis did not answer. What the worker publishes meanwhile is lost."""


async def hear(redis: "Redis", channel_name: str, act: Callable[[str], Awaitable[None]]) -> NoReturn:
    """Calls `act` with each message of a channel, for ever. `act` must not raise. While Redis does not answer, there are none."""
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(channel_name)
                while True:
                    if message := await channel.get_message(timeout=LISTEN_SECONDS):
                        await act(message["data"])
        except POSTGRES_AND_REDIS_ERRORS:
            await asyncio.sleep(PAUSE_SECONDS)
