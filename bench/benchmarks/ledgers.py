"""Measures what many idle ledgers cost, and how long a restarted worker and a new ledger take beside them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import asyncpg

from bench.interleaving import processor_seconds
from bench.ledger_filling import create_user
from bench.measurement import Section
from bench.rig import Rig, running, say
from dev.child_processes import Child, family
from shared.errors import Rebuilding, StackError
from shared.read_models.generations import live_generation
from shared.read_models.shapes import READ_MODELS
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores

LOOK_SECONDS: Final = 0.02
BUILD_LOOK_SECONDS: Final = 0.5
STALL_SECONDS: Final = 120.0
SETTLE_SECONDS: Final = 75.0
"""After this time the ledgers that were awake have fallen asleep."""

IN_MONGO: Final = sum(model.store == "mongo" for model in READ_MODELS)


async def measure_ledgers(rig: Rig) -> Section:
    count = rig.scale.ledgers
    section = Section("ledgers", f"{count:,} idle ledgers")
    settings = await rig.ledger(0)
    async with open_stores(settings, "daybook_projector") as stores:
        await _measure(rig, section, settings, stores, "one ledger", 1)
        await _make(settings, "tenant", count)
        await _measure(rig, section, settings, stores, f"{count:,} ledgers", count)
    section.notes.append(
        "Empty ledgers, each with all read models. `first of them` and `all of them` are the seconds until the worker has built "
        "the read models of ledgers that are all new. `restart` is the time from the start of a worker until an event that was "
        f"recorded meanwhile can be read. Processor time is that of {rig.scale.idle_seconds:g} s in which nothing happens, as a "
        "share of one core. Memory is that of the process, with the pages that it shares with others."
    )
    return section


async def _measure(rig: Rig, section: Section, settings: Settings, stores: Stores, name: str, count: int) -> None:
    worker = rig.worker(settings)
    async with running(worker):
        begin = time.perf_counter()
        before = await _live(stores)
        first = await _until(stores, before + 1) - begin
        whole = await _until(stores, before + count) - begin
        section.measurement(f"{name}: first of them").add({"seconds": first})
        section.measurement(f"{name}: all of them").add({"seconds": whole})
    last = "main" if count == 1 else f"tenant-{count}"
    head = await create_user(settings, last)
    worker = rig.worker(settings)
    begin = time.perf_counter()
    async with running(worker):
        section.measurement(f"{name}: restart").add({"seconds": await _readable(stores, last, head) - begin})
        await _make(settings, f"new-{count}", 1)
        begin = time.perf_counter()
        head = await create_user(settings, f"new-{count}-1")
        section.measurement(f"{name}: one more").add({"seconds": await _readable(stores, f"new-{count}-1", head) - begin})
        await asyncio.sleep(SETTLE_SECONDS)
        await measure_idle(
            rig, section, name, {"worker": worker, "MongoDB": rig.mongo, "PostgreSQL": rig.postgres, "Redis": rig.redis}
        )


async def measure_idle(rig: Rig, section: Section, name: str, processes: Mapping[str, Child]) -> None:
    """Waits while nothing happens. Adds the share of a core and the memory of each process to the section."""
    seconds = rig.scale.idle_seconds
    say(f"{section.name}: {name}: {seconds:g} s in which nothing happens")
    before = {each: processor_seconds(process) for each, process in processes.items()}
    await asyncio.sleep(seconds)
    for each, process in processes.items():
        used = (processor_seconds(process) - before[each]) / seconds
        section.measurement(f"{name}: {each}").add({"% of a core": used * 100, "MiB": _mebibytes(process)})


async def _make(settings: Settings, prefix: str, count: int) -> None:
    """Makes empty ledgers `<prefix>-1` and so on."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(
            "INSERT INTO log_heads (ledger_id, position, hash, recorded_at)"
            " SELECT $1 || '-' || number, 0, '', now() FROM generate_series(1, $2) number",
            prefix,
            count,
        )
    finally:
        await connection.close()


async def _until(stores: Stores, count: int) -> float:
    """Waits until the read models of so many ledgers are live, while one more becomes live now and then. Returns the time."""
    live = await _live(stores)
    while live < count:
        before = live

        async def is_one_more_live(before: int = before) -> bool:
            return await _live(stores) > before

        await _wait(is_one_more_live, BUILD_LOOK_SECONDS, STALL_SECONDS)
        live = await _live(stores)
    return time.perf_counter()


async def _live(stores: Stores) -> int:
    """Returns the number of ledgers whose read models are live."""
    return await stores.mongo.pointers.count_documents({"live": {"$ne": None}}) // IN_MONGO


async def _readable(stores: Stores, ledger_id: str, head: int) -> float:
    """Waits until all read models of a ledger have reached a position. Returns the time."""

    async def is_readable() -> bool:
        try:
            live = [await live_generation(stores.mongo, stores.redis, model, ledger_id) for model in READ_MODELS]
        except Rebuilding:
            return False
        return all(generation.position >= head for generation in live)

    return await _wait(is_readable, LOOK_SECONDS, STALL_SECONDS)


async def _wait(is_true: Callable[[], Awaitable[bool]], look_seconds: float, seconds_max: float) -> float:
    end = time.perf_counter() + seconds_max
    while not await is_true():
        if time.perf_counter() > end:
            msg = f"the worker has not come so far within {seconds_max:g} s"
            raise StackError(msg)
        await asyncio.sleep(look_seconds)
    return time.perf_counter()


def _mebibytes(process: Child) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(process.pid))
    return pages * 4 / 1024
