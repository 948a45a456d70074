"""Measures the time of a command and the bytes of an event, in a small log and in a large one."""

from typing import Final

import asyncpg

from bench.interleaving import Lane, interleave, load_lane
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.rig import Rig, running, say
from bench.workloads import Workload
from shared.settings import Settings

SMALL: Final = "small log"
LARGE: Final = "large log"
TABLES: Final = ("events", "stream_events", "streams", "idempotency_keys", "log_heads")
CHUNK: Final = 100_000


async def measure_growth(rig: Rig) -> Section:
    section = Section("growth", "Cost as the log grows")
    scale = rig.scale
    small, large = scale.growth_events
    filled = {SMALL: await _filled(rig, small, section, SMALL), LARGE: await _filled(rig, large, section, LARGE)}
    apis = {name: rig.command(settings) for name, settings in filled.items()}
    workload = Workload("POST", "/v1/transfers", scale.accounts)
    async with running(*apis.values()):
        lanes: dict[str, Lane] = {name: load_lane(api.url, workload, scale, 1) for name, api in apis.items()}
        await interleave(section, lanes, scale.rounds)
    section.notes.append(
        "Logs with {:,} and {:,} transfers. One connection sends one command at a time. Bytes are those on disk for each "
        "transfer, with its keys and indexes, after a vacuum of the tables.".format(*scale.growth_events)
    )
    return section


async def _filled(rig: Rig, events: int, section: Section, name: str) -> Settings:
    settings = await rig.ledger(rig.scale.accounts)
    before = await _bytes(settings)
    for start in range(0, events, CHUNK):
        say(f"growth: {name}: {start:,} of {events:,} transfers")
        await append_uniform(settings, min(CHUNK, events - start), rig.scale.accounts)
    await rig.settle(settings.database_url.rpartition("/")[2])
    section.measurement(name).add({"bytes per event": (await _bytes(settings) - before) / events})
    return settings


async def _bytes(settings: Settings) -> int:
    connection = await asyncpg.connect(settings.database_url)
    try:
        asked = "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest($1::text[]) name"
        return int(await connection.fetchval(asked, list(TABLES)))
    finally:
        await connection.close()
