"""The command line of the benchmarks: `python -m bench`."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import msgspec
import typer
import uvloop
from pymongo import AsyncMongoClient
from redis.asyncio import Redis as RedisClient

from bench.benchmarks.commands import measure_commands, measure_single
from bench.benchmarks.cost import measure_cost
from bench.benchmarks.fairness import measure_fairness
from bench.benchmarks.growth import measure_growth
from bench.benchmarks.layers import measure_layers
from bench.benchmarks.ledgers import measure_ledgers
from bench.benchmarks.optional_stores import measure_optional_stores
from bench.benchmarks.past_balances import measure_past_balances
from bench.benchmarks.pipeline import measure_pipeline, measure_visible
from bench.benchmarks.projecting import measure_projecting, measure_replay
from bench.benchmarks.publishing import measure_publishing
from bench.benchmarks.queries import measure_queries
from bench.benchmarks.searching import measure_search
from bench.benchmarks.speed_steps import measure_steps
from bench.benchmarks.stores import measure_stores
from bench.benchmarks.timelining import measure_timeline
from bench.benchmarks.writers import measure_writers
from bench.measurement import Section
from bench.report import document, machine_facts, write
from bench.rig import CACHE_GB, Rig, open_rig, say, sync_microseconds
from bench.scale import FULL, NORMAL, QUICK, Scale
from bench.targets import TARGETS
from shared.errors import DaybookError

Measure = Callable[[Rig], Awaitable[Section]]

BENCHMARKS: Final[dict[str, Measure]] = {
    "stores": measure_stores,
    "commands": measure_commands,
    "single": measure_single,
    "fairness": measure_fairness,
    "writers": measure_writers,
    "cost": measure_cost,
    "layers": measure_layers,
    "steps": measure_steps,
    "queries": measure_queries,
    "projecting": measure_projecting,
    "replay": measure_replay,
    "publishing": measure_publishing,
    "visible": measure_visible,
    "pipeline": measure_pipeline,
    "growth": measure_growth,
    "asof": measure_past_balances,
    "ledgers": measure_ledgers,
    "search": measure_search,
    "timeline": measure_timeline,
    "optional": measure_optional_stores,
}
WITH_AN_ENGINE: Final = frozenset(("search", "timeline", "optional"))
"""The benchmarks that run only if they are named: they need what `make engines` gets, and `optional` also MariaDB."""
INTERRUPTED: Final = 130


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"The benchmarks to run: {', '.join(BENCHMARKS)}. Default: all but {', '.join(sorted(WITH_AN_ENGINE))}."
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="The number of times that each figure is measured.", min=1)] = None,
    seconds: Annotated[
        float | None, typer.Option(help="The duration of each load. wrk rounds it up to whole seconds.", min=0.5)
    ] = None,
    accounts: Annotated[int | None, typer.Option(help="The number of accounts of a ledger.", min=2)] = None,
    connections: Annotated[int | None, typer.Option(help="The number of connections of `cost`.", min=1)] = None,
    ledgers: Annotated[int | None, typer.Option(help="The number of ledgers that `ledgers` makes.", min=2)] = None,
    quick: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--quick", help="Run everything for a short time, to see that it works. The figures mean nothing.")
    ] = False,
    full: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--full", help="Use logs of five million events and loads of five minutes. This takes hours.")
    ] = False,
    write_to: Annotated[
        Path | None, typer.Option("--write", help="A folder. Its benchmarks.md gets the tables and plots.", exists=True)
    ] = None,
) -> None:
    """Measure Daybook and its yardsticks on servers that are started for this run. Prints the tables to stdout.

    Example: python -m bench commands single --rounds 3 --seconds 5
    """
    wanted = names or [name for name in BENCHMARKS if name not in WITH_AN_ENGINE]
    if unknown := [name for name in wanted if name not in BENCHMARKS]:
        raise typer.BadParameter(f"there is no benchmark {unknown[0]!r}; the benchmarks are {', '.join(BENCHMARKS)}")
    scale = QUICK if quick else FULL if full else NORMAL
    given = {"rounds": rounds, "seconds": seconds, "accounts": accounts, "connections": connections, "ledgers": ledgers}
    scale = msgspec.structs.replace(scale, **{name: value for name, value in given.items() if value})
    try:
        text, sections, failed = uvloop.run(_measure(wanted, scale))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except DaybookError as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(text)
    if write_to:
        write(write_to, text, sections)
    for name, cause in failed.items():
        typer.echo(f"bench: {name}: {cause}", err=True)
    if failed:
        raise typer.Exit(1)


async def _measure(names: Sequence[str], scale: Scale) -> tuple[str, list[Section], dict[str, DaybookError]]:
    """Returns the document, its sections, and the errors of the benchmarks that failed, by name."""
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with open_rig(scale) as rig:
        machine = machine_facts(scale, sync_microseconds(rig.folder), await _server_versions(rig))
        sections, failed = await measure_each({name: partial(BENCHMARKS[name], rig) for name in names})
    return document(sections, TARGETS, machine, _command()), sections, failed


async def measure_each(
    benchmarks: Mapping[str, Callable[[], Awaitable[Section]]],
) -> tuple[list[Section], dict[str, DaybookError]]:
    """Runs the benchmarks in order. One that fails takes nothing from the others, which may have run for an hour before it.

    Returns the sections of those that succeeded, and the errors of those that failed, by name.
    """
    sections: list[Section] = []
    failed: dict[str, DaybookError] = {}
    for name, measure in benchmarks.items():
        say(name)
        try:
            sections.append(await measure())
        except DaybookError as error:
            failed[name] = error
    return sections, failed


def _command() -> str:
    """Returns the command line of this run."""
    return " ".join(["python -m bench", *sys.argv[1:]])


async def _server_versions(rig: Rig) -> str:
    connection = await asyncpg.connect(rig.postgres.superuser_url)
    postgres = await connection.fetchval("SHOW server_version")
    await connection.close()
    async with AsyncMongoClient[dict[str, object]](rig.mongo.url) as mongo:
        mongod = (await mongo.server_info())["version"]
    async with RedisClient.from_url(rig.redis.url) as client:
        redis = (await client.info("server"))["redis_version"]
    caches = f"{CACHE_GB} GB of memory each for the first two"
    return f"PostgreSQL {postgres}, MongoDB {mongod} (one-node replica set), Redis {redis}; {caches}"


if __name__ == "__main__":
    typer.run(main)
