"""Measures what one transfer costs: processor time in each process, with and without a worker, and bytes in PostgreSQL."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import msgspec
from redis.asyncio import Redis as RedisClient
from redis.asyncio.client import PubSub

from bench.interleaving import Lane, Values, interleave, load_seconds, processor_seconds
from bench.load_client import LoadOrder, percentile
from bench.load_generators import columns, run_load
from bench.measurement import Column, Section
from bench.read_model_watch import LEDGER, STALL_SECONDS, watch_read_models
from bench.rig import Rig, running
from bench.workloads import Workload
from dev.child_processes import Child
from dev.daybook_processes import ApiProcess
from shared.errors import StackError
from shared.read_models.channels import MOVED_CHANNEL
from shared.read_models.shapes import READ_MODELS
from shared.settings import Settings
from shared.supervision import end_tasks

GATHERING: Final = "worker that waits for more events (today)"
EAGER: Final = "worker that reads after each wake-up"
STOPPED: Final = "worker stopped"
WARM_SECONDS: Final = 3
START_SECONDS: Final = 0.5
SAMPLE_SECONDS: Final = 0.05
MILLION: Final = 1_000_000

_HEAD: Final = "SELECT position, recorded_at FROM log_heads WHERE ledger_id = $1"
_SIZES: Final = """
    SELECT relname AS name, pg_table_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    UNION ALL
    SELECT indrelid::regclass || ': ' || indexrelid::regclass, pg_relation_size(indexrelid) FROM pg_index
    JOIN pg_class ON pg_class.oid = indrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


async def measure_cost(rig: Rig) -> Section:
    scale = rig.scale
    section = Section("cost", f"What a transfer costs, {scale.connections} connections and {scale.accounts:,} accounts")
    settings = await rig.ledger(scale.accounts)
    eager = settings.model_copy(update={"projector_gather_ms": 0})
    sizes = await _sizes(settings)
    api = rig.command(settings)
    async with running(api):
        await run_load(_order(rig, api, min(WARM_SECONDS, scale.seconds)))
        lanes: dict[str, Lane] = {
            GATHERING: _lane(rig, api, settings),
            EAGER: _lane(rig, api, eager),
            STOPPED: _lane(rig, api, None),
        }
        await interleave(section, lanes, scale.rounds)
    await rig.settle(settings.database_url.rpartition("/")[2])
    _add_sizes(section, sizes, await _sizes(settings))
    section.notes.append(
        "Microseconds are processor time, user and system, until the read models have caught up, divided by the transfers. "
        "Readable is the time from the recording of an event until all read models have it. All lanes share a ledger and a "
        "command API. Each starts a worker of its own before it is measured, or none. Bytes are what these transfers added, "
        "after a vacuum: each table without its indexes, and each index."
    )
    return section


def _order(rig: Rig, api: ApiProcess, seconds: float) -> LoadOrder:
    return LoadOrder(api.url, Workload("POST", "/v1/transfers", rig.scale.accounts), rig.scale.connections, seconds)


# ── processor time ───────────────────────────────────────────────────────────────────────────────────────────────────


def _lane(rig: Rig, api: ApiProcess, settings: Settings | None) -> Lane:
    """Returns a lane with a worker that has these settings, or without a worker."""
    stores: dict[Column, Child] = {"PostgreSQL µs": rig.postgres, "MongoDB µs": rig.mongo, "Redis µs": rig.redis}

    async def lane() -> Values:
        if settings is None:
            return await _measured(rig, api, {"API µs": api, **stores}, None)
        worker = rig.worker(settings)
        async with running(worker):
            # The worker has started when the read models have what is new.
            await run_load(_order(rig, api, START_SECONDS))
            async with watch_read_models(settings) as watch:
                await watch.until(await watch.head())
            async with _following(settings) as events:
                values = await _measured(rig, api, {"API µs": api, "worker µs": worker, **stores}, events)
            took = sorted(events.took)
            readable: Values = {"readable p50 ms": percentile(took, 50) * 1000, "readable p99 ms": percentile(took, 99) * 1000}
            return values | readable

    return lane


async def _measured(rig: Rig, api: ApiProcess, processes: Mapping[Column, Child], events: "FollowedEvents | None") -> Values:
    before = _seconds(processes)
    load = await run_load(_order(rig, api, rig.scale.seconds))
    if events:
        await events.all_readable()
    spent = {name: (after - before[name]) / load.requests * MILLION for name, after in _seconds(processes).items()}
    return {**spent, "all µs": sum(spent.values()), **columns(load)}


