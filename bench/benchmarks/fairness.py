"""Measures how much the load of one caller slows the commands of another: a bystander alone, and beside full batches."""

import asyncio
from typing import Final

from bench.benchmarks.commands import BATCH_CONNECTIONS, BATCH_TRANSFERS, batch_lane
from bench.interleaving import Lane, Values, interleave, load_lane
from bench.load_client import LoadOrder
from bench.load_generators import columns, run_load
from bench.measurement import Section
from bench.rig import Rig, running
from bench.scale import Scale
from bench.workloads import BYSTANDER_KEY, Workload
from command_api.writer.queue import ACTIVE_SECONDS

QUIET: Final = "bystander alone"
BESIDE: Final = f"bystander beside {BATCH_CONNECTIONS} connections with batches of {BATCH_TRANSFERS}"

BATCHES_ALONE: Final = "the transfers of these batches, without the bystander"
BATCHES_BESIDE: Final = "the transfers of these batches, beside the bystander"

EXTRA_SECONDS: Final = 1.0
"""The batches begin this much before the bystander, and end this much after it."""


async def measure_fairness(rig: Rig) -> Section:
    section = Section("fairness", "One caller beside another that sends full batches")
    scale = rig.scale
    api = rig.command(await rig.ledger(scale.accounts))
    bystander = Workload("POST", "/v1/transfers", scale.accounts, api_key=BYSTANDER_KEY)
    async with running(api):
        alone = load_lane(api.url, bystander, scale, 1)
        lanes = {QUIET: alone, BATCHES_ALONE: _quiet(batch_lane(api.url, scale)), BESIDE: _beside(api.url, alone, scale, section)}
        await interleave(section, lanes, scale.rounds)
    section.notes.append(
        "The bystander sends one transfer after another over one connection. Both callers have their own API key and share one "
        "ledger and one command API. The load generators and the servers share the processors of the machine. The rates of the "
        "batches count transfers, and their times are those of requests."
    )
    return section


def _quiet(batches: Lane) -> Lane:
    async def lane() -> Values:
        """Measures the batches when the bystander does not count as active any more."""
        await asyncio.sleep(ACTIVE_SECONDS)
        return await batches()

    return lane


def _beside(url: str, alone: Lane, scale: Scale, section: Section) -> Lane:
    workload = Workload("POST", "/v1/transfers/batch", scale.accounts, batch=BATCH_TRANSFERS)
    order = LoadOrder(url, workload, BATCH_CONNECTIONS, scale.seconds + 2 * EXTRA_SECONDS)

    async def lane() -> Values:
        batches = asyncio.create_task(run_load(order))
        try:
            await asyncio.sleep(EXTRA_SECONDS)
            values = await alone()
        finally:
            load = columns(await batches)
        section.measurement(BATCHES_BESIDE).add(load | {"per second": load["per second"] * BATCH_TRANSFERS})
        return values

    return lane
