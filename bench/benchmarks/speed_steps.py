"""Measures what each step that made the command API faster gives today: the same load on the API, and on the API without it."""

from typing import Final

from bench.benchmarks.commands import batch_lane
from bench.interleaving import Lane, Values, interleave, load_lane, processor_seconds
from bench.measurement import Section
from bench.plots import bars
from bench.rig import Rig, environment_of, running
from bench.workloads import Workload
from dev.daybook_processes import ApiProcess

CONNECTIONS: Final = 64
ACCOUNTS: Final = 1_000
MILLION: Final = 1_000_000

TODAY: Final = "today"
WITHOUT: Final = {
    "without: garbage collector calmed": "slower_command_apps:create_collected_app",
    "without: past the router and the middleware": "slower_command_apps:create_routed_app",
    "without: an answer in one write": "slower_command_apps:create_two_writes_app",
    "without: half of those who wait in a transaction": "slower_command_apps:create_in_turn_app",
}
"""A lane → the yardstick that lacks one step."""
NO_STATES: Final = "without: decided on the states that the last batch left"
BATCHES: Final = "batches of 500, today"
IN_TURN: Final = "batches of 500, one after the other"


async def measure_steps(rig: Rig) -> Section:
    section = Section("steps", "What each step gives")
    scale = rig.scale
    workload = Workload("POST", "/v1/transfers", min(scale.accounts, ACCOUNTS))
    # Each app has a ledger of its own: apps that share one would hand their commands to the app that writes it.
    today = rig.command(await rig.ledger(scale.accounts))
    forgetful = rig.command((await rig.ledger(scale.accounts)).model_copy(update={"stream_cache_max": 1}))
    without = {name: rig.yardstick(app, environment_of(await rig.ledger(scale.accounts))) for name, app in WITHOUT.items()} | {
        NO_STATES: forgetful
    }
    in_turn = without["without: half of those who wait in a transaction"]
    async with running(today, *without.values()):
        loads = {name: load_lane(api.url, workload, scale, CONNECTIONS) for name, api in ({TODAY: today} | without).items()}
        apis = {TODAY: today} | without | {BATCHES: today, IN_TURN: in_turn}
        loads |= {name: batch_lane(apis[name].url, scale) for name in (BATCHES, IN_TURN)}
        lanes = {name: _with_processor_time(rig, apis[name], load) for name, load in loads.items()}
        await interleave(section, lanes, scale.rounds)
    section.notes.append(
        f"Transfers between {ACCOUNTS:,} accounts, which a writer comes to know in the first second; batches are between all "
        "accounts. Microseconds are processor time of the API and of PostgreSQL, divided by the transfers."
    )
    section.plots["steps.svg"] = bars("Transfers a second, without one step", section.measurements.values(), "per second")
    return section


def _with_processor_time(rig: Rig, api: ApiProcess, load: Lane) -> Lane:
    """Returns a lane that also measures what a transfer costs. Its first run warms the app up."""
    is_warm = False

    async def lane() -> Values:
        nonlocal is_warm
        if not is_warm:
            await load()
            is_warm = True
        before = processor_seconds(api), processor_seconds(rig.postgres)
        values = await load()
        transfers = values["per second"] * rig.scale.seconds
        in_api, in_postgres = processor_seconds(api) - before[0], processor_seconds(rig.postgres) - before[1]
        return values | {"API µs": in_api / transfers * MILLION, "PostgreSQL µs": in_postgres / transfers * MILLION}

    return lane
