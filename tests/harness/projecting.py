"""A ledger for tests of the projector: the test writes the log, and reads and compares the read models."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import sqlalchemy.exc
from pymongo.errors import ExecutionTimeout, NetworkTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.servers import Postgres
from projector.feed import Feed
from projector.generations.build import BUILD_EVENTS_MAX
from projector.generations.generations import Generations
from projector.generations.rebuild import rebuild
from projector.projections.projection import Projection
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME, PROJECTIONS_BY_NAME, projections_of
from projector.runner import EXAMINE_SECONDS, Runner
from projector.sinks.content_digest import digest
from projector.sinks.registry import make_sinks
from shared.errors import Rebuilding, StoreUnavailable
from shared.log.events import Event
from shared.read_models.failures import ProjectionFailure, read_failures
from shared.read_models.generations import Generation, live_generation
from shared.read_models.stored_state import read_live_position
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores
from shared.stores.postgres import open_postgres
from tests.harness.log import PERSON_KEYS, append
from tests.harness.reporting import empty_reporting
from tests.harness.search import empty_search
from tests.harness.timeline import empty_timeline

BUILD_ATTEMPTS: Final = 5
WAIT_SECONDS: Final = 300.0
"""The longest wait for a condition. Even on a slow disk, only something that is stuck takes this long."""


@dataclass(frozen=True)
class Ledger:
    """One ledger in the stores of a test."""

    settings: Settings
    stores: Stores
    writer: AsyncEngine
    ledger_id: str = "main"

    async def append(self, events: Iterable[Event]) -> int:
        """Appends events. If this is cancelled, it ends after the append, because a book takes its events for recorded."""
        appending = asyncio.create_task(append(self.writer, events, self.ledger_id))
        try:
            return await asyncio.shield(appending)
        except asyncio.CancelledError:
            while not appending.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([appending])
            raise

    def generations(self, name: str, projection: Projection[Any] | None = None, feed: Feed | None = None) -> Generations:
        """Returns the generations of a read model without cached state, as a newly started process has them."""
        projection = projection or ALL_PROJECTIONS_BY_NAME[name]
        sink = make_sinks(self.stores)[projection.model.store]
        return Generations(projection, sink, feed or self.feed())

    def feed(self) -> Feed:
        return Feed(self.stores.engine, self.ledger_id, PERSON_KEYS)

    async def live(self, name: str) -> Generation:
        model = ALL_PROJECTIONS_BY_NAME[name].model
        if model.store not in self.stores.optional:
            return await live_generation(self.stores.mongo, self.stores.redis, model, self.ledger_id)
        store = self.stores.optional[model.store]
        number, position = (
            (await store.read_pointer(model, self.ledger_id)).live,
            await read_live_position(store, model, self.ledger_id),
        )
        if number is None or position is None:
            raise Rebuilding
        return Generation(model, self.ledger_id, number, position)

    async def build(self, *names: str) -> None:
        """Builds these read models up to the head and makes them live."""
        feed = self.feed()  # one for all, as in a worker: each feed holds a connection while it reads
        await asyncio.gather(*(self._build_patiently(name, feed) for name in names or PROJECTIONS_BY_NAME))

    async def _build_patiently(self, name: str, feed: Feed) -> None:
        """Builds a read model, and begins again after a timeout, as a worker does. On a busy machine a store may time out."""
        for _ in range(BUILD_ATTEMPTS - 1):
            with suppress(TimeoutError, sqlalchemy.exc.TimeoutError):
                return await self._build(name, feed)
        return await self._build(name, feed)

    async def _build(self, name: str, feed: Feed) -> None:
        generations = self.generations(name, feed=feed)
        opened = await generations.open()
        build = generations.resume(opened)
        while await build.advance(BUILD_EVENTS_MAX):
            pass
        if not opened.live:
            await generations.finish(build)

    async def rebuild(self, *names: str) -> dict[str, str]:
        """Rebuilds these read models. Returns the digest of each, by the name of the read model."""
        return {name: (await rebuild(self.generations(name), lambda _: None)).digest for name in names or PROJECTIONS_BY_NAME}

    async def digests(self) -> dict[str, str]:
        """Returns the digest of each live generation, by the name of the read model."""
        return {name: await digest(self.generations(name).sink, await self.live(name)) for name in PROJECTIONS_BY_NAME}

    async def rebuilt(self) -> dict[str, str]:
        """Deletes everything in MongoDB and Redis, rebuilds the read models from the log, and returns their digests by name."""
        await self.wipe()
        await self.build()
        return await self.digests()

    async def troubles(self) -> dict[str, ProjectionFailure]:
        return await read_failures(self.stores.mongo, self.stores.redis, self.ledger_id)

    def names(self) -> list[str]:
        """Returns the names of all read models whose store is in use."""
        return [projection.name for projection in projections_of(self.stores.optional)]

    async def positions(self) -> dict[str, int]:
        """Returns the position of each live generation, by the name of the read model.

        Leaves out read models without one, and one whose store does not answer at the moment: OpenSearch does not while it makes
        an index.
        """
        positions = {}
        for name in self.names():
            try:
                positions[name] = (await self.live(name)).position
            except (Rebuilding, StoreUnavailable):
                continue
        return positions

    async def caught_up(self, head: int, *names: str) -> None:
        """Waits until these read models, by default all, are live and have reached position `head`."""
        positions: dict[str, int | None] = {}

        async def are_there() -> bool:
            positions.update(dict.fromkeys(self.names()), **await self.positions())
            return all(positions[name] == head for name in names or self.names())

        await eventually(are_there, about=(head, positions))

    async def wipe(self) -> None:
        """Deletes everything in all stores of read models."""
        await self.stores.redis.flushdb()
        client = self.stores.mongo.client
        try:
            await client.drop_database(self.settings.mongo_database)
        except (ExecutionTimeout, NetworkTimeout):
            # A transaction that a killed worker left open would block the deletion for a minute.
            await client.admin.command("killAllSessions", [])
            await client.drop_database(self.settings.mongo_database)
        if "sql" in self.stores.optional:
            await empty_reporting(self.stores.optional["sql"])
        if "search" in self.stores.optional:
            await empty_search(self.stores.optional["search"])
        if "timeline" in self.stores.optional:
            await empty_timeline(self.stores.optional["timeline"])

    @asynccontextmanager
    async def followed(self, *projections: Projection[Any], settings: Settings | None = None) -> AsyncIterator[Runner]:
        """Runs a projector until the block ends."""
        runner = Runner(self.stores, settings or self.settings, projections or None)
        running = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            runner.stop()
            # Shorter than the pause between two examinations: a runner that missed the stop would end at the next one.
            await asyncio.wait_for(running, EXAMINE_SECONDS * 0.8)


@asynccontextmanager
async def open_ledger(settings: Settings, ledger_id: str = "main") -> AsyncIterator[Ledger]:
    async with open_stores(settings, "daybook_projector") as stores:
        async with open_postgres(settings, "daybook_command") as writer:
            yield Ledger(settings, stores, writer, ledger_id)


async def eventually(check: Callable[[], Any], seconds: float = WAIT_SECONDS, about: object = "") -> None:
    """Calls the asynchronous `check` until it returns something true. After `seconds`, fails with `about` in the message.

    The pauses grow with the wait, so that a check which asks every store leaves the machine to what it waits for.
    """
    began = time.monotonic()
    while not await check():
        waited = time.monotonic() - began
        assert waited < seconds, f"did not come true within {seconds} s {about}"
        await asyncio.sleep(min(0.02 + waited / 20, 0.3))


async def tamper(postgres: Postgres, settings: Settings, *statements: str) -> None:
    """Executes statements as a superuser with the triggers disabled, as somebody would who falsifies the log."""
    database = settings.database_url.rpartition("/")[2]
    connection = await asyncpg.connect(postgres.superuser_url.rpartition("/")[0] + f"/{database}")
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            status = await connection.execute(statement)
            assert not status.endswith(" 0"), f"it changed nothing: {statement}"
    finally:
        await connection.close()
