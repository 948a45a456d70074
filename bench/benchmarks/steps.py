"""What each step gave that made the command API faster: the same load on the API as it was without it."""

from contextlib import AsyncExitStack
from typing import Final

from bench.measurement import Section
from bench.plots import bars
from bench.rig import Rig, environment_of, running
from bench.rounds import Lane, interleave, load_lane
from bench.workloads import Workload
from dev.processes import Api
from shared.settings import Settings

PLAIN: Final = "FastAPI's routing, Python's garbage collection, states read for each batch"
CALM: Final = "+ garbage collector calmed"
SHORT: Final = "+ busiest commands past the router and the middleware"
TODAY: Final = "+ decided on the states that the last batch left (today)"


async def measure_steps(rig: Rig) -> Section:
    section = Section("steps", "What each step gave")
    scale = rig.scale
    careful = (await rig.ledger(scale.accounts)).model_copy(update={"stream_cache_max": 1})
    apis = _steps(rig, careful) | {TODAY: rig.command(await rig.ledger(scale.accounts))}
    workload = Workload("POST", "/v1/transfers", min(scale.accounts, 1_000))
    async with AsyncExitStack() as exits:
        await exits.enter_async_context(running(*apis.values()))
        lanes: dict[str, Lane] = {name: load_lane(api.url, workload, scale, 64) for name, api in apis.items()}
        await interleave(section, lanes, scale.rounds)
    section.notes.append(
        "Transfers between 1,000 accounts, which a writer comes to know in the first second. The first three run with "
        "`DAYBOOK_STREAM_CACHE_MAX=1`, so that no batch finds all its states in memory."
    )
    section.plots["steps.svg"] = bars("Transfers a second, step by step", section.measurements.values(), "per second")
    return section


def _steps(rig: Rig, settings: Settings) -> dict[str, Api]:
    environment = environment_of(settings)
    return {
        PLAIN: rig.yardstick("steps:create_plain_app", environment),
        CALM: rig.yardstick("steps:create_calm_app", environment),
        SHORT: rig.command(settings),
    }
