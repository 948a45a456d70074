"""A server of a store that is a cluster is killed while commands and queries go on, and nothing is lost or doubled.

Each test prints how long it took until a new command was recorded and could be read: `pytest -s`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx2
import pytest

from dev.daybook_processes import migrate
from dev.servers import Mongo, Postgres, Redis, start_all, stop_all
from shared.stores.doctor import examine
from tests.chaos.checker import check
from tests.chaos.cluster import Cluster, cluster_settings, running_processes
from tests.chaos.load import Load
from tests.chaos.run import RECOVERED_SECONDS_MAX, recovery_seconds
from tests.harness.clusters import running_mongo_set, running_redis_cluster
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, add_key, bearer, new_token
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


async def test_a_replica_takes_over_when_a_master_of_a_redis_cluster_is_killed(migrated_postgres: Path, tmp_path: Path) -> None:
    postgres, mongo = copy_postgres(migrated_postgres, tmp_path), Mongo("mongo", tmp_path)
    async with running_redis_cluster(tmp_path, replicas=True) as redis:
        await start_all(postgres, mongo)
        settings = cluster_settings(postgres.url, mongo.url, redis.url)
        try:
            async with running_processes(tmp_path, settings, {"postgres": postgres}) as cluster:
                killed = redis.master_of("{main}")

                async def fail(load: Load) -> None:
                    await killed.kill()
                    began = time.monotonic()
                    assert (await load.deposit()).outcome == "ok"
                    print(f"\na command was recorded {time.monotonic() - began:.1f} s after the failure")  # noqa: T201

                async def mend() -> None:
                    await killed.start()
                    await redis.wait_until_whole()
                    async with killed.client() as client:
                        assert (await client.info("replication"))["role"] == "slave", "its replica is the master now"

                await survives(cluster, fail, mend)
                assert not {finding.name for finding in await examine(settings) if finding.name.startswith("redis-")}
        finally:
            await stop_all(postgres, mongo)


async def test_each_master_of_a_redis_cluster_without_replicas_is_killed_in_turn(migrated_postgres: Path, tmp_path: Path) -> None:
    postgres, mongo = copy_postgres(migrated_postgres, tmp_path), Mongo("mongo", tmp_path)
    async with running_redis_cluster(tmp_path) as redis:
        await start_all(postgres, mongo)
        settings = cluster_settings(postgres.url, mongo.url, redis.url)
        try:
            async with running_processes(tmp_path, settings, {"postgres": postgres}) as cluster:
                tenants = [await Tenant.create(cluster, postgres, redis.ledger_of(master)) for master in redis.masters]

                async def fail(load: Load) -> None:
                    for tenant in tenants:  # so that none is still being built
                        assert await tenant.pay() == httpx2.codes.CREATED
                        await tenant.becomes_readable()
                    for killed in redis.masters:
                        await killed.kill()
                        began = time.monotonic()
                        assert (await load.deposit()).outcome == "ok"
                        for tenant, master in zip(tenants, redis.masters, strict=True):
                            # The read models on the other servers follow the log as before.
                            assert await tenant.pay() == httpx2.codes.CREATED
                            if master is killed:
                                assert await tenant.read() == httpx2.codes.SERVICE_UNAVAILABLE
                            else:
                                await tenant.becomes_readable()
                        await is_ready(cluster)
                        print(f"\n{killed.name}: all others went on {time.monotonic() - began:.1f} s later")  # noqa: T201
                        other = tenants[redis.masters.index(killed) - 1]
                        replay = await cluster.daybook(f"replay-{killed.name}", "replay", "--ledger", other.ledger_id)
                        assert replay.process is not None
                        assert replay.process.returncode == 0, replay.last_words()
                        await killed.start()
                        await redis.wait_until_whole()
                        await recovery_seconds(load)

                async def mend() -> None:
                    for tenant in tenants:
                        await tenant.becomes_readable()
                        verify = await cluster.daybook(f"verify-{tenant.ledger_id}", "verify", "--ledger", tenant.ledger_id)
                        assert verify.process is not None
                        assert verify.process.returncode == 0, verify.last_words()

                await survives(cluster, fail, mend)
        finally:
            await stop_all(postgres, mongo)


async def is_ready(cluster: Cluster) -> None:
    """Waits until the query API is ready: a load balancer must not take it away because one server of a store is."""
    async with asyncio.timeout(RECOVERED_SECONDS_MAX), httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        while not (await client.get(f"{cluster.query_api.url}/readyz")).is_success:
            await asyncio.sleep(0.05)


class Tenant:
    """A ledger with one account, whose balance is what was paid in."""

    def __init__(self, cluster: Cluster, ledger_id: str, token: str) -> None:
        self.ledger_id = ledger_id
        self._cluster = cluster
        self._token = token
        self._account_id = ""
        self._paid = 0
        self._position = ""

    @classmethod
    async def create(cls, cluster: Cluster, postgres: Postgres, ledger_id: str) -> "Tenant":
        made = await cluster.daybook(f"create-{ledger_id}", "ledgers", "create", ledger_id)
        assert made.process is not None
        assert made.process.returncode == 0, made.last_words()
        tenant = cls(cluster, ledger_id, await add_key(postgres.url, ledger_id=ledger_id, token=new_token()))
        owner, account = str(uuid4()), str(uuid4())
        await tenant._ask("POST", "/v1/users", {"id": owner, "name": "Ada", "email": f"{owner}@example.com"})
        await tenant._ask("POST", "/v1/accounts", {"id": account, "owner_id": owner, "currency": "EUR"})
        tenant._account_id = account
        return tenant

    async def pay(self) -> int:
        body = {"account_id": self._account_id, "amount": 1, "currency": "EUR"}
        answer = await self._ask("POST", "/v1/deposits", body)
        self._paid += answer.is_success
        self._position = answer.headers.get("daybook-position", self._position)
        return answer.status_code

    async def read(self) -> int:
        """Reads the balance, and compares it with what was paid. Returns the status of the answer."""
        answer = await self._ask("GET", f"/v1/accounts/{self._account_id}/balance")
        if answer.is_success:
            assert answer.json()["posted"] == self._paid
        return answer.status_code

    async def becomes_readable(self) -> None:
        async with asyncio.timeout(RECOVERED_SECONDS_MAX):
            while await self.read() != httpx2.codes.OK:
                await asyncio.sleep(0.05)

    async def _ask(self, method: str, path: str, body: object = None) -> httpx2.Response:
        url = self._cluster.query_api.url if method == "GET" else self._cluster.command_apis[0].url
        more = {"daybook-min-position": self._position, "prefer": "wait=2, handling=strict"} if method == "GET" else {}
        headers = bearer(self._token) | more | ({} if method == "GET" else {"idempotency-key": str(uuid4())})
        async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
            while True:
                try:
                    answer = await client.request(method, url + path, json=body)
                except httpx2.ConnectError:  # the process is still starting
                    await asyncio.sleep(0.1)
                    continue
                return answer
