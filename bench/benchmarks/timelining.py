"""Measures how fast the read model `timeline` follows the log and is rebuilt, and what it costs the read models beside it."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bench.benchmarks.projecting import replay_rate
from bench.benchmarks.searching import catch_up
from bench.interleaving import Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.rig import Rig, say
from bench.workloads import account_id, nonce
from dev.cassandra_server import CassandraServer
from dev.servers import start_all, stop_all
from shared.read_models.generations import Generation
from shared.read_models.shapes import TIMELINE, timeline_day_id, timeline_entry_id
from shared.settings import Settings
from shared.timeline.store import open_store

OFF: Final = "projecting live, timeline off: both stores"
ON: Final = "projecting live, timeline on: both stores"
FOLLOWED: Final = "projecting live, timeline on: timeline"
BULK: Final = "Cassandra bulk load of the rows of as many transfers"
REBUILT: Final = "rebuild of timeline"
_ACCOUNTS: Final = 1_000
_MOMENT: Final = "2026-11-30T12:00:00.000000Z"


async def measure_timeline(rig: Rig) -> Section:
    section = Section("timeline", "Timeline")
    async with _cassandra(rig) as server:
        off = await rig.ledger(rig.scale.accounts)
        on = (await rig.ledger(rig.scale.accounts)).model_copy(update={"timeline_url": server.url})
        for settings in (off, on):
            say("timeline: building the read models for the first time")
            await catch_up(rig, settings, TIMELINE)

        async def without() -> Values:
            await append_uniform(off, rig.scale.backlog_events, rig.scale.accounts)
            return {"per second": (await catch_up(rig, off, TIMELINE))[0]}

        async def beside() -> Values:
            await append_uniform(on, rig.scale.backlog_events, rig.scale.accounts)
            both, followed = await catch_up(rig, on, TIMELINE)
            section.measurement(FOLLOWED).add({"per second": followed})
            return {"per second": both}

        lanes = {
            OFF: without,
            ON: beside,
            BULK: lambda: _load(on, rig.scale.backlog_events),
            REBUILT: lambda: replay_rate(rig, on, "timeline"),
        }
        await interleave(section, lanes, rig.scale.rounds)
    section.notes.append(
        f"A worker that starts again finds {rig.scale.backlog_events:,} transfers. The rates are in events per second, from when "
        "the first of these read models moves until the last one is at the end of the log. The bulk load writes the rows of as "
        "many transfers into an empty table, with the concurrent writes of the driver."
    )
    return section


@asynccontextmanager
async def _cassandra(rig: Rig) -> AsyncIterator[CassandraServer]:
    server = CassandraServer("cassandra", rig.folder)
    await start_all(server)
    try:
        yield server
    finally:
        await stop_all(server)


async def _load(settings: Settings, count: int) -> Values:
    yardstick = Generation(TIMELINE, f"yardstick-{nonce()}", 1)
    async with open_store(settings, read_only=False) as store:
        await store.make_table(yardstick)
        begun = time.perf_counter()
        await store.write(store.table_of(yardstick), _rows(count))
        took = time.perf_counter() - begun
        await store.drop_table(yardstick)
    return {"per second": count / took}


def _rows(count: int) -> Iterator[dict[str, Any]]:
    """Yields the rows of transfers: two entries for each, and a day for each account."""
    for position in range(1, count + 1):
        for owner, amount in ((position % _ACCOUNTS, -1), (position * 7 % _ACCOUNTS, 1)):
            yield {
                "_id": timeline_entry_id(account_id(owner), _MOMENT, position),
                "transfer_id": nonce(),
                "kind": "transfer",
                "amount": amount,
                "balance": position,
                "currency": "EUR",
                "counterparty_account_id": account_id(position % 10),
                "occurred_at": _MOMENT,
                "reference": None,
                "position": position,
            }
    for number in range(_ACCOUNTS):
        day = timeline_day_id(account_id(number), _MOMENT[:10], 1)
        yield {"_id": day, "currency": "EUR", "balance": 1, "position": count}
