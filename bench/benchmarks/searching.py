"""Measures how fast the read model `search` follows the log and is rebuilt, and what it costs the read models beside it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bench.benchmarks.projecting import replay_rate
from bench.interleaving import Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.read_model_watch import ReadModelWatch, watch_read_models
from bench.rig import Rig, running, say
from bench.workloads import account_id, nonce
from dev.search_servers import OpenSearchServer
from dev.servers import start_all, stop_all
from shared.optional_stores import configured_stores
from shared.read_models.shapes import SEARCH, ReadModel
from shared.search.mappings import INDEX_BODY
from shared.search.store import open_store
from shared.settings import Settings

OFF: Final = "projecting live, search off: both stores"
ON: Final = "projecting live, search on: both stores"
SEARCHED: Final = "projecting live, search on: search"
BULK: Final = "OpenSearch bulk load of as many documents"
REBUILT: Final = "rebuild of search"
LOOK_SECONDS: Final = 0.02


async def measure_search(rig: Rig) -> Section:
    section = Section("search", "Search")
    async with _opensearch(rig) as server:
        off = await rig.ledger(rig.scale.accounts)
        on = (await rig.ledger(rig.scale.accounts)).model_copy(update={"search_url": server.url})
        for settings in (off, on):
            say("search: building the read models for the first time")
            await catch_up(rig, settings, SEARCH)

        async def without() -> Values:
            await append_uniform(off, rig.scale.backlog_events, rig.scale.accounts)
            return {"per second": (await catch_up(rig, off, SEARCH))[0]}

        async def beside() -> Values:
            await append_uniform(on, rig.scale.backlog_events, rig.scale.accounts)
            both, searched = await catch_up(rig, on, SEARCH)
            section.measurement(SEARCHED).add({"per second": searched})
            return {"per second": both}

        lanes = {
            OFF: without,
            ON: beside,
            BULK: lambda: _load(on, rig.scale.backlog_events),
            REBUILT: lambda: replay_rate(rig, on, "search"),
        }
        await interleave(section, lanes, rig.scale.rounds)
    section.notes.append(
        f"A worker that starts again finds {rig.scale.backlog_events:,} transfers. The rates are in events per second, from when "
        "the first of these read models moves until the last one is at the end of the log. The bulk load writes as many "
        "documents of transfers into an index with the same mappings, and refreshes it once."
    )
    return section


@asynccontextmanager
async def _opensearch(rig: Rig) -> AsyncIterator[OpenSearchServer]:
    server = OpenSearchServer("opensearch", rig.folder)
    await start_all(server)
    try:
        yield server
    finally:
        await stop_all(server)


async def catch_up(rig: Rig, settings: Settings, model: ReadModel) -> tuple[float, float]:
    """Starts a worker. Returns how many events per second the read models of both stores take, and how many `model` takes.

    If its store is off, both are the same.
    """
    async with (
        watch_read_models(settings) as both,
        watch_read_models(settings, (model,)) as optional,
        running(rig.worker(settings)),
    ):
        head = await both.head()
        watches = [both, optional] if model.store in configured_stores(settings) else [both]
        rates = await asyncio.gather(*(_rate(watch, head) for watch in watches))
    return rates[0], rates[-1]


async def _rate(watch: ReadModelWatch, head: int) -> float:
    looks = await watch.until(head)
    begin = [look for look in looks if look.most == looks[0].most][-1]
    return (looks[-1].least - begin.least) / max(looks[-1].at - begin.at, LOOK_SECONDS)


async def _load(settings: Settings, count: int) -> Values:
    index = f"yardstick-{nonce()}"
    async with open_store(settings, read_only=False) as store:
        await store.make_index(index, INDEX_BODY)
        begun = time.perf_counter()
        await store.write(index, _documents(count))
        await store.refresh(index)
        took = time.perf_counter() - begun
        await store.drop_index(index)
    return {"per second": count / took}


def _documents(count: int) -> Iterator[dict[str, Any]]:
    for position in range(1, count + 1):
        ends = [account_id(position % 1_000), account_id(position * 7 % 1_000)]
        yield {
            "_id": f"transfers/{nonce()}",
            "resource": "transfer",
            "kind": "transfer",
            "account_ids": ends,
            "from_account_id": ends[0],
            "to_account_id": ends[1],
            "amount": 1,
            "currency": "EUR",
            "month": "2026-11",
            "occurred_at": "2026-11-30T12:00:00.000000Z",
            "recorded_at": "2026-11-30T12:00:00.000000Z",
            "reference": None,
            "metadata": None,
            "metadata_values": [],
            "position": position,
        }
