"""Measures one ledger with one, two and four command processes, and computes what more cores would carry."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.interleaving import Lane, Values, interleave, load_seconds, processor_seconds
from bench.load_client import Load, LoadOrder
from bench.load_generators import run_load
from bench.measurement import Measurement, Section
from bench.rig import Rig, running
from bench.workloads import Workload
from dev.child_processes import Child
from dev.daybook_processes import ApiProcess

CONNECTIONS: Final = 64
"""The number of connections to all command processes together."""
WARM_SECONDS: Final = 3
PROCESSES: Final = (1, 2, 4)
CORES: Final = (4, 8, 16)
MOST_PROCESSES: Final = 16
MILLION: Final = 1_000_000


def lane_name(processes: int) -> str:
    return f"transfers, {processes} command process{'es' if processes > 1 else ''}"


def _share_name(processes: int, who: str) -> str:
    return f"{lane_name(processes)}: {who}"


async def measure_writers(rig: Rig) -> Section:
    section = Section("writers", "Several command processes on one ledger, 64 connections")
    async with AsyncExitStack() as exits:
        lanes = {lane_name(count): await _lane(rig, section, count, exits) for count in PROCESSES}
        await interleave(section, lanes, rig.scale.rounds)
    _compute(section)
    section.notes.append(
        "The connections are spread evenly over the processes, and a worker runs. The rates are summed, the times are those of "
        "the slowest process. Microseconds are processor time, user and system: of the process that writes, per transfer of the "
        "ledger; of each other command process, per transfer that it was sent; of all else, per transfer of the ledger."
    )
    return section


async def _lane(rig: Rig, section: Section, count: int, exits: AsyncExitStack) -> Lane:
    settings = await rig.ledger(rig.scale.accounts)
    apis = [rig.command(settings) for _ in range(count)]
    worker = rig.worker(settings)
    await exits.enter_async_context(running(*apis, worker))
    workload = Workload("POST", "/v1/transfers", rig.scale.accounts)
    others: Sequence[Child] = (worker, rig.postgres, rig.mongo, rig.redis)
    await _load(apis, workload, min(WARM_SECONDS, rig.scale.seconds))

    async def lane() -> Values:
        before = [processor_seconds(api) for api in apis], sum(map(processor_seconds, others)) + load_seconds()
        loads = await _load(apis, workload, rig.scale.seconds)
        spent = [processor_seconds(api) - begin for api, begin in zip(apis, before[0], strict=True)]
        everything_else = sum(map(processor_seconds, others)) + load_seconds() - before[1]
        _add_shares(section, loads, spent, everything_else)
        return {
            "per second": sum(load.per_second for load in loads),
            "p50 ms": max(load.p50_ms for load in loads),
            "p99 ms": max(load.p99_ms for load in loads),
        }

    return lane


async def _load(apis: Sequence[ApiProcess], workload: Workload, seconds: float) -> list[Load]:
    connections = CONNECTIONS // len(apis)
    return await asyncio.gather(*(run_load(LoadOrder(api.url, workload, connections, seconds)) for api in apis))


def _add_shares(section: Section, loads: Sequence[Load], spent: Sequence[float], everything_else: float) -> None:
    """Adds the processor time of each part. The process that writes is the one that used most."""
    count, transfers = len(loads), sum(load.requests for load in loads)
    writer = max(range(count), key=spent.__getitem__)
    shares = {WRITER: spent[writer] / transfers, ELSE: everything_else / transfers}
    if count > 1:
        shares[OTHERS] = (sum(spent) - spent[writer]) / (transfers - loads[writer].requests)
    for who, seconds in shares.items():
        section.measurement(_share_name(count, who)).add({"µs of one transfer": seconds * MILLION})


WRITER: Final = "the one that writes"
OTHERS: Final = "each other one"
ELSE: Final = "worker, stores and load"


# ── more cores ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _compute(section: Section) -> None:
    """Adds what more cores would carry."""
    costs = WriterCosts(section.measurements)
    for cores in CORES:
        processes, rate, limit = max(
            (costs.rate(cores, count) for count in range(1, MOST_PROCESSES + 1)), key=lambda best: best[1]
        )
        section.measurement(f"computed: {cores} cores, {processes} command processes; limit: {limit}").add({"per second": rate})


class WriterCosts:
    """The processor time of one transfer in each process, in microseconds, from the lanes with one and with most processes.

    With n processes, the writer is sent one transfer in n, and is handed the others. So it is spared a part of the work of n - 1
    transfers in n. What it is spared of one transfer is measured with most processes, and is the same for every n.
    """

    def __init__(self, measurements: Mapping[str, Measurement]) -> None:
        def cost(processes: int, who: str) -> float:
            return measurements[_share_name(processes, who)].median("µs of one transfer")

        most = PROCESSES[-1]
        self.alone = cost(1, WRITER)
        self.spared = (self.alone - cost(most, WRITER)) / (1 - 1 / most)
        self.other = cost(most, OTHERS)
        self.everything_else = cost(most, ELSE)

    def rate(self, cores: int, processes: int) -> tuple[int, float, str]:
        """Returns the number of processes, the transfers a second that they carry on this many cores, and what limits them."""
        handed = 1 - 1 / processes
        writer = self.alone - handed * self.spared
        total = writer + handed * self.other + self.everything_else
        rates = {"the process that writes": MILLION / writer, "the cores": cores * MILLION / total}
        limit = min(rates, key=rates.__getitem__)
        return processes, rates[limit], limit
