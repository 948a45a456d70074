"""The whole of Daybook under a load that it has to hold, and how soon what was commanded can be read."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from bench.client import FIRST_ERROR, Answer, Connection, Order, connected, percentile
from bench.load import columns, run_load
from bench.measurement import Section
from bench.plots import lines
from bench.rig import Rig, running, say
from bench.rounds import Values, load_seconds, processor_seconds
from bench.workloads import API_KEY, Workload, get
from dev.children import Child, family
from dev.processes import Api
from dev.seed import bearer, caught_up, list_projections
from shared.errors import StackError

RATE: Final = 1_500
CONNECTIONS: Final = 64
LOOK_SECONDS: Final = 0.2
SETTLE_SECONDS: Final = 30.0

PIPELINE: Final = "commands, whole pipeline"
LAG: Final = "lag of the slowest read model"
MEMORY: Final = "memory of both APIs and the worker"


class Look(msgspec.Struct, frozen=True):
    """One moment: seconds since the load began, the slowest read model's lag, and what our processes hold."""

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
        load = asyncio.create_task(run_load(Order(command.url, workload, CONNECTIONS, seconds, per_second=RATE)))
        looks = await _watch(load, query, (command, query, worker))
        done = await load
        after = _seconds(processes)
    section.measurement(PIPELINE).add(columns(done))
    _describe(section, looks, seconds)
    for name, spent in after.items():
        section.measurement(name).add({"µs of one transfer": (spent - before[name]) / done.requests * 1e6})
    return section


def _seconds(processes: Mapping[str, Child]) -> dict[str, float]:
    """Processor time so far, by name."""
    return {name: processor_seconds(process) for name, process in processes.items()} | {"load": load_seconds()}


def _describe(section: Section, looks: list[Look], seconds: float) -> None:
    lags = sorted(look.lag_seconds * 1000 for look in looks)
    spread: Values = {"p50 ms": percentile(lags, 50), "p99 ms": percentile(lags, 99), "growth": _growth(lags, looks)}
    section.measurement(LAG).add(spread)
    section.measurement(MEMORY).add({"growth": _memory_growth(looks)})
    points = [(look.at, look.lag_seconds * 1000) for look in looks]
    section.plots["pipeline.svg"] = lines(f"Lag of the slowest read model at {RATE:,} transfers a second", points, "s", "ms")
    section.notes.append(
        f"For {seconds:g} s, with the load, both APIs, the worker and the three servers on the same cores; a request is timed "
        "from when it was due. Lag is how long the oldest event that a read model does not show has been in the log, by "
        f"`GET /v1/projections`, {1 / LOOK_SECONDS:.0f} times a second. Growth compares the last third of the time with the "
        "middle third: 1 is none. Microseconds are processor time, user and system, divided by the requests that were answered."
    )


async def _ready(query: Api) -> None:
    if not await caught_up(query.url, API_KEY, SETTLE_SECONDS):
        msg = f"the read models do not catch up: {query.last_words()}"
        raise StackError(msg)


async def _watch(load: "asyncio.Task[Any]", query: Api, processes: Iterable[Child]) -> list[Look]:
    begin = time.perf_counter()
    looks: list[Look] = []
    async with httpx2.AsyncClient(headers=bearer(API_KEY), timeout=10, trust_env=False) as client:
        while not load.done():
            lags = [each["lag_seconds"] for each in await list_projections(client, query.url)]
            if lags:
                at = time.perf_counter() - begin
                looks.append(Look(at, max(lags), sum(_mebibytes(process.pid) for process in processes)))
            await asyncio.sleep(LOOK_SECONDS)
    return looks


def _mebibytes(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid))
    return pages * 4 / 1024


def _growth(lags: list[float], looks: list[Look]) -> float:
    """Of the mean lag; lags that are within the noise of a wake-up count as that."""
    floor = percentile(lags, 50) or 1.0
    middle, last = (max(sum(look.lag_seconds for look in part) / len(part) * 1000, floor) for part in _thirds(looks))
    return last / middle


def _memory_growth(looks: list[Look]) -> float:
    middle, last = (sum(look.mebibytes for look in part) / len(part) for part in _thirds(looks))
    return last / middle


def _thirds(looks: list[Look]) -> tuple[list[Look], list[Look]]:
    third = max(len(looks) // 3, 1)
    return looks[third : 2 * third] or looks, looks[-third:]


# ── from a command to what can be read ───────────────────────────────────────────────────────────────────────────────

VISIBLE: Final = "command → visible in both stores"
VISIBLE_RATE: Final = 200
VISIBLE_CONNECTIONS: Final = 16
"""Of each kind. More than are ever busy at once, so that nothing waits for one."""


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
        "From when a transfer is sent until two queries have answered that hold it: the payer's account (Redis) and the transfer "
        "itself (MongoDB), both asked with `Daybook-Min-Position` and `handling=strict`. One transfer in ten is looked for; a "
        "query that has to wait is told by the worker when to look."
    )
    return section


class Visits:
    """Sends transfers at a steady rate, and follows one in ten to the query API."""

    def __init__(self, accounts: int, commands: list[Connection], queries: list[Connection]) -> None:
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
        visits = Visits(accounts, commands, queries)
        begin = time.perf_counter()
        for number in range(int(seconds * VISIBLE_RATE)):
            if (early := begin + number / VISIBLE_RATE - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.create_task(visits.visit(follow=number % 10 == 0))
    return visits.took


Pool = asyncio.Queue[Connection]


def _pool(connections: list[Connection]) -> Pool:
    pool: Pool = asyncio.Queue()
    for connection in connections:
        pool.put_nowait(connection)
    return pool


async def _ask(pool: Pool, request: bytes) -> Answer:
    """Raises:
    StackError: the answer is not what was asked for.
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
