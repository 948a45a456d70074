"""Every process is replaced under load, while each secret changes, and no client sees a failure."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest
from typer.testing import CliRunner

from cli.app import app
from dev.child_processes import Child
from dev.daybook_processes import ApiProcess, command_api, query_api, start_processes, worker
from dev.ports import free_port
from dev.servers import stop_all
from shared.privacy.master_keys import master_key_id
from shared.setting_values import read_master_keys
from shared.settings import Settings
from tests.harness.clients import Commands
from tests.harness.keys import bearer
from tests.harness.log import MASTER_KEY
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

SECRETS: Final = ("the old secret of a rolling restart", "the new secret of a rolling restart")
MASTER_KEYS: Final = (MASTER_KEY, "cm9sbGluZyByZXN0YXJ0cywgYW5kIG5vdGhpbmchISE=")
BEFORE_THE_LOAD: Final = 1_000
PAUSE_SECONDS: Final = 0.02
"""Between two requests of a client, so that the load leaves the machine time to start processes."""


class Load:
    """Clients of the replicas. Each sends a request again, to another replica, only if no connection was made."""

    def __init__(self, commands: Sequence[str], queries: Sequence[str], account_id: str) -> None:
        self._commands, self._queries, self._account_id = commands, queries, account_id
        self.answered = 0
        self.deposits = 0
        self.failures: list[str] = []
        self._is_over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Half of the clients keep their connections, and half make one for each request."""
        async with asyncio.TaskGroup() as clients:
            for number in range(8):
                clients.create_task(self._client(self._record if number < 5 else self._read_pages, keeps=number % 2 == 0))
            try:
                yield self
            finally:
                self._is_over = True

    async def goes_on(self) -> None:
        """Waits until 100 more requests are answered."""
        goal = self.answered + 100
        async with asyncio.timeout(120):
            while self.answered < goal:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _client(self, ask: Any, *, keeps: bool) -> None:
        limits = httpx2.Limits(max_keepalive_connections=None if keeps else 0)
        async with httpx2.AsyncClient(headers=bearer(), timeout=60, trust_env=False, limits=limits) as client:
            while not self._is_over:
                await ask(client)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _record(self, client: httpx2.AsyncClient) -> None:
        """Records a deposit, and a user, whose name is encrypted."""
        body = {"account_id": self._account_id, "amount": 1, "currency": "EUR"}
        if await self._send(client, self._commands, "POST", "/v1/deposits", 201, body):
            self.deposits += 1
        await self._send(
            client, self._commands, "POST", "/v1/users", 201, {"name": "Ada", "email": f"{uuid.uuid4()}@example.com"}
        )

    async def _read_pages(self, client: httpx2.AsyncClient) -> None:
        """Reads pages, each with the cursor that any replica gave, and a balance."""
        cursor = ""
        for _ in range(5):
            page = await self._send(client, self._queries, "GET", f"/v1/events?limit=2{cursor}", 200)
            if not page or page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        await self._send(client, self._queries, "GET", f"/v1/accounts/{self._account_id}/balance", 200)

    async def _send(
        self, client: httpx2.AsyncClient, replicas: Sequence[str], method: str, path: str, status: int, body: Any = None
    ) -> Any:
        headers = {"idempotency-key": str(uuid.uuid4())} if body else {}
        for url in random.sample(replicas, len(replicas)):
            try:
                answer = await client.request(method, url + path, json=body, headers=headers)
            except httpx2.ConnectError:
                continue
            except httpx2.TransportError as error:
                self.failures.append(f"{method} {path}: {error!r}")
                return None
            if answer.status_code != status:
                self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
                return None
            self.answered += 1
            return answer.json()
        self.failures.append(f"{method} {path}: no replica accepts a connection")
        return None


