"""How far the read models of a ledger are, asked of the stores themselves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from shared.connections import Stores, open_stores
from shared.errors import Rebuilding, StackError
from shared.event_store import read_head
from shared.read_models import READ_MODELS, ReadModel, live_generation
from shared.settings import Settings

LOOK_SECONDS: Final = 0.05
STALL_SECONDS: Final = 60.0
LEDGER: Final = "main"


class Look(msgspec.Struct, frozen=True):
    """When it was, and the positions of the read models that are least and most far."""

    at: float
    least: int
    most: int


class Following:
    """Looks at one ledger's log and read models."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def head(self) -> int:
        async with self._stores.engine.connect() as connection:
            return (await read_head(connection, LEDGER)).position

    async def look(self) -> Look:
        """A read model that does not exist is at 0."""
        at = time.perf_counter()
        positions = await asyncio.gather(*map(self._position, READ_MODELS))
        return Look(at, min(positions), max(positions))

    async def _position(self, model: ReadModel) -> int:
        try:
            return (await live_generation(self._stores.mongo, self._stores.redis, model, LEDGER)).position
        except Rebuilding:
            return 0

    async def until(self, wanted: int) -> list[Look]:
        """Waits until every read model is at least there. Gives the looks on the way.

        Raises:
            StackError: nothing has moved for a long time.
        """
        looks = [await self.look()]
        moved = looks[0].at
        while looks[-1].least < wanted:
            await asyncio.sleep(LOOK_SECONDS)
            looks.append(await self.look())
            if looks[-1].least > looks[-2].least:
                moved = looks[-1].at
            elif looks[-1].at - moved > STALL_SECONDS:
                msg = f"the read models have stood at {looks[-1].least} of {wanted} for {STALL_SECONDS:.0f} s"
                raise StackError(msg)
        return looks


@asynccontextmanager
async def following(settings: Settings) -> AsyncIterator[Following]:
    async with open_stores(settings, "daybook_query") as stores:
        yield Following(stores)
