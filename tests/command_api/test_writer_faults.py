"""The process that writes is killed, frozen or cut off. Another one writes, and no acknowledged command is lost or doubled.

Three command processes share a ledger. All clients are answered by the other two, which hand their commands to the first.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.daybook_processes import ApiProcess, start_processes
from dev.daybook_processes import command_api as command_process
from dev.ports import free_port
from dev.servers import Postgres, Redis, start_all, stop_all
from shared.settings import Settings
from tests.harness.clients import Commands, created
from tests.harness.databases import copy_postgres
from tests.harness.keys import bearer
from tests.harness.log import MASTER_KEY
from tests.harness.proxy import Proxy, proxy_to
from tests.harness.running import environment_of

pytestmark = pytest.mark.services

TAKEN_OVER_SECONDS = 2.0
ROOM_SECONDS = 6.0
"""For a noisy machine, on top of what is promised: what is asserted is that there is a bound."""
BEFORE, AFTER = 60, 60
"""The commands that are acknowledged before and after the fault."""
CLIENTS = 8


class Group:
    """Three command processes on one ledger, each with a way to PostgreSQL of its own that can be cut."""

    def __init__(self, processes: dict[ApiProcess, Proxy], database_url: str) -> None:
        self.processes = processes
        self.database_url = database_url

    async def writer(self) -> ApiProcess:
        """Waits until one of the processes is elected, and returns it."""
        async with httpx2.AsyncClient(headers=bearer(), timeout=5, trust_env=False) as client:
            while True:
                for process in self.processes:
                    families = text_string_to_metric_families((await client.get(f"{process.url}/metrics")).text)
                    if any(sample.value for family in families for sample in family.samples if sample.name == "daybook_writes"):
                        return process
                await asyncio.sleep(0.05)


@pytest.fixture
async def group(migrated_postgres: Path, tmp_path: Path) -> AsyncIterator[Group]:
    postgres: Postgres = copy_postgres(migrated_postgres, tmp_path)
    redis = Redis("redis", tmp_path)
    processes: dict[ApiProcess, Proxy] = {}
    async with AsyncExitStack() as exits:
        exits.push_async_callback(stop_all, postgres, redis)
        await start_all(postgres, redis)
        for number in range(3):
            proxy, url = await exits.enter_async_context(proxy_to(postgres.url))
            settings = Settings(
                database_url=url,
                mongo_url="mongodb://127.0.0.1:1/",  # a command process never speaks to it
                redis_url=redis.url,
                secret="a secret of the tests and of nothing else",
                master_keys=MASTER_KEY,
            )
            (tmp_path / f"{number}").mkdir()
            processes[command_process(tmp_path / f"{number}", free_port(), environment_of(settings))] = proxy
        exits.push_async_callback(stop_all, *processes)
        await start_processes(*processes)
        yield Group(processes, postgres.url)


class Clients:
    """Clients that send deposits and open accounts, and repeat a deposit until it is acknowledged."""

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.deposits: list[str] = []
        self.accounts: list[str] = []
        self.answered_at: list[tuple[float, float]] = []
        """When each acknowledged deposit was sent and answered."""
        self.stopping = False

    async def deposit(self, api: Commands) -> None:
        while not self.stopping:
            key, begun = str(uuid.uuid4()), time.monotonic()
            while (answer := await api.deposit(self.account_id, 1, idempotency_key=key)).status_code == 503:
                await asyncio.sleep(0.05)
            self.deposits.append(created(answer))
            self.answered_at.append((begun, time.monotonic()))

    async def open_account(self, api: Commands, owner_id: str) -> None:
        """Opens accounts without idempotency keys. If it is unknown if a command was recorded, its answer is a 503."""
        while not self.stopping:
            answer = await api.client.post("/v1/accounts", json={"owner_id": owner_id, "currency": "EUR"})
            if answer.status_code != 503:
                self.accounts.append(created(answer))
            await asyncio.sleep(0.02)

    async def until(self, count: int) -> None:
        while len(self.deposits) < count:
            await asyncio.sleep(0.02)


async def recorded(database_url: str, type_: str, member: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT data->>$2 FROM events WHERE type = $1 ORDER BY position", type_, member)
    finally:
        await connection.close()
    return [row[0] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen", "cut off"])
async def test_another_process_writes_when_the_writer_is_lost(group: Group, fault: str) -> None:
    async with AsyncExitStack() as exits:
        apis = [
            Commands(
                await exits.enter_async_context(
                    httpx2.AsyncClient(base_url=process.url, headers=bearer(), timeout=30, trust_env=False)
                )
            )
            for process in group.processes
        ]
        owner_id = await apis[0].user()
        clients = Clients(await apis[0].account(owner_id))
        writer = await group.writer()
        others = [api for api, process in zip(apis, group.processes, strict=True) if process is not writer]
        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(clients.deposit(others[number % 2]))
            for api in others:
                tasks.create_task(clients.open_account(api, owner_id))
            await clients.until(BEFORE)
            lost_at = time.monotonic()
            if fault == "killed":
                await writer.kill()
            elif fault == "frozen":
                writer.freeze()
            else:
                group.processes[writer].losing = True
            await clients.until(len(clients.deposits) + AFTER)
            if fault == "frozen":
                writer.thaw()
            elif fault == "cut off":
                group.processes[writer].losing = False
                group.processes[writer].cut_all()
            await clients.until(len(clients.deposits) + AFTER)
            clients.stopping = True
        first = min(answered_at for begun, answered_at in clients.answered_at if begun > lost_at)
        assert first - lost_at < TAKEN_OVER_SECONDS + ROOM_SECONDS
    deposits = await recorded(group.database_url, "FundsDeposited", "transfer_id")
    accounts = await recorded(group.database_url, "AccountOpened", "account_id")
    assert sorted(deposits) == sorted(clients.deposits)
    assert len(set(deposits)) == len(deposits)
    assert set(clients.accounts) <= set(accounts)
    assert len(set(accounts)) == len(accounts)
