"""Measures what SQL reporting, search and publishing cost: how fast a worker is with each of them and with all, and idle time."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from alembic import command
from sqlalchemy import text

from bench.benchmarks.ledgers import measure_idle
from bench.benchmarks.publishing import published_per_second
from bench.interleaving import Lane, Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.read_model_watch import watch_read_models
from bench.rig import Rig, running, say
from dev.child_processes import Child
from dev.daybook_processes import ApiProcess
from dev.nats_server import NatsServer
from dev.search_servers import OpenSearchServer
from dev.servers import MariaDb, start_all, stop_all
from shared.read_models.shapes import READ_MODELS, REPORTS, SEARCH
from shared.reporting.schema import reporting_migrations
from shared.reporting.store import make_engine
from shared.settings import Settings

OFF: Final = "all off"
ON: Final = "all on"
LANES: Final[Mapping[str, tuple[str, ...]]] = {
    OFF: (),
    "SQL reporting in MariaDB": ("sql",),
    "search in OpenSearch": ("search",),
    "publishing to NATS": ("publish",),
    ON: ("sql", "search", "publish"),
}
SETTLE_SECONDS: Final = 10
"""The pause before an idle minute. The worker's caches, and the merges of OpenSearch, end in it."""


class Engines(NamedTuple):
    sql: MariaDb
    search: OpenSearchServer
    publish: NatsServer


async def measure_optional_stores(rig: Rig) -> Section:
    section = Section("optional", "Optional stores")
    engines = Engines(MariaDb("mariadb", rig.folder), OpenSearchServer("opensearch", rig.folder), NatsServer("nats", rig.folder))
    try:
        await start_all(*engines)
        settings = {name: await _settings(rig, engines, number, names) for number, (name, names) in enumerate(LANES.items())}
        say("optional: building the read models for the first time")
        for each in settings.values():
            await _catch_up(rig, each)
        lanes = {name: _lane(rig, each) for name, each in settings.items()}
        await interleave(section, lanes, rig.scale.rounds)
        for name in (OFF, ON):
            await _idle(rig, section, name, settings[name], engines)
    finally:
        await stop_all(*engines)
    section.notes.append(
        f"A worker that starts again finds {rig.scale.backlog_events:,} transfers. `per second` counts the events that each read "
        "model of MongoDB, of Redis and of the optional store has taken when the last of them is at the end of the log. "
        f"`% of a core` is processor time in {rig.scale.idle_seconds:g} s in which nothing happens."
    )
    return section


async def _settings(rig: Rig, engines: Engines, number: int, names: Sequence[str]) -> Settings:
    """Returns the settings of a new ledger with these optional stores, in which it has tables, indexes and topics of its own."""
    own: dict[str, Any] = {}
    if "sql" in names:
        own["reporting_url"] = await _new_tables(engines.sql, f"bench_{number}")
    if "search" in names:
        own |= {"search_url": engines.search.url, "search_prefix": f"bench{number}", "search_timeout_ms": 20_000}
    if "publish" in names:
        own |= {"publish_url": engines.publish.url, "publish_prefix": f"bench{number}"}
    return (await rig.ledger(rig.scale.accounts)).model_copy(update=own)


async def _new_tables(server: MariaDb, database: str) -> str:
    """Makes a database with the tables of SQL reporting. Returns its URL."""
    engine = make_engine(server.url, 10)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE DATABASE {database}"))
    await engine.dispose()
    url = server.url_of(database)
    await asyncio.to_thread(command.upgrade, reporting_migrations(url), "head")
    return url


def _lane(rig: Rig, settings: Settings) -> Lane:
    async def lane() -> Values:
        await append_uniform(settings, rig.scale.backlog_events, rig.scale.accounts)
        return await _catch_up(rig, settings)

    return lane


async def _catch_up(rig: Rig, settings: Settings) -> Values:
    """Starts a worker. Returns how many events per second all its read models take, and how many it publishes."""
    models = [*READ_MODELS, *((REPORTS,) if settings.reporting_url else ()), *((SEARCH,) if settings.search_url else ())]
    values: Values = {}
    async with watch_read_models(settings, models) as follow, running(rig.worker(settings)), asyncio.TaskGroup() as tasks:
        projected = tasks.create_task(follow.per_second())
        if settings.publish_url:
            values["published per second"] = await published_per_second(settings, await follow.head())
        values["per second"] = await projected
    return values


async def _idle(rig: Rig, section: Section, name: str, settings: Settings, engines: Engines) -> None:
    processes: dict[str, ApiProcess | Child] = {
        "command API": rig.command(settings),
        "query API": rig.query(settings),
        "worker": rig.worker(settings),
    }
    stores = {"PostgreSQL": rig.postgres, "MongoDB": rig.mongo, "Redis": rig.redis}
    optional = {"MariaDB": engines.sql, "OpenSearch": engines.search, "NATS": engines.publish}
    async with running(*processes.values()):
        await asyncio.sleep(SETTLE_SECONDS)
        await measure_idle(rig, section, name, processes | stores | (optional if name == ON else {}))
