"""Measures the processor time of one request in each process. Other load on the machine does not change this figure."""

from typing import Final

from bench.interleaving import Lane, Values, interleave, load_seconds, processor_seconds
from bench.load_client import LoadOrder
from bench.load_generators import run_load
from bench.measurement import Section
from bench.rig import Rig, environment_of, running
from bench.workloads import Workload
from dev.daybook_processes import ApiProcess

WARM_SECONDS: Final = 3
"""In this time the writer caches the accounts, and PostgreSQL plans its statements."""


async def measure_layers(rig: Rig) -> Section:
    section = Section("layers", "Processor time of one request")
    scale = rig.scale
    settings = await rig.ledger(scale.accounts)
    api, echo = rig.command(settings), rig.yardstick("echo_apps:create_command_app", environment_of(settings))
    transfers, echoes = Workload("POST", "/v1/transfers", scale.accounts), Workload("POST", "/echo", scale.accounts)
    async with running(api, echo):
        await run_load(LoadOrder(api.url, transfers, 64, min(WARM_SECONDS, scale.seconds)))
        lanes = {
            "echo, 64 connections": _lane(rig, echo, echoes, 64),
            "transfer, 64 connections": _lane(rig, api, transfers, 64),
            "transfer, 1 connection": _lane(rig, api, transfers, 1),
        }
        await interleave(section, lanes, scale.rounds)
    section.notes.append(
        "Microseconds of processor time, user and system, divided by the requests that were answered. PostgreSQL's time includes "
        "its work in the background."
    )
    return section


def _lane(rig: Rig, api: ApiProcess, workload: Workload, connections: int) -> Lane:
    async def lane() -> Values:
        before = (processor_seconds(api), processor_seconds(rig.postgres), load_seconds())
        load = await run_load(LoadOrder(api.url, workload, connections, rig.scale.seconds))
        after = (processor_seconds(api), processor_seconds(rig.postgres), load_seconds())
        in_api, in_postgres, in_load = ((b - a) / load.requests * 1e6 for a, b in zip(before, after, strict=True))
        return {"API µs": in_api, "PostgreSQL µs": in_postgres, "load µs": in_load}

    return lane
