"""A ledger whose log a test writes, and its read models."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from pymongo.errors import ExecutionTimeout, NetworkTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.servers import Postgres
from projector.feed import Feed
from projector.generations import BUILD_EVENTS_MAX, Generations
from projector.projections import PROJECTIONS, Projection
from projector.rebuild import rebuild
from projector.runner import EXAMINE_SECONDS, Runner
from projector.sinks import digest, make_sinks
from shared.connections import Stores, open_postgres, open_stores
from shared.errors import Rebuilding
from shared.events import Event
from shared.read_models import Generation, Trouble, live_generation, read_troubles
from shared.settings import Settings
from tests.log import PERSON_KEYS, append

WAIT_SECONDS: Final = 120.0
"""Far longer than anything takes that is not stuck, also where a disk is slow."""
BY_NAME: Final = {projection.name: projection for projection in PROJECTIONS}


@dataclass(frozen=True)
class Ledger:
    """The ledger `main`, or another one, of a test's own stores."""

    settings: Settings
    stores: Stores
    writer: AsyncEngine
    ledger_id: str = "main"

    async def append(self, events: Iterable[Event]) -> int:
        return await append(self.writer, events, self.ledger_id)

    def generations(self, name: str, projection: Projection[Any] | None = None) -> Generations:
        """As a process sees them that has just started."""
        projection = projection or BY_NAME[name]
        sink = make_sinks(self.stores.mongo, self.stores.redis)[projection.model.store]
        return Generations(projection, sink, Feed(self.stores.engine, self.ledger_id, PERSON_KEYS))

    async def live(self, name: str) -> Generation:
        return await live_generation(self.stores.mongo, self.stores.redis, BY_NAME[name].model, self.ledger_id)

    async def build(self, *names: str) -> None:
        """Makes read models live, as of the head."""
        await asyncio.gather(*(self._build(name) for name in names or BY_NAME))

    async def _build(self, name: str) -> None:
        generations = self.generations(name)
        opened = await generations.open()
        copy = generations.copy(opened)
        while await copy.advance(BUILD_EVENTS_MAX):
            pass
        if not opened.live:
            await generations.finish(copy)

    async def rebuild(self, *names: str) -> dict[str, str]:
        """Read model → digest."""
        return {name: (await rebuild(self.generations(name), lambda _: None)).digest for name in names or BY_NAME}

    async def digests(self) -> dict[str, str]:
        """Read model → digest of the live generation."""
        return {name: await digest(self.generations(name).sink, await self.live(name)) for name in BY_NAME}

    async def rebuilt(self) -> dict[str, str]:
        """The same of read models that are made anew from the log, in stores as if they were new."""
        await self.wipe()
        await self.build()
        return await self.digests()

    async def troubles(self) -> dict[str, Trouble]:
        return await read_troubles(self.stores.mongo, self.stores.redis, self.ledger_id)

    async def positions(self) -> dict[str, int]:
        """Read model → position of the live generation; without those that are being rebuilt."""
        positions = {}
        for name in BY_NAME:
            try:
                positions[name] = (await self.live(name)).position
            except Rebuilding:
                continue
        return positions

    async def caught_up(self, head: int, *names: str) -> None:
        """Returns when these read models, or all, are live at the head."""
        positions: dict[str, int | None] = {}

        async def are_there() -> bool:
            positions.update(dict.fromkeys(BY_NAME), **await self.positions())
            return all(positions[name] == head for name in names or BY_NAME)

        await eventually(are_there, about=(head, positions))

    async def wipe(self) -> None:
        """Both stores, as if they were new."""
        await self.stores.redis.flushdb()
        client = self.stores.mongo.client
        try:
            await client.drop_database(self.settings.mongo_database)
        except (ExecutionTimeout, NetworkTimeout):
            # A worker that was killed has left a transaction open, which would be in the way for a minute.
            await client.admin.command("killAllSessions", [])
            await client.drop_database(self.settings.mongo_database)

    @asynccontextmanager
    async def followed(self, *projections: Projection[Any], settings: Settings | None = None) -> AsyncIterator[Runner]:
        """A projector runs."""
        runner = Runner(*self.stores, settings or self.settings, projections or PROJECTIONS)
        running = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            runner.stop()
            # Not so long that it could pass for having missed the stop and ended with the next examination.
            await asyncio.wait_for(running, EXAMINE_SECONDS * 0.8)


@asynccontextmanager
async def open_ledger(settings: Settings, ledger_id: str = "main") -> AsyncIterator[Ledger]:
    async with open_stores(settings, "daybook_projector") as stores:
        async with open_postgres(settings, "daybook_command") as writer:
            yield Ledger(settings, stores, writer, ledger_id)


async def eventually(check: Callable[[], Any], seconds: float = WAIT_SECONDS, about: object = "") -> None:
    """Returns when the asynchronous `check` gives something true; fails when it never does, with what `about` is by then."""
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end, f"did not come true within {seconds} s {about}"
        await asyncio.sleep(0.02)


async def tamper(postgres: Postgres, settings: Settings, *statements: str) -> None:
    """As a superuser who goes round the triggers."""
    database = settings.database_url.rpartition("/")[2]
    connection = await asyncpg.connect(postgres.superuser_url.rpartition("/")[0] + f"/{database}")
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
