"""The three processes with log lines that cannot be written: nothing ends, and everything goes on by itself."""

import asyncio
from functools import partial
from pathlib import Path

import httpx2
import pytest

from dev.servers import Mongo, Redis, start_all, stop_all
from shared.settings import Settings
from tests.harness.clients import Commands, created, served
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, bearer
from tests.harness.log import MASTER_KEY
from tests.harness.running import run_stack

pytestmark = pytest.mark.services


@pytest.mark.slow
async def test_no_process_dies_of_a_log_line_on_a_full_disk(migrated_postgres: Path, tmp_path: Path) -> None:
    """All stores are killed twice while nothing can be logged. Commands are then recorded, and queries see them."""
    stores = copy_postgres(migrated_postgres, tmp_path), Mongo("mongo", tmp_path), Redis("redis", tmp_path)
    await start_all(*stores)
    settings = Settings(
        database_url=stores[0].url,
        mongo_url=stores[1].url,
        redis_url=stores[2].url,
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
    )
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("command-api", "query-api", "worker"):
        (logs / f"{name}.log").symlink_to("/dev/full")
    try:
        async with run_stack(settings, logs) as stack, httpx2.AsyncClient(timeout=60, trust_env=False) as client:
            client.headers.update(bearer(OPERATOR))
            client.base_url = stack.command.url
            api = Commands(client)
            account_id = await api.account(balance=1)
            ids = [process.pid for process in (stack.command, stack.query, stack.worker)]
            for amount in (2, 3):
                await asyncio.gather(*(store.kill() for store in stores))
                impatient = Commands(client)
                answers = [await impatient.deposit(account_id, 100, idempotency_key=f"down {n}") for n in range(3)]
                answers += [await client.get(f"{stack.query.url}/v1/accounts/{account_id}/balance") for _ in range(3)]
                assert {answer.status_code for answer in answers} == {503}
                assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
                await start_all(*stores)
                deposit = await api.deposit(account_id, amount, idempotency_key=f"deposit {amount}")
                created(deposit)
                headers = {"Daybook-Min-Position": deposit.headers["daybook-position"], "Prefer": "wait=5"}
                ask = partial(client.get, f"{stack.query.url}/v1/accounts/{account_id}/balance", headers=headers)
                assert (await served(ask)).status_code == 200
                ready = await served(partial(client.get, f"{stack.command.url}/readyz"))
                assert ready.json()["tasks"] == "ok"
            assert [process.pid for process in (stack.command, stack.query, stack.worker) if process.running] == ids
    finally:
        await stop_all(*stores)
