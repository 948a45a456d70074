"""What each step gave that made the command API faster: the same load on the API as it was without it."""

from typing import Final

from bench.benchmarks.commands import batch_lane
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
KNOWN: Final = "+ decided on the states that the last batch left"
ONE_WRITE: Final = "+ an answer in one write"
TODAY: Final = "+ half of those who wait in a transaction, the others answered meanwhile (today)"
IN_TURN: Final = "batches of 500, one after the other"
OVERLAPPED: Final = "batches of 500, the next decided and the last answered while one is written (today)"


async def measure_steps(rig: Rig) -> Section:
    section = Section("steps", "What each step gave")
    scale = rig.scale
    # A ledger for each of those that are to know where it ends: two writers of one disturb each other.
    settings, known, own = [await rig.ledger(scale.accounts) for _ in range(3)]
    careful = (await rig.ledger(scale.accounts)).model_copy(update={"stream_cache_max": 1})
    today, in_turn = rig.command(settings), rig.yardstick("steps:create_in_turn_app", environment_of(own))
    apis = _steps(rig, careful, known) | {ONE_WRITE: in_turn, TODAY: today}
    workload = Workload("POST", "/v1/transfers", min(scale.accounts, 1_000))
    async with running(*apis.values()):
        lanes: dict[str, Lane] = {name: load_lane(api.url, workload, scale, 64) for name, api in apis.items()}
        batches = {IN_TURN: batch_lane(in_turn.url, scale), OVERLAPPED: batch_lane(today.url, scale)}
        await interleave(section, lanes | batches, scale.rounds)
    section.notes.append(
        "Transfers between 1,000 accounts, which a writer comes to know in the first second; batches are between all accounts. "
        "The first three run with `DAYBOOK_STREAM_CACHE_MAX=1`, so that no batch finds all its states in memory."
    )
    section.plots["steps.svg"] = bars("Transfers a second, step by step", section.measurements.values(), "per second")
    return section


def _steps(rig: Rig, careful: Settings, known: Settings) -> dict[str, Api]:
    return {
        PLAIN: rig.yardstick("steps:create_plain_app", environment_of(careful)),
        CALM: rig.yardstick("steps:create_calm_app", environment_of(careful)),
        SHORT: rig.yardstick("steps:create_two_writes_app", environment_of(careful)),
        KNOWN: rig.yardstick("steps:create_two_writes_app", environment_of(known)),
    }
