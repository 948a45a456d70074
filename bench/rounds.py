"""A B C A B C …: whatever slows the machine for a moment slows everything that is compared."""

import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from bench.client import Order
from bench.load import columns, run_load
from bench.measurement import Column, Section, number
from bench.rig import say
from bench.scale import Scale
from bench.workloads import Workload
from dev.children import Child, family

Values = dict[Column, float]
Lane = Callable[[], Awaitable[Values]]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def load_lane(url: str, workload: Workload, scale: Scale, connections: int) -> Lane:
    """Load over HTTP, warmed up for a moment the first time."""
    warm = False

    async def lane() -> Values:
        nonlocal warm
        if not warm:
            await run_load(Order(url, workload, connections, min(scale.seconds, 1)))
            warm = True
        return columns(await run_load(Order(url, workload, connections, scale.seconds)))

    return lane


async def interleave(section: Section, lanes: Mapping[str, Lane], rounds: int) -> None:
    for turn in range(1, rounds + 1):
        for name, lane in lanes.items():
            values = await lane()
            section.measurement(name).add(values)
            texts = ", ".join(f"{number(value, column)} {column}" for column, value in values.items())
            say(f"{section.name}, round {turn} of {rounds}: {name}: {texts}")


def processor_seconds(process: Child) -> float:
    """Of the process, and of its children as long as they live."""
    ticks = 0
    for pid in family(process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def load_seconds() -> float:
    """Processor time of all programs that we ran and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
