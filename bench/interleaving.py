"""Runs the lanes of a comparison in turns (A B C A B C …), so that a slow phase of the machine slows all of them alike."""

import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from bench.load_client import LoadOrder
from bench.load_generators import columns, run_load
from bench.measurement import Column, Section, number
from bench.rig import say
from bench.scale import Scale
from bench.workloads import Workload
from dev.child_processes import Child, family

Values = dict[Column, float]
Lane = Callable[[], Awaitable[Values]]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def load_lane(url: str, workload: Workload, scale: Scale, connections: int) -> Lane:
    """Returns a lane that puts load on a server over HTTP. Its first run warms the server up before it measures."""
    warm = False

    async def lane() -> Values:
        nonlocal warm
        if not warm:
            await run_load(LoadOrder(url, workload, connections, min(scale.seconds, 1)))
            warm = True
        return columns(await run_load(LoadOrder(url, workload, connections, scale.seconds)))

    return lane


async def interleave(section: Section, lanes: Mapping[str, Lane], rounds: int) -> None:
    for turn in range(1, rounds + 1):
        for name, lane in lanes.items():
            values = await lane()
            section.measurement(name).add(values)
            texts = ", ".join(f"{number(value, column)} {column}" for column, value in values.items())
            say(f"{section.name}, round {turn} of {rounds}: {name}: {texts}")


def processor_seconds(process: Child) -> float:
    """Returns the processor time in seconds that a process and its running children have used."""
    ticks = 0
    for pid in family(process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def load_seconds() -> float:
    """Returns the processor time in seconds of all child processes of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
