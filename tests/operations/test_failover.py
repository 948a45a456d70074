"""A server of a store that is a cluster is killed while commands and queries go on, and nothing is lost or doubled.

Each test prints how long it took until a new command was recorded and could be read: `pytest -s`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from dev.daybook_processes import migrate
from dev.servers import Mongo, Redis, start_all, stop_all
from shared.stores.doctor import examine
from tests.chaos.checker import check
from tests.chaos.cluster import Cluster, cluster_settings, running_processes
from tests.chaos.load import Load
from tests.chaos.run import recovery_seconds
from tests.harness.clusters import running_mongo_set
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, add_key
from tests.harness.patroni import running_patroni

pytestmark = [pytest.mark.services, pytest.mark.slow]

ACCOUNTS: Final = 4
CLIENTS: Final = 3
CALM_SECONDS: Final = 1.0


async def survives(cluster: Cluster, fail: Callable[[Load], Awaitable[None]], mend: Callable[[], Awaitable[None]]) -> None:
    """Checks that nothing is lost, doubled or skipped when a store fails under load, and that it is right again by itself."""
    load = Load(cluster, seed=1)
    await load.open_accounts(ACCOUNTS)
    working = [asyncio.create_task(load.send()) for _ in range(CLIENTS)] + [asyncio.create_task(load.read())]
    await recovery_seconds(load)
    await asyncio.sleep(CALM_SECONDS)  # so that the store fails in the middle of the load
    began = time.monotonic()
    await fail(load)
    await recovery_seconds(load)
    print(f"\nright again {time.monotonic() - began:.1f} s after the failure")  # noqa: T201 # docs/scaling.md says it
    await mend()
    load.is_over = True
    await asyncio.gather(*working)
    await recovery_seconds(load)
    findings = await check(cluster, load)
    assert findings.lines() == []
    assert sum(each.outcome == "ok" for each in load.attempted) > ACCOUNTS


async def test_the_primary_of_mongodb_is_killed_under_load(migrated_postgres: Path, tmp_path: Path) -> None:
    postgres, redis = copy_postgres(migrated_postgres, tmp_path), Redis("redis", tmp_path)
    async with running_mongo_set(tmp_path) as mongo:
        await start_all(postgres, redis)
        settings = cluster_settings(postgres.url, mongo.url, redis.url)
        try:
            async with running_processes(tmp_path, settings, {"postgres": postgres}) as cluster:
                killed = await mongo.primary()

                async def fail(load: Load) -> None:
                    await killed.kill()
                    began = time.monotonic()
                    assert (await load.deposit()).outcome == "ok"
                    print(f"\na command was recorded {time.monotonic() - began:.1f} s after the failure")  # noqa: T201

                await survives(cluster, fail, killed.start)
                assert not {finding.name for finding in await examine(settings) if finding.name.startswith("mongo-")}
        finally:
            await stop_all(postgres, redis)


async def test_the_primary_of_postgresql_is_killed_under_commands(tmp_path: Path) -> None:
    mongo, redis = Mongo("mongo", tmp_path), Redis("redis", tmp_path)
    async with running_patroni(tmp_path) as pair:
        await start_all(mongo, redis)
        settings = cluster_settings(pair.url, mongo.url, redis.url)
        try:
            await migrate(tmp_path, {"DAYBOOK_DATABASE_URL": pair.url})
            await add_key((await pair.node("primary")).url, token=OPERATOR)
            async with running_processes(tmp_path, settings, {}) as cluster:
                killed = await pair.node("primary")

                async def fail(load: Load) -> None:
                    await pair.node("sync_standby")
                    began = time.monotonic()
                    await killed.kill()
                    assert (await load.deposit()).outcome == "ok"
                    print(f"\na command was recorded {time.monotonic() - began:.1f} s after the failure")  # noqa: T201

                async def mend() -> None:
                    await killed.start()
                    assert await pair.node("sync_standby") is killed

                await survives(cluster, fail, mend)
                assert {"postgres-asynchronous"}.isdisjoint(finding.name for finding in await examine(settings))
        finally:
            await stop_all(mongo, redis)
