"""What goes wrong between the command API and its stores, and what must happen then (the fault catalogue's part B2 and B3).

These tests kill, freeze and cut, so they have servers of their own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from dev.servers import Postgres, Redis, start_all, stop_all
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import command_api, created, served
from tests.harness.databases import copy_postgres
from tests.harness.log import MASTER_KEY
from tests.harness.proxy import proxy_to
from tests.harness.running import PATIENT, with_default_limits

pytestmark = pytest.mark.services

DEADLINE_SECONDS = 2.5
ROOM_SECONDS = 4.0
"""For a noisy machine, on top of a deadline: what is asserted is that there is a bound, not how close it is."""


@pytest.fixture
async def postgres(migrated_postgres: Path, tmp_path: Path) -> AsyncIterator[Postgres]:
    server = copy_postgres(migrated_postgres, tmp_path)
    await start_all(server)
    yield server
    await stop_all(server)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis("redis", tmp_path)
    await start_all(server)
    yield server
    await stop_all(server)


@pytest.fixture
def settings(postgres: Postgres, redis: Redis) -> Settings:
    return Settings(
        database_url=postgres.url,
        mongo_url="mongodb://127.0.0.1:1/",  # the command API never speaks to it
        redis_url=redis.url,
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
        **PATIENT,
    )


async def deposits(settings: Settings) -> int:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM events WHERE type = 'FundsDeposited'")) or 0)


def refused_for_now(answer: httpx2.Response) -> bool:
    return answer.status_code == 503 and int(answer.headers["retry-after"]) > 0


async def test_a_lost_reply_to_commit_is_looked_up_and_answered_truly(settings: Settings) -> None:
    async with proxy_to(settings.database_url) as (proxy, url):
        async with command_api(settings.model_copy(update={"database_url": url}), is_patient=False) as api:
            account_id = await api.account()
            proxy.arm(b"COMMIT")
            answer = await api.deposit(account_id, 5, idempotency_key="k")
            assert proxy.cuts == 1
            assert answer.status_code == 201
            again = await api.deposit(account_id, 5, idempotency_key="k")
            assert again.content == answer.content
    assert await deposits(settings) == 1


@pytest.mark.parametrize("pattern", [b"COMMIT", b"INSERT INTO idempotency_keys", b"FOR UPDATE", b"BEGIN"])
async def test_a_connection_cut_before_the_server_saw_it_is_begun_anew(settings: Settings, pattern: bytes) -> None:
    async with proxy_to(settings.database_url) as (proxy, url):
        async with command_api(settings.model_copy(update={"database_url": url}), is_patient=False) as api:
            account_id = await api.account()
            proxy.arm(pattern, before=True)
            answer = await api.deposit(account_id, 5, idempotency_key="k")
            assert answer.status_code == 201 or refused_for_now(answer), answer.text
            assert (await api.deposit(account_id, 5, idempotency_key="k")).status_code == 201
    assert await deposits(settings) == 1


@pytest.mark.slow
async def test_a_frozen_database_is_a_503_in_bounded_time_and_recovers(settings: Settings, postgres: Postgres) -> None:
    async with command_api(with_default_limits(settings), is_patient=False) as api:
        account_id = await api.account()
        postgres.freeze()
        try:
            began = time.monotonic()
            answers = await asyncio.gather(*(api.deposit(account_id, 1, idempotency_key=f"{n}") for n in range(20)))
            assert time.monotonic() - began < DEADLINE_SECONDS + ROOM_SECONDS
            assert all(map(refused_for_now, answers))
        finally:
            postgres.thaw()
        for n in range(20):
            created(await served(partial(api.deposit, account_id, 1, idempotency_key=f"{n}"), pause_seconds=0.1))
    assert await deposits(settings) == 20


async def test_every_acknowledged_command_survives_kill_9_of_the_database(settings: Settings, postgres: Postgres) -> None:
    async with command_api(with_default_limits(settings), is_patient=False) as api:
        account_id = await api.account()
        acknowledged: list[str] = []
        stopping = False

        async def client(number: int) -> None:
            n = 0
            while not stopping:
                n += 1
                answer = await api.deposit(account_id, 1, idempotency_key=f"{number}-{n}")
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["id"])
                else:
                    assert refused_for_now(answer), answer.text
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as clients:
            for number in range(8):
                clients.create_task(client(number))
            for _ in range(2):
                before = len(acknowledged)
                while len(acknowledged) < before + 100:
                    await asyncio.sleep(0.02)
                await postgres.kill()
                await postgres.start()
            before = len(acknowledged)
            while len(acknowledged) < before + 100:
                await asyncio.sleep(0.02)
            stopping = True
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        rows = await connection.execute(text("SELECT data->>'transfer_id' FROM events WHERE type = 'FundsDeposited'"))
        stored = [row[0] for row in rows]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)


@pytest.mark.parametrize("how", ["down", "frozen"])
async def test_without_redis_a_command_still_succeeds(settings: Settings, redis: Redis, how: str) -> None:
    async with command_api(settings, is_patient=False) as api:
        account_id = await api.account()
        if how == "down":
            await redis.kill()
        else:
            redis.freeze()
        try:
            for _ in range(3):
                created(await api.deposit(account_id, 1))
        finally:
            if how == "frozen":
                redis.thaw()


async def test_a_leaked_transaction_holds_commands_up_only_for_its_time(settings: Settings) -> None:
    """Somebody locks the head and goes away; the server ends that session, and commands go on."""
    settings = settings.model_copy(update={"writer_idle_in_transaction_timeout_ms": 1_000})
    async with command_api(settings, is_patient=False) as api, open_postgres(settings, "daybook_command") as engine:
        account_id = await api.account()
        connection = await engine.connect()
        await connection.execute(text("SELECT * FROM log_heads FOR UPDATE"))
        created(await served(partial(api.deposit, account_id, 1, idempotency_key="k"), pause_seconds=0.1))
        await connection.invalidate()


async def test_a_table_changed_under_a_live_service_is_no_error(settings: Settings) -> None:
    """PostgreSQL refuses a cached plan after a migration; the batch is begun anew."""
    async with command_api(settings, is_patient=False) as api:
        account_id = await api.account()
        created(await api.deposit(account_id, 1))
        async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
            await connection.execute(text("SET ROLE NONE"))
            await connection.execute(text("ALTER TABLE streams ALTER COLUMN fold_version TYPE integer"))
        created(await api.deposit(account_id, 1))


@pytest.mark.slow
async def test_a_queue_that_is_full_refuses_at_once(settings: Settings, postgres: Postgres) -> None:
    settings = with_default_limits(settings).model_copy(update={"command_queue_max": 5})
    async with command_api(settings, is_patient=False) as api:
        account_id = await api.account()
        postgres.freeze()
        try:
            answers = await asyncio.gather(*(api.deposit(account_id, 1) for _ in range(20)))
        finally:
            postgres.thaw()
        codes = {answer.json()["code"] for answer in answers}
    assert all(map(refused_for_now, answers))
    assert codes == {"overloaded", "store-unavailable"}


async def test_callers_who_go_away_leave_no_transaction_open_and_no_connection_lost(settings: Settings) -> None:
    async with command_api(settings, is_patient=False) as api:
        account_id = await api.account()
        for n in range(60):
            leaving = asyncio.create_task(api.deposit(account_id, 1))
            await asyncio.sleep(0.0005 * (n % 12))
            leaving.cancel()
        created(await api.deposit(account_id, 1))
        async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
            open_ = await connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"))
        assert open_ == 0
