"""Measures how many events per second a worker publishes to NATS while it keeps the read models up with the same events."""

import asyncio
import time
from typing import Final

from bench.benchmarks.projecting import LOOK_SECONDS, catch_up
from bench.interleaving import Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.read_model_watch import STALL_SECONDS, ReadModelWatch, watch_read_models
from bench.rig import Rig, running, say
from dev.nats_server import NatsServer
from shared.errors import StackError
from shared.publishing.checkpoints import read_published
from shared.settings import Settings
from shared.stores.postgres import open_postgres

ALONE: Final = "projecting live, publishing off"
BOTH: Final = "projecting live, publishing to NATS"


async def measure_publishing(rig: Rig) -> Section:
    section = Section("publishing", "Publishing to NATS")
    scale = rig.scale
    server = NatsServer("nats", rig.folder)
    await server.start()
    try:
        off = await rig.ledger(scale.accounts)
        on = (await rig.ledger(scale.accounts)).model_copy(update={"publish_url": server.url})
        async with watch_read_models(off) as follow_off, watch_read_models(on) as follow_on:
            say("publishing: building the read models and publishing for the first time")
            await catch_up(rig, off, follow_off)
            await _publish(rig, on, follow_on)

            async def alone() -> Values:
                await append_uniform(off, scale.backlog_events, scale.accounts)
                return {"per second": await catch_up(rig, off, follow_off)}

            async def both() -> Values:
                await append_uniform(on, scale.backlog_events, scale.accounts)
                return await _publish(rig, on, follow_on)

            await interleave(section, {ALONE: alone, BOTH: both}, scale.rounds)
    finally:
        await server.stop()
    section.notes.append(
        f"A worker that starts again finds {scale.backlog_events:,} transfers, applies each to all read models and, in the "
        "second row, publishes each. A rate ends when the last event is applied or acknowledged. NATS writes to files."
    )
    return section


async def _publish(rig: Rig, settings: Settings, follow: ReadModelWatch) -> Values:
    """Starts a worker. Returns how many events per second it publishes, and how many it projects meanwhile."""
    published: list[float] = []

    async def until_published() -> None:
        published.append(await published_per_second(settings, await follow.head()))

    async with running(rig.worker(settings)):
        watching = asyncio.create_task(until_published())
        projected = await follow.per_second()
        await watching
    return {"published per second": published[0], "per second": projected}


async def published_per_second(settings: Settings, head: int) -> float:
    """Waits until the broker has acknowledged everything. The time before the first acknowledgement is left out."""
    looks: list[tuple[float, int]] = []
    moved_at = time.perf_counter()
    async with open_postgres(settings, "daybook_query") as engine:
        while not looks or looks[-1][1] < head:
            await asyncio.sleep(LOOK_SECONDS)
            async with engine.connect() as connection:
                [ledger] = await read_published(connection)
            looks.append((time.perf_counter(), ledger.position))
            if len(looks) > 1 and looks[-1][1] > looks[-2][1]:
                moved_at = looks[-1][0]
            elif looks[-1][0] - moved_at > STALL_SECONDS:
                raise StackError(
                    f"publishing has stood at {ledger.position} of {head} for {STALL_SECONDS:.0f} s ({ledger.cause})"
                )
    begin = [look for look in looks if look[1] == looks[0][1]][-1]
    return (looks[-1][1] - begin[1]) / max(looks[-1][0] - begin[0], LOOK_SECONDS)
