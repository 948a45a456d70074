"""The connection that a writer keeps: one user at a time, given back when it is not needed, replaced when it is broken."""

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.stores import store_errors
from shared.stores.kept_connection import KeptConnection
from shared.stores.postgres import open_postgres
from tests.harness.projecting import eventually
from tests.harness.proxy import proxy_to
from tests.harness.running import Servers

pytestmark = pytest.mark.services


async def backend(kept: KeptConnection) -> int:
    async with kept.begin() as driver:
        pid: int = await driver.fetchval("SELECT pg_backend_pid()")
    return pid


def checked_out(engine: AsyncEngine) -> int:
    pool: Any = engine.pool
    count: int = pool.checkedout()
    return count


async def test_it_is_the_same_from_one_transaction_to_the_next(engine: AsyncEngine) -> None:
    kept = KeptConnection(engine)
    assert await backend(kept) == await backend(kept)
    assert checked_out(engine) == 1
    await kept.release()
    assert checked_out(engine) == 0


async def test_it_is_given_back_when_it_was_not_used(engine: AsyncEngine) -> None:
    kept = KeptConnection(engine, kept_seconds=0.05)
    await backend(kept)

    async def is_back() -> bool:
        return checked_out(engine) == 0

    await eventually(is_back)


async def test_who_comes_as_it_is_given_back_gets_another(engine: AsyncEngine) -> None:
    """Else a transaction would go on over a connection that the pool has given to somebody else."""
    kept = KeptConnection(engine, kept_seconds=0.0)
    for turn in range(200):
        async with kept.begin() as driver:
            assert driver.is_in_transaction()
            await asyncio.sleep(0)
            assert checked_out(engine) >= 1
            assert await driver.fetchval("SELECT $1::int", turn) == turn
            assert driver.is_in_transaction()
        for _ in range(turn % 4):
            await asyncio.sleep(0)
    await kept.release()
    assert checked_out(engine) == 0


async def test_it_is_given_back_at_once_while_others_could_miss_it(engine: AsyncEngine) -> None:
    pool: Any = engine.pool
    others = [await engine.connect() for _ in range(pool.size() // 2)]
    kept = KeptConnection(engine)
    await backend(kept)
    assert checked_out(engine) == len(others)
    for other in others:
        await other.close()


async def test_a_broken_one_is_replaced(engine: AsyncEngine, servers: Servers) -> None:
    kept = KeptConnection(engine)
    broken = await backend(kept)
    superuser = await asyncpg.connect(servers.postgres.superuser_url)
    await superuser.execute("SELECT pg_terminate_backend($1)", broken)
    await superuser.close()
    with pytest.raises(store_errors.ASYNCPG_ERRORS):
        await backend(kept)
    assert await backend(kept) != broken
    await kept.release()


@pytest.mark.slow
async def test_one_that_is_broken_and_not_yet_closed_is_replaced(settings: Settings, servers: Servers) -> None:
    """The server's last word has come, and its close has not."""
    async with proxy_to(settings.database_url) as (proxy, url):
        proxy.lingering = True
        async with open_postgres(settings.model_copy(update={"database_url": url}), "daybook_command") as engine:
            kept = KeptConnection(engine)
            broken = await backend(kept)
            superuser = await asyncpg.connect(servers.postgres.superuser_url)
            await superuser.execute("SELECT pg_terminate_backend($1, 10000)", broken)
            await superuser.close()
            await asyncio.sleep(0.1)  # for the proxy to hand it on
            with pytest.raises(store_errors.ASYNCPG_ERRORS):
                await backend(kept)
            assert await backend(kept) != broken
            await kept.release()


async def test_an_error_takes_everything_back(engine: AsyncEngine) -> None:
    kept = KeptConnection(engine)

    async def fail() -> None:
        async with kept.begin() as driver:
            await driver.execute("CREATE TEMPORARY TABLE seen (n int)")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 # our own
        await fail()
    async with kept.begin() as driver:
        assert await driver.fetchval("SELECT to_regclass('seen')") is None
    await kept.release()
