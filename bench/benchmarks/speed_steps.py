"""Measures the effect of each step that made the command API faster: the same load with the step and without it."""

from typing import Final

from bench.benchmarks.commands import batch_lane
from bench.interleaving import Lane, interleave, load_lane
from bench.measurement import Section
from bench.plots import bars
from bench.rig import Rig, environment_of, running
from bench.workloads import Workload
from dev.daybook_processes import ApiProcess
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
    # Each app that keeps the head of its ledger in memory gets a ledger of its own, because two writers of one ledger would
    # make each other's memory stale.
    settings, known, own = [await rig.ledger(scale.accounts) for _ in range(3)]
    careful = (await rig.ledger(scale.accounts)).model_copy(update={"stream_cache_max": 1})
    today, in_turn = rig.command(settings), rig.yardstick("slower_command_apps:create_in_turn_app", environment_of(own))
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


def _steps(rig: Rig, careful: Settings, known: Settings) -> dict[str, ApiProcess]:
    return {
        PLAIN: rig.yardstick("slower_command_apps:create_plain_app", environment_of(careful)),
        CALM: rig.yardstick("slower_command_apps:create_calm_app", environment_of(careful)),
        SHORT: rig.yardstick("slower_command_apps:create_two_writes_app", environment_of(careful)),
        KNOWN: rig.yardstick("slower_command_apps:create_two_writes_app", environment_of(known)),
    }
