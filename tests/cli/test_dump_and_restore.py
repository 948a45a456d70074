"""PostgreSQL is dumped with its own tool and restored into a new cluster, while MongoDB and Redis stay as they are."""

import subprocess
from pathlib import Path

import asyncpg
import httpx2
import pytest

from cli.exit_codes import ExitCode
from dev.programs import find_program
from dev.servers import Postgres, start_all, stop_all
from shared.settings import Settings
from tests.harness.clients import Commands, created
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, bearer
from tests.harness.running import run_stack
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services


@pytest.mark.slow
async def test_a_dump_that_is_restored_into_a_new_cluster_verifies_and_takes_commands(
    settings: Settings, migrated_postgres: Path, tmp_path: Path
) -> None:
    """The new cluster has the roles, because `daybook migrate` has run there. Its transaction ids begin anew."""
    postgres = copy_postgres(migrated_postgres, tmp_path)
    await start_all(postgres)
    try:
        for step in ("before", "after"):
            if step == "after":
                await restore(settings.database_url, postgres, tmp_path / "dump")
                settings = settings.model_copy(update={"database_url": postgres.url})
            folder = tmp_path / step
            folder.mkdir()
            async with run_stack(settings, folder) as stack, httpx2.AsyncClient(timeout=60, trust_env=False) as client:
                client.headers.update(bearer(OPERATOR))
                client.base_url = stack.command.url
                api = Commands(client)
                if step == "before":
                    account_id = await api.account(balance=5)
                answer = await api.deposit(account_id, 7, idempotency_key="the same before and after")
                created(answer)
                position = answer.headers["daybook-position"]
                assert ("idempotency-replayed" in answer.headers) == (step == "after")
                if step == "after":
                    more = await api.deposit(account_id, 1, idempotency_key="only after")
                    created(more)
                    position = more.headers["daybook-position"]
                wait = {"Daybook-Min-Position": position, "Prefer": "wait=30"}
                balance = await client.get(f"{stack.query.url}/v1/accounts/{account_id}/balance", headers=wait)
                assert balance.json()["posted"] == (12 if step == "before" else 13)
                code, out, err = await daybook(settings, "verify").ended()
                assert code == ExitCode.DONE, out + err
    finally:
        await stop_all(postgres)


async def restore(url: str, postgres: Postgres, dump: Path) -> None:
    """Restores a dump of the database at `url` as the database `daybook` of another server."""
    subprocess.run([find_program("pg_dump"), "--format=custom", "--file", dump, url], check=True)
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        await connection.execute("DROP DATABASE daybook")
        await connection.execute("CREATE DATABASE daybook OWNER daybook")
    finally:
        await connection.close()
    subprocess.run([find_program("pg_restore"), "--no-owner", "--exit-on-error", "--dbname", postgres.url, dump], check=True)
