"""Watches the positions of the read models of a ledger, by reading the stores directly."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from shared.errors import Rebuilding, StackError
from shared.log.heads import read_head
from shared.read_models.generations import live_generation
from shared.read_models.shapes import READ_MODELS, ReadModel
from shared.read_models.stored_state import read_live_position
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores

LOOK_SECONDS: Final = 0.05
STALL_SECONDS: Final = 60.0
LEDGER: Final = "main"


class PositionsSample(msgspec.Struct, frozen=True):
    """A sample: the time in seconds, and the lowest and the highest position of all read models at that time."""

    at: float
    least: int
    most: int


class ReadModelWatch:
    """Watches the log and some read models of one ledger."""

    def __init__(self, stores: Stores, models: Sequence[ReadModel]) -> None:
        self._stores = stores
        self._models = models

    async def head(self) -> int:
        async with self._stores.engine.connect() as connection:
            return (await read_head(connection, LEDGER)).position

    async def look(self) -> PositionsSample:
        """Returns a sample of their current positions. A read model that does not exist has position 0."""
        at = time.perf_counter()
        positions = await asyncio.gather(*map(self._position, self._models))
        return PositionsSample(at, min(positions), max(positions))

    async def _position(self, model: ReadModel) -> int:
        if model.store in self._stores.optional:
            return await read_live_position(self._stores.optional[model.store], model, LEDGER) or 0
        try:
            return (await live_generation(self._stores.mongo, self._stores.redis, model, LEDGER)).position
        except Rebuilding:
            return 0

    async def until(self, wanted: int) -> list[PositionsSample]:
        """Waits until every read model has reached a position. Returns the samples taken meanwhile.

        Raises:
            StackError: the slowest read model has not moved for `STALL_SECONDS`.
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

    async def per_second(self) -> float:
        """Waits until every read model is at the end of the log. Returns how many events per second they applied meanwhile.

        The time before the first one moves is left out.
        """
        looks = await self.until(await self.head())
        begin = [look for look in looks if look.most == looks[0].most][-1]
        return (looks[-1].least - begin.least) / max(looks[-1].at - begin.at, LOOK_SECONDS)


@asynccontextmanager
async def watch_read_models(settings: Settings, models: Sequence[ReadModel] = READ_MODELS) -> AsyncIterator[ReadModelWatch]:
    async with open_stores(settings, "daybook_query") as stores:
        yield ReadModelWatch(stores, models)
