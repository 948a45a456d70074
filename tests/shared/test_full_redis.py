"""Redis refuses all writes, because its memory or its disk is full: commands go on, and afterwards everything is right."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from cli.exit_codes import ExitCode
from dev.servers import Redis, start_all, stop_all
from shared.settings import Settings
from tests.harness.clients import Commands, created, served
from tests.harness.keys import OPERATOR, bearer
from tests.harness.running import run_stack
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

DISK_BYTES = 64 << 20


@pytest.fixture
async def redis(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Redis]:
    """A server whose folder is on a small disk if the parameter is `disk`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if is_mounted := request.param == "disk":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk, and not on every machine")
    server = Redis("redis", disk)
    try:
        await start_all(server)
        yield server
        await stop_all(server)
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def set_full(redis: Redis, client: "RedisClient", *, is_full: bool) -> None:
    """Fills the disk of Redis if that is small, and else its memory. Or makes room again."""
    filler = redis.folder.parent / "filler"
    if not os.path.ismount(redis.folder.parent):
        await client.config_set("maxmemory", int(is_full))
    elif not is_full:
        filler.unlink()
    else:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))


def waiting_for(position: int) -> dict[str, str]:
    return {"Daybook-Min-Position": str(position), "Prefer": "wait=30"}


@pytest.mark.slow
@pytest.mark.parametrize("redis", ["memory", "disk"], indirect=True)
async def test_while_redis_is_full_commands_go_on_and_afterwards_queries_are_right(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"redis_url": redis.url})
    async with (
        run_stack(settings, tmp_path) as stack,
        httpx2.AsyncClient(timeout=60, trust_env=False, headers=bearer(OPERATOR)) as client,
        RedisClient.from_url(redis.url) as filled,
    ):
        client.base_url = stack.command.url
        api = Commands(client)
        account_id = await api.account(balance=5)
        balance = partial(client.get, f"{stack.query.url}/v1/accounts/{account_id}/balance")
        assert (await served(partial(balance, headers=waiting_for(3)))).json()["posted"] == 5
        await set_full(redis, filled, is_full=True)
        with pytest.raises(RedisError):
            while True:
                await filled.set("no room", "x" * 10_000)
        for number in range(20):
            deposit = await served(partial(api.deposit, account_id, 1, idempotency_key=str(number)))
            created(deposit)
        late = await balance()
        assert late.status_code == 503 or late.json()["posted"] == 5
        await set_full(redis, filled, is_full=False)
        last = int(deposit.headers["daybook-position"])
        assert (await served(partial(balance, headers=waiting_for(last)))).json()["posted"] == 25
        assert stack.worker.running
        code, out, err = await daybook(stack.settings, "verify").ended()
        assert code == ExitCode.DONE, out + err