async def open_account(urls: Sequence[str]) -> str:
    """Opens an account with money, waits until the queries show it, and returns its id."""
    async with httpx2.AsyncClient(headers=bearer(), base_url=urls[0], timeout=60, trust_env=False) as client:
        account_id = await Commands(client).account()
        deposited = await Commands(client).deposit(account_id, BEFORE_THE_LOAD)
        fresh = {"daybook-min-position": deposited.headers["daybook-position"], "prefer": "wait=10, handling=strict"}
        shown = await client.get(f"{urls[2]}/v1/accounts/{account_id}/balance", headers=fresh)
        assert shown.status_code == 200, shown.text
    return account_id


async def make_logins(servers: Servers, settings: Settings) -> tuple[asyncpg.Connection, list[str], list[str]]:
    """Returns a superuser's connection, and the names and URLs of two logins, as two passwords of one process."""
    superuser = await asyncpg.connect(servers.postgres.superuser_url, ssl=False)
    names = [f"rolling_{number}_{settings.database_url.rpartition('/')[2]}" for number in (1, 2)]
    roles = "daybook_command, daybook_projector, daybook_query"
    for name in names:
        await superuser.execute(f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD 'of-a-test' IN ROLE {roles}")
    host = settings.database_url.rpartition("@")[2]
    return superuser, names, [f"postgresql://{name}:of-a-test@{host}" for name in names]


def processes(folder: Path, ports: Sequence[int], environment: dict[str, str]) -> list[Child]:
    command, query = ports[:2], ports[2:]
    return [
        *(command_api(folder, port, environment) for port in command),
        *(query_api(folder, port, environment) for port in query),
        worker(folder, environment),
    ]


async def replace(old: Child, new: Child) -> None:
    """Ends a process with SIGTERM and starts its successor, which takes the same port."""
    await old.stop()
    assert "SIGKILL" not in old.outcome(), old.last_words()
    await new.start()
    if isinstance(new, ApiProcess):
        await new.ready()


@pytest.mark.slow
async def test_no_request_fails_while_every_process_is_replaced_and_every_secret_changes(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    """The second of three restarts: before it, every process accepts both secrets; after it, the new one signs and wraps."""
    ports = [free_port() for _ in range(4)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    superuser, logins, login_urls = await make_logins(servers, settings)
    shared = environment_of(settings)
    before = {"DAYBOOK_SECRET": ",".join(SECRETS), "DAYBOOK_MASTER_KEYS": ",".join(MASTER_KEYS)}
    after = {"DAYBOOK_SECRET": ",".join(SECRETS[::-1]), "DAYBOOK_MASTER_KEYS": ",".join(MASTER_KEYS[::-1])}
    old = processes(tmp_path, ports, shared | before | {"DAYBOOK_DATABASE_URL": login_urls[0]})
    new = processes(tmp_path, ports, shared | after | {"DAYBOOK_DATABASE_URL": login_urls[1]})
    try:
        await start_processes(*old)
        async with Load(urls[:2], urls[2:], await open_account(urls)).running() as load:
            for outgoing, incoming in zip(old, new, strict=True):
                await load.goes_on()
                await replace(outgoing, incoming)
            await load.goes_on()
            rotate = asyncio.to_thread(CliRunner().invoke, app, ["master-keys", "rotate"], env=shared | after)
            assert (await rotate).exit_code == 0
            await load.goes_on()
        assert load.failures == []
        await check_that_nothing_old_is_needed(settings, load.deposits)
    finally:
        await stop_all(*old, *new)
        for login in logins:
            await superuser.execute(f"DROP ROLE IF EXISTS {login}")
        await superuser.close()


async def check_that_nothing_old_is_needed(settings: Settings, deposits: int) -> None:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        recorded = "SELECT count(*) FROM events WHERE type = 'FundsDeposited' AND (data ->> 'amount')::int = 1"
        assert await connection.fetchval(recorded) == deposits, "each command is recorded, and once"
        in_use = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rolling_1_%' AND datname = current_database()"
        assert await connection.fetchval(in_use) == 0, "nobody uses the old password"
        wrapped_by = await connection.fetch("SELECT DISTINCT master_key_id FROM person_keys")
        assert [row[0] for row in wrapped_by] == [master_key_id(*read_master_keys(MASTER_KEYS[1]))]
    finally:
        await connection.close()
