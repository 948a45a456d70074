"""A process may open no more files and connections. It goes on, and serves everybody again once it may."""

import asyncio
import resource
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.harness.clients import Commands, created, served
from tests.harness.keys import OPERATOR, bearer
from tests.harness.running import Stack

pytestmark = pytest.mark.services


@pytest.mark.slow
async def test_a_process_without_free_descriptors_serves_again_when_it_has_some(stack: Stack) -> None:
    """Both APIs and the worker have no free descriptor while twenty strangers connect to each API."""
    processes = stack.command, stack.query, stack.worker
    ids = [process.pid for process in processes]
    async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(OPERATOR), timeout=60, trust_env=False) as client:
        api = Commands(client)
        account_id = await api.account(balance=1)
        before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in ids]
        for pid, (_, most) in zip(ids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())), most))
        strangers = [
            await asyncio.open_connection("127.0.0.1", httpx2.URL(process.url).port)
            for process in (stack.command, stack.query)
            for _ in range(20)
        ]
        created(await served(partial(api.deposit, account_id, 2, idempotency_key="on a connection that is open")))
        for _, writer in strangers:
            writer.close()
            await writer.wait_closed()
        for pid, limits in zip(ids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        deposit = await served(partial(api.deposit, account_id, 3, idempotency_key="afterwards"))
        created(deposit)
        waiting = {"Daybook-Min-Position": deposit.headers["daybook-position"], "Prefer": "wait=30"}
        balance = await served(partial(client.get, f"{stack.query.url}/v1/accounts/{account_id}/balance", headers=waiting))
        assert balance.json()["posted"] == 6
    assert [process.pid for process in processes if process.running] == ids
