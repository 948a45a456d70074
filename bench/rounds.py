"""A B C A B C …: whatever slows the machine for a moment slows everything that is compared."""

from collections.abc import Awaitable, Callable, Mapping

from bench.client import Order
from bench.load import columns, run_load
from bench.measurement import Column, Section, number
from bench.rig import say
from bench.scale import Scale
from bench.workloads import Workload

Values = dict[Column, float]
Lane = Callable[[], Awaitable[Values]]


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