def _seconds(processes: Mapping[Column, Child]) -> Values:
    """Returns the processor time in seconds that each process has used so far, and that of the load."""
    return {**{name: processor_seconds(process) for name, process in processes.items()}, "load µs": load_seconds()}


# ── the time until an event is readable ──────────────────────────────────────────────────────────────────────────────


class FollowedEvents:
    """Measures for some events how long it took from their recording until all read models had them. Times are in seconds."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self._awaited: deque[tuple[int, float]] = deque()
        self._positions: dict[str, int] = {}

    def follow(self, position: int, recorded_at: float) -> None:
        """Waits for the event at a position, which was recorded at this time of the wall clock."""
        if not self._awaited or position > self._awaited[-1][0]:
            self._awaited.append((position, recorded_at))

    def hear(self, positions: Mapping[str, int], now: float) -> None:
        """Takes a message of the worker: the new positions of some read models."""
        self._positions.update(positions)
        least = min(self._positions.values()) if len(self._positions) == len(READ_MODELS) else 0
        while self._awaited and self._awaited[0][0] <= least:
            self.took.append(now - self._awaited.popleft()[1])

    async def all_readable(self) -> None:
        """Waits until every event that is followed is in all read models.

        Raises:
            StackError: this takes longer than `STALL_SECONDS`.
        """
        await asyncio.sleep(2 * SAMPLE_SECONDS)  # until the last event is followed
        end = time.monotonic() + STALL_SECONDS
        while self._awaited:
            if time.monotonic() > end:
                raise StackError(f"position {self._awaited[0][0]} is not in all read models after {STALL_SECONDS:.0f} s")
            await asyncio.sleep(SAMPLE_SECONDS)


@asynccontextmanager
async def _following(settings: Settings) -> AsyncIterator[FollowedEvents]:
    """Follows the event at the end of the log, about `1 / SAMPLE_SECONDS` times a second."""
    events = FollowedEvents()
    connection = await asyncpg.connect(settings.database_url)
    async with RedisClient.from_url(settings.redis_url, decode_responses=True) as redis, redis.pubsub() as channel:
        await channel.subscribe(MOVED_CHANNEL)
        head: int = (await connection.fetchrow(_HEAD, LEDGER))["position"]
        tasks = asyncio.create_task(_hear(channel, events)), asyncio.create_task(_sample(connection, head, events))
        try:
            yield events
        finally:
            await end_tasks(*tasks)
            await connection.close()


async def _hear(channel: PubSub, events: FollowedEvents) -> None:
    while True:
        if (message := await channel.get_message(ignore_subscribe_messages=True, timeout=1)) is not None:
            events.hear(msgspec.json.decode(message["data"], type=dict[str, int]), time.time())


async def _sample(connection: asyncpg.Connection, head: int, events: FollowedEvents) -> None:
    while True:
        row = await connection.fetchrow(_HEAD, LEDGER)
        if row["position"] > head:
            head = row["position"]
            events.follow(head, row["recorded_at"].timestamp())
        await asyncio.sleep(SAMPLE_SECONDS)


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class StoredSizes(msgspec.Struct, frozen=True):
    """How many events a ledger has, and the bytes of each table and index of its database, by name."""

    events: int
    bytes_by_name: Mapping[str, int]


async def _sizes(settings: Settings) -> StoredSizes:
    connection = await asyncpg.connect(settings.database_url)
    try:
        head = await connection.fetchrow(_HEAD, LEDGER)
        return StoredSizes(head["position"], {row["name"]: row["bytes"] for row in await connection.fetch(_SIZES)})
    finally:
        await connection.close()


def _add_sizes(section: Section, before: StoredSizes, after: StoredSizes) -> None:
    """Adds what each table and index has grown by, the largest first. Leaves out what has not grown by a byte for a transfer."""
    transfers = after.events - before.events
    grown = {name: (size - before.bytes_by_name[name]) / transfers for name, size in after.bytes_by_name.items()}
    section.measurement("on disk: all tables and indexes").add({"bytes of one transfer": sum(grown.values())})
    for name, size in sorted(grown.items(), key=lambda each: -each[1]):
        if size >= 1:
            section.measurement(f"on disk: {name}").add({"bytes of one transfer": size})
