"""Measures transfers over HTTP, many at once and one at a time. Compares them with the bare framework and with other programs."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import asyncpg

from bench.benchmarks.stores import insert_single, make_events_table
from bench.interleaving import Lane, Values, interleave, load_lane
from bench.ledger_filling import LIMIT
from bench.load_generators import run_program
from bench.measurement import Section
from bench.plots import bars
from bench.rig import Rig, environment_of, running, say
from bench.scale import Scale
from bench.workloads import Workload, account_id
from bench.yardsticks import crud_api
from dev.data_folder import ROOT

CONNECTIONS: Final = 64
CROWD_CONNECTIONS: Final = 1_000
BATCH_TRANSFERS: Final = 500
BATCH_CONNECTIONS: Final = 4
PACKAGE_ACCOUNTS: Final = 200
PACKAGE_THREADS: Final = 8

ECHO: Final = "echo, 64 connections"
PLAIN_ECHO: Final = "FastAPI alone, echo, 64 connections"
UNIFORM: Final = "transfers, uniform, 64 connections"
ZIPF: Final = "transfers, Zipf, 64 connections"
HOT: Final = "transfers, one hot account, 64 connections"
CROWD: Final = f"transfers, uniform, {CROWD_CONNECTIONS:,} connections"
CRUD: Final = "CRUD with row locks, 64 connections"
PACKAGE: Final = "eventsourcing, 1 thread, no HTTP"
PACKAGE_PARALLEL: Final = f"eventsourcing, {PACKAGE_THREADS} threads, no HTTP"
BATCH: Final = f"transfers in batches of {BATCH_TRANSFERS}, {BATCH_CONNECTIONS} connections"


async def measure_commands(rig: Rig) -> Section:
    section = Section("commands", "Transfers over HTTP, 64 connections")
    async with AsyncExitStack() as exits:
        lanes = await _echo_lanes(rig, exits) | await _transfer_lanes(rig, exits) | await _rival_lanes(rig, exits, section)
        await interleave(section, lanes, rig.scale.rounds)
    section.notes.append(
        "`echo` is a route of the same app in the same kind of process: it validates a transfer and answers. `FastAPI alone` "
        "has that route and nothing else. Transfers choose their accounts uniformly from "
        f"{rig.scale.accounts:,} accounts, or by Zipf's law (1.0) from {rig.scale.accounts_zipf:,}. `CRUD` is FastAPI with "
        "SQLAlchemy's ORM: two rows FOR UPDATE, one insert, one commit; it has neither history nor idempotency keys."
    )
    section.plots["commands.svg"] = bars("Transfers a second, 64 connections", section.measurements.values(), "per second")
    return section


async def _echo_lanes(rig: Rig, exits: AsyncExitStack) -> dict[str, Lane]:
    environment = environment_of(await rig.ledger(rig.scale.accounts))
    echo = rig.yardstick("echo_apps:create_command_app", environment)
    plain = rig.yardstick("echo_apps:create_plain_app", environment)
    await exits.enter_async_context(running(echo, plain))
    workload = Workload("POST", "/echo", rig.scale.accounts)
    return {name: load_lane(api.url, workload, rig.scale, CONNECTIONS) for name, api in ((ECHO, echo), (PLAIN_ECHO, plain))}


async def _transfer_lanes(rig: Rig, exits: AsyncExitStack) -> dict[str, Lane]:
    scale = rig.scale
    near = rig.command(await rig.ledger(scale.accounts))
    wide = rig.command(await rig.ledger(scale.accounts_zipf))
    await exits.enter_async_context(running(near, wide))
    uniform = Workload("POST", "/v1/transfers", scale.accounts)
    zipf = Workload("POST", "/v1/transfers", scale.accounts_zipf, "zipf")
    hot = Workload("POST", "/v1/transfers", scale.accounts, "hot")
    lanes = {
        UNIFORM: load_lane(near.url, uniform, scale, CONNECTIONS),
        CROWD: load_lane(near.url, uniform, scale, CROWD_CONNECTIONS),
        HOT: load_lane(near.url, hot, scale, CONNECTIONS),
        ZIPF: load_lane(wide.url, zipf, scale, CONNECTIONS),
    }
    return lanes | {BATCH: batch_lane(near.url, scale)}


def batch_lane(url: str, scale: Scale) -> Lane:
    workload = Workload("POST", "/v1/transfers/batch", scale.accounts, batch=BATCH_TRANSFERS)
    requests = load_lane(url, workload, scale, BATCH_CONNECTIONS)

    async def lane() -> Values:
        """Measures requests that carry a batch of transfers. The rate counts transfers; the times are those of requests."""
        values = await requests()
        return values | {"per second": values["per second"] * BATCH_TRANSFERS}

    return lane


async def _rival_lanes(rig: Rig, exits: AsyncExitStack, section: Section) -> dict[str, Lane]:
    accounts = [account_id(number) for number in range(1, rig.scale.accounts + 1)]
    url = await rig.scratch()
    await crud_api.make_tables(url, accounts, LIMIT)
    api = rig.yardstick("crud_api:create_app", {crud_api.DATABASE_URL: url})
    await exits.enter_async_context(running(api))
    lanes = {CRUD: load_lane(api.url, Workload("POST", "/transfers", rig.scale.accounts), rig.scale, CONNECTIONS)}
    return lanes | _package_lanes(rig, section)


# ── another package ──────────────────────────────────────────────────────────────────────────────────────────────────


def _package_lanes(rig: Rig, section: Section) -> dict[str, Lane]:
    python = ROOT / ".venv" / "bench" / "bin" / "python"
    if not python.exists():
        missing = "`eventsourcing` is left out, because it is not installed: run `make bench` to install it."
        say(missing)
        section.notes.append(missing)
        return {}
    return {PACKAGE: _package_lane(rig, python, 1), PACKAGE_PARALLEL: _package_lane(rig, python, PACKAGE_THREADS)}


def _package_lane(rig: Rig, python: Path, threads: int) -> Lane:
    async def lane() -> Values:
        arguments = (await rig.scratch(), str(PACKAGE_ACCOUNTS), str(threads), str(rig.scale.seconds))
        done = json.loads(await run_program([str(python), str(packaged_script()), *arguments]))
        return {"per second": done["transfers"] / done["seconds"]}

    return lane


def packaged_script() -> Path:
    """Returns the path of the script. It is run as a file, because its virtual environment does not have the package `bench`."""
    return Path(crud_api.__file__).with_name("eventsourcing_package.py")


# ── one at a time ────────────────────────────────────────────────────────────────────────────────────────────────────

ALONE: Final = "transfers, 1 connection"
ALONE_HOT: Final = "transfers, one hot account, 1 connection"
ALONE_ECHO: Final = "echo, 1 connection"
INSERT: Final = "bare INSERT and COMMIT, 1 connection"


async def measure_single(rig: Rig) -> Section:
    section = Section("single", "Transfers one at a time")
    scale = rig.scale
    settings = await rig.ledger(scale.accounts)
    api = rig.command(settings)
    echo = rig.yardstick("echo_apps:create_command_app", environment_of(settings))
    url = await rig.scratch()
    await make_events_table(url)
    async with running(api, echo):
        connection = await asyncpg.connect(url)
        lanes: dict[str, Lane] = {
            INSERT: lambda: insert_single(connection, scale.seconds),
            ALONE: load_lane(api.url, Workload("POST", "/v1/transfers", scale.accounts), scale, 1),
            ALONE_HOT: load_lane(api.url, Workload("POST", "/v1/transfers", scale.accounts, "hot"), scale, 1),
            ALONE_ECHO: load_lane(echo.url, Workload("POST", "/echo", scale.accounts), scale, 1),
        }
        await interleave(section, lanes, scale.rounds)
        await connection.close()
    section.notes.append(
        "The bare INSERT writes one row of the event table over asyncpg, in this process and without HTTP, in a transaction of "
        "its own. A transfer writes one event, three rows of streams, three heads of streams, a stored reply and the log's head."
    )
    return section
