"""The storage below PostgreSQL fails while commands come: its disk is full, or a sync of its log fails."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from dev.child_processes import Child, family
from dev.servers import Postgres, Redis, start_all, stop_all
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import Commands, command_api, created, served
from tests.harness.databases import copy_postgres
from tests.harness.log import MASTER_KEY
from tests.harness.running import PATIENT, with_default_limits

pytestmark = pytest.mark.services

SPARE_BYTES = 40 << 20
"""Room for two more files of PostgreSQL's log."""


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis("redis", tmp_path)
    await start_all(server)
    yield server
    await stop_all(server)


@asynccontextmanager
async def commands_on(postgres: Postgres, redis: Redis) -> AsyncIterator[tuple[Commands, Settings]]:
    settings = Settings(
        database_url=postgres.url,
        mongo_url="mongodb://127.0.0.1:1/",  # the command API never speaks to it
        redis_url=redis.url,
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
        **PATIENT,
    )
    async with command_api(with_default_limits(settings), is_patient=False) as api:
        yield api, settings


async def deposit_until_refused(api: Commands, account_id: str, postgres: Postgres) -> int:
    """Makes deposits of 1 with the keys "1", "2" … until one is refused. Returns the number of those that were acknowledged."""
    for number in range(1, 10_000):
        answer = await api.deposit(account_id, 1, idempotency_key=str(number))
        if answer.status_code != 201:
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) > 0
            return number - 1
        if postgres.running and number % 20 == 0:
            await begin_next_log_file(postgres)
    raise AssertionError("nothing failed")


async def begin_next_log_file(postgres: Postgres) -> None:
    try:
        connection = await asyncpg.connect(postgres.superuser_url)
    except (OSError, asyncpg.PostgresError):
        return
    try:
        await connection.execute("SELECT pg_switch_wal()")
    except (OSError, asyncpg.PostgresError):
        pass
    finally:
        await connection.close(timeout=5)


async def recover(postgres: Postgres) -> None:
    """Waits until PostgreSQL answers. Starts it if it has ended: without room it cannot recover by itself."""
    while postgres.running:
        with suppress(OSError, asyncpg.PostgresError):
            connection = await asyncpg.connect(postgres.superuser_url)
            await connection.close()
            return
        await asyncio.sleep(0.1)
    await postgres.start()


async def require_each_once(api: Commands, settings: Settings, account_id: str, acknowledged: int) -> None:
    """Sends all deposits again, and checks that each has one event, and that each acknowledged one was there already."""
    for number in range(1, acknowledged + 2):
        answer = await served(partial(api.deposit, account_id, 1, idempotency_key=str(number)))
        assert created(answer)
        assert "idempotency-replayed" in answer.headers or number > acknowledged
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM events WHERE type = 'FundsDeposited'"))
    assert count == acknowledged + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_commands_go_on_by_themselves_after_the_disk_of_postgres_was_full(
    migrated_postgres: Path, tmp_path: Path, redis: Redis
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    used = sum(file.stat().st_blocks * 512 for file in migrated_postgres.rglob("*") if file.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={used + SPARE_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a small disk")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(SPARE_BYTES // 2))
        postgres = copy_postgres(migrated_postgres, disk)
        await start_all(postgres)
        try:
            async with commands_on(postgres, redis) as (api, settings):
                account_id = await api.account()
                acknowledged = await deposit_until_refused(api, account_id, postgres)
                assert "No space left on device" in postgres.log.read_text()
                filler.unlink()
                await recover(postgres)
                await require_each_once(api, settings, account_id, acknowledged)
        finally:
            await stop_all(postgres)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which makes a sync fail")
async def test_every_acknowledged_command_survives_a_failed_sync(migrated_postgres: Path, tmp_path: Path, redis: Redis) -> None:
    """PostgreSQL must not go on after a failed sync, because nobody can know what is on the disk. It ends, and recovers."""
    postgres = copy_postgres(migrated_postgres, tmp_path)
    await start_all(postgres)
    try:
        async with commands_on(postgres, redis) as (api, settings):
            account_id = await api.account()
            attached = [f"--attach={pid}" for pid in family(postgres.pid)[1:]]
            fault = "--inject=fsync,fdatasync:error=EIO:when=10+"
            strace = Child("strace", tmp_path / "strace.log", ["strace", "-qq", *attached, fault])
            await strace.start()
            try:
                acknowledged = await deposit_until_refused(api, account_id, postgres)
            finally:
                await strace.stop()
            assert "PANIC" in postgres.log.read_text()
            await require_each_once(api, settings, account_id, acknowledged)
    finally:
        await stop_all(postgres)
