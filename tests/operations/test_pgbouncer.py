"""Daybook behind PgBouncer in transaction mode: many connections share few sessions, and none sees what another one has set."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.servers import start_all, stop_all
from shared.settings import Settings
from shared.stores.doctor import NO_ANSWER, examine_as_any_role
from shared.stores.kept_connection import KeptConnection
from shared.stores.pooled_connection import for_single_reads
from shared.stores.postgres import Role, open_postgres
from tests.harness.clients import Commands, served
from tests.harness.keys import OPERATOR, bearer
from tests.harness.pgbouncer import LOGIN, SESSIONS, PgBouncer
from tests.harness.running import Servers, run_stack

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROLES: Final[tuple[Role, ...]] = ("daybook_command", "daybook_projector", "daybook_query")
SHOWN: Final = """
    SELECT string_agg(current_setting(name), ' ') || ' ' || current_user
    FROM unnest(CAST('{role, jit, statement_timeout, lock_timeout,
                       idle_in_transaction_session_timeout, application_name}' AS text[])) AS asked (name)
"""
SENDERS: Final = 12
DEPOSITS: Final = 5
LEADERS: Final = 3
"""The sender of webhooks and the workers of operations and verifications, which each hold a lock on a session of their own."""


@pytest_asyncio.fixture
async def pooler(servers: Servers, tmp_path: Path) -> AsyncIterator[PgBouncer]:
    pooler = PgBouncer("pgbouncer", tmp_path, servers.postgres)
    await start_all(pooler)
    yield pooler
    await stop_all(pooler)
    await _as_superuser(servers, f"DROP ROLE {LOGIN}")


@pytest.fixture
def pooled(pooler: PgBouncer, settings: Settings) -> Settings:
    database = settings.database_url.rpartition("/")[2]
    return settings.model_copy(update={"pooler_url": pooler.url.removesuffix("daybook") + database})


async def test_each_transaction_has_the_role_and_the_limits_of_a_session_of_its_own(settings: Settings, pooled: Settings) -> None:
    """The roles share the sessions and take turns, so a setting that outlasts its transaction is seen by the next one."""

    async def shown(engine: AsyncEngine) -> list[Any]:
        kept = KeptConnection(engine)
        async with engine.begin() as connection:
            found = [await connection.scalar(text(SHOWN))]
        async with for_single_reads(engine).connect() as connection:
            found.append(await connection.scalar(text(SHOWN)))
        async with kept.connected() as driver:
            found.append(await driver.fetchval(SHOWN))
        await kept.release()
        return found

    for role in ROLES:
        async with open_postgres(settings, role) as direct, open_postgres(pooled, role) as engine:
            wanted = set(await shown(direct))
            assert len(wanted) == 1
            many = await asyncio.gather(*(shown(engine) for _ in range(SENDERS)))
            assert {each for found in many for each in found} == wanted
    assert {each.split()[0] for each in await _shown_to_strangers(pooled.pooler_url or "")} == {"none"}


async def _shown_to_strangers(url: str) -> list[str]:
    """Returns what transactions of others see, one in each session."""
    connections = [await asyncpg.connect(url, ssl=False, statement_cache_size=0) for _ in range(SESSIONS)]
    for connection in connections:
        await connection.execute("BEGIN")
    shown = [await connection.fetchval(SHOWN) for connection in connections]
    for connection in connections:
        await connection.close()
    return shown


async def test_a_role_that_may_not_be_taken_leaves_no_failed_transaction(pooled: Settings) -> None:
    async with open_postgres(pooled, "daybook_admin", connections_max=1) as engine:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="permission denied to set role"):
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))


async def test_commands_worker_and_queries_share_a_few_sessions(
    servers: Servers, pooler: PgBouncer, pooled: Settings, tmp_path: Path
) -> None:
    async with (
        run_stack(pooled, tmp_path) as stack,
        httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(OPERATOR), timeout=30, trust_env=False) as client,
        httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(OPERATOR), timeout=30, trust_env=False) as queries,
    ):
        commands = Commands(client)
        accounts = await asyncio.gather(*(commands.account() for _ in range(SENDERS)))

        async def pay(account_id: str) -> int:
            answers = [await commands.deposit(account_id, 100) for _ in range(DEPOSITS)]
            assert {answer.status_code for answer in answers} == {201}
            return max(int(answer.headers["daybook-position"]) for answer in answers)

        last = max(await asyncio.gather(*map(pay, accounts)))
        fresh = {"daybook-min-position": str(last), "prefer": "wait=10"}
        for path in (
            *(f"/v1/accounts/{account_id}/balance" for account_id in accounts),
            *("/v1/transfers", "/v1/trial-balance", "/v1/events", f"/v1/streams/account-{accounts[0]}"),
        ):
            answer = await queries.get(path, headers=fresh)
            assert answer.status_code == 200, (path, answer.text)
            if path.endswith("/balance"):
                assert answer.json()["posted"] == 100 * DEPOSITS
        there = f"datname = '{pooled.database_url.rpartition('/')[2]}'"
        sessions = f"SELECT count(*) FROM pg_stat_activity WHERE {there} AND usename = '{LOGIN}'"
        assert 0 < await _as_superuser(servers, sessions) <= SESSIONS
        locks = f"SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {there} AND locktype = 'advisory'"
        assert await _as_superuser(servers, f"{locks} AND usename = 'daybook'") == LEADERS
        assert await _as_superuser(servers, f"{locks} AND usename = '{LOGIN}'") == 0
        assert NO_ANSWER not in {finding.name for finding in await examine_as_any_role(stack.settings)}

        await pooler.kill()
        lost = await commands.deposit(accounts[0], 100)
        assert (lost.status_code, lost.json()["code"]) == (503, "store-unavailable")
        await pooler.start()
        found = await served(lambda: commands.deposit(accounts[0], 100, idempotency_key="after the pooler"))
        fresh["daybook-min-position"] = found.headers["daybook-position"]
        balance = await queries.get(f"/v1/accounts/{accounts[0]}/balance", headers=fresh)
        assert balance.json()["posted"] == 100 * (DEPOSITS + 1)


async def _as_superuser(servers: Servers, statement: str) -> Any:
    connection = await asyncpg.connect(servers.postgres.superuser_url, ssl=False)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
