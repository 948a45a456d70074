"""Measures all of Daybook under a steady load, and the time until a query shows the effect of a command."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from bench.interleaving import Values, load_seconds, processor_seconds
from bench.load_client import FIRST_ERROR, HttpReply, LoadConnection, LoadOrder, connected, percentile
from bench.load_generators import columns, run_load
from bench.measurement import Section
from bench.plots import lines
from bench.rig import Rig, running, say
from bench.workloads import API_KEY, Workload, get
from dev.child_processes import Child, family
from dev.daybook_processes import ApiProcess
from shared.errors import StackError
from shared.web.api_client import bearer, list_projections, wait_until_caught_up

RATE: Final = 1_500
CONNECTIONS: Final = 64
LOOK_SECONDS: Final = 0.2
SETTLE_SECONDS: Final = 30.0

PIPELINE: Final = "commands, whole pipeline"
LAG: Final = "lag of the slowest read model"
MEMORY: Final = "memory of both APIs and the worker"


class PipelineSample(msgspec.Struct, frozen=True):
    """A sample: seconds since the load began, lag of the slowest read model in seconds, and memory of the processes in MiB."""

    at: float
    lag_seconds: float
    mebibytes: float


async def measure_pipeline(rig: Rig) -> Section:
    section = Section("pipeline", f"The whole pipeline at {RATE:,} transfers a second")
    settings = await rig.ledger(rig.scale.accounts)
    command, query, worker = rig.command(settings), rig.query(settings), rig.worker(settings)
    processes: dict[str, Child] = {"PostgreSQL": rig.postgres, "MongoDB": rig.mongo, "Redis": rig.redis}
    processes |= {"command API": command, "query API": query, "worker": worker}
    async with running(command, query, worker):
        await _ready(query)
        seconds = rig.scale.pipeline_seconds
        say(f"pipeline: {RATE:,} transfers a second for {seconds:g} s")
        workload = Workload("POST", "/v1/transfers", rig.scale.accounts)
        before = _seconds(processes)
        load = asyncio.create_task(run_load(LoadOrder(command.url, workload, CONNECTIONS, seconds, per_second=RATE)))
        looks = await _watch(load, query, (command, query, worker))
        done = await load
        after = _seconds(processes)
    section.measurement(PIPELINE).add(columns(done))
    _describe(section, looks, seconds)
    for name, spent in after.items():
        section.measurement(name).add({"µs of one transfer": (spent - before[name]) / done.requests * 1e6})
    return section


def _seconds(processes: Mapping[str, Child]) -> dict[str, float]:
    """Returns the processor time that each process has used so far, by name."""
    return {name: processor_seconds(process) for name, process in processes.items()} | {"load": load_seconds()}


def _describe(section: Section, looks: list[PipelineSample], seconds: float) -> None:
    lags = sorted(look.lag_seconds * 1000 for look in looks)
    spread: Values = {"p50 ms": percentile(lags, 50), "p99 ms": percentile(lags, 99), "growth": _growth(lags, looks)}
    section.measurement(LAG).add(spread)
    section.measurement(MEMORY).add({"growth": _memory_growth(looks)})
    points = [(look.at, look.lag_seconds * 1000) for look in looks]
    section.plots["pipeline.svg"] = lines(f"Lag of the slowest read model at {RATE:,} transfers a second", points, "s", "ms")
    section.notes.append(
        f"For {seconds:g} s, with the load, both APIs, the worker and the three servers on the same cores. A request is timed "
        "from when it was due. Lag is how long the oldest event that a read model does not show has been in the log, from "
        f"`GET /v1/projections`, {1 / LOOK_SECONDS:.0f} times a second. Growth compares the last third of the time with the "
        "middle third: 1 is none. Microseconds are processor time, user and system, divided by the requests that were answered."
    )


async def _ready(query: ApiProcess) -> None:
    if not await wait_until_caught_up(query.url, API_KEY, SETTLE_SECONDS):
        msg = f"the read models do not catch up: {query.last_words()}"
        raise StackError(msg)


async def _watch(load: "asyncio.Task[Any]", query: ApiProcess, processes: Iterable[Child]) -> list[PipelineSample]:
    begin = time.perf_counter()
    looks: list[PipelineSample] = []
    async with httpx2.AsyncClient(headers=bearer(API_KEY), timeout=10, trust_env=False) as client:
        while not load.done():
            lags = [each["lag_seconds"] for each in await list_projections(client, query.url)]
            if lags:
                at = time.perf_counter() - begin
                looks.append(PipelineSample(at, max(lags), sum(_mebibytes(process.pid) for process in processes)))
            await asyncio.sleep(LOOK_SECONDS)
    return looks


def _mebibytes(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid))
    return pages * 4 / 1024


def _growth(lags: list[float], looks: list[PipelineSample]) -> float:
    """Returns the mean lag of the last third, divided by that of the middle third.

    Each mean is at least the median lag: a smaller lag is normal, because a wake-up takes some time.
    """
    floor = percentile(lags, 50) or 1.0
    middle, last = (max(sum(look.lag_seconds for look in part) / len(part) * 1000, floor) for part in _thirds(looks))
    return last / middle


def _memory_growth(looks: list[PipelineSample]) -> float:
    middle, last = (sum(look.mebibytes for look in part) / len(part) for part in _thirds(looks))
    return last / middle


def _thirds(looks: list[PipelineSample]) -> tuple[list[PipelineSample], list[PipelineSample]]:
    third = max(len(looks) // 3, 1)
    return looks[third : 2 * third] or looks, looks[-third:]


# ── from a command to what can be read ───────────────────────────────────────────────────────────────────────────────

VISIBLE: Final = "command → visible in both stores"
VISIBLE_RATE: Final = 200
VISIBLE_CONNECTIONS: Final = 16
"""The number of connections to each API. There are never as many requests at once, so no request waits for a connection."""


async def measure_visible(rig: Rig) -> Section:
    section = Section("visible", f"From a command to what can be read, at {VISIBLE_RATE} transfers a second")
    settings = await rig.ledger(rig.scale.accounts)
    command, query, worker = rig.command(settings), rig.query(settings), rig.worker(settings)
    async with running(command, query, worker):
        await _ready(query)
        for turn in range(1, rig.scale.rounds + 1):
            took = sorted(await _visible_times(rig.scale.accounts, command.url, query.url, rig.scale.visible_seconds))
            p50, p99 = percentile(took, 50) * 1000, percentile(took, 99) * 1000
            section.measurement(VISIBLE).add({"p50 ms": p50, "p99 ms": p99})
            say(f"visible, round {turn} of {rig.scale.rounds}: {p50:.1f} p50 ms, {p99:.1f} p99 ms")
    section.notes.append(
        "The time from sending a transfer until two queries have answered with it: the payer's account (Redis) and the transfer "
        "itself (MongoDB), both with `Daybook-Min-Position` and `handling=strict`. One transfer in ten is followed. The worker "
        "publishes its positions, so that a waiting query need not poll."
    )
    return section


class FollowedTransfers:
    """Sends transfers, and measures for some of them the time until the query API shows them."""

    def __init__(self, accounts: int, commands: list[LoadConnection], queries: list[LoadConnection]) -> None:
        self._requests = Workload("POST", "/v1/transfers", accounts).requests()
        self._commands = _pool(commands)
        self._queries = _pool(queries)
        self.took: list[float] = []

    async def visit(self, *, follow: bool) -> None:
        begin = time.perf_counter()
        answer = await _ask(self._commands, next(self._requests))
        if follow:
            said = msgspec.json.decode(answer.body)
            headers = f"Daybook-Min-Position: {said['position']}\r\nPrefer: wait=5, handling=strict\r\n"
            paths = (f"/v1/accounts/{said['from_account_id']}/balance", f"/v1/transfers/{said['id']}")
            await asyncio.gather(*(_ask(self._queries, get(path, headers)) for path in paths))
            self.took.append(time.perf_counter() - begin)


async def _visible_times(accounts: int, command_url: str, query_url: str, seconds: float) -> list[float]:
    async with (
        connected(command_url, VISIBLE_CONNECTIONS) as commands,
        connected(query_url, VISIBLE_CONNECTIONS) as queries,
        asyncio.TaskGroup() as tasks,
    ):
        visits = FollowedTransfers(accounts, commands, queries)
        begin = time.perf_counter()
        for number in range(int(seconds * VISIBLE_RATE)):
            if (early := begin + number / VISIBLE_RATE - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.create_task(visits.visit(follow=number % 10 == 0))
    return visits.took


Pool = asyncio.Queue[LoadConnection]


def _pool(connections: list[LoadConnection]) -> Pool:
    pool: Pool = asyncio.Queue()
    for connection in connections:
        pool.put_nowait(connection)
    return pool


async def _ask(pool: Pool, request: bytes) -> HttpReply:
    """Sends a request on a free connection.

    Raises:
        StackError: the answer is an error.
    """
    connection = await pool.get()
    try:
        answer = await connection.ask(request)
    finally:
        pool.put_nowait(connection)
    if answer.status >= FIRST_ERROR:
        msg = f"{request.partition(b' HTTP')[0].decode()} was answered {answer.status}: {answer.body.decode()}"
        raise StackError(msg)
    return answer
