"""The migrations make the schema that the code needs, and each can be undone."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from shared.log.tables import metadata
from shared.settings import Settings
from shared.stores.postgres import open_postgres_as_owner
from shared.stores.schema import SCHEMA_REVISION
from shared.stores.schema_definition import expected_definition, read_definition

ROOT = Path(__file__).parents[2]
_WAITING = text("SELECT true FROM pg_locks WHERE NOT granted AND relation = 'idempotency_keys'::regclass")


def test_the_migrations_are_one_line_that_ends_at_the_revision_of_the_code() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert scripts.get_heads() == [SCHEMA_REVISION]
    line = [script.revision for script in scripts.walk_revisions()]
    assert line == sorted(line, reverse=True)


@pytest.mark.services
async def test_the_migrations_make_the_tables_that_the_code_declares(settings: Settings) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with open_postgres_as_owner(settings) as engine, engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.services
async def test_the_migrations_make_the_schema_that_verify_expects(settings: Settings) -> None:
    """Run `make schema` after a change of the migrations."""
    async with open_postgres_as_owner(settings) as engine, engine.connect() as connection:
        assert await read_definition(connection) == list(expected_definition())


def alembic(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "DAYBOOK_DATABASE_URL": settings.database_url}
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def require_success(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        out, err = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, out + err


@pytest.mark.slow
@pytest.mark.services
async def test_every_migration_can_be_undone_and_done_again(settings: Settings) -> None:
    async with open_postgres_as_owner(settings) as engine:
        for step, left in (("downgrade base", set()), ("upgrade head", set(metadata.tables))):
            await require_success(alembic(settings, *step.split()))
            async with engine.connect() as connection:
                names = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
            assert names - {"alembic_version"} == left


@pytest.mark.services
async def test_a_migration_that_waits_for_a_lock_holds_no_command_up(settings: Settings) -> None:
    """A session has an open transaction for some time. The inserts of commands must not wait behind the migration meanwhile.

    They wait for a lock for the time of `DAYBOOK_DATABASE_LOCK_TIMEOUT_MS`. After that, each would be a 503.
    """
    await require_success(alembic(settings, "downgrade", "0006"))
    lock = text("LOCK TABLE idempotency_keys IN ROW EXCLUSIVE MODE")  # that of an insert
    wait_ms = Settings.model_fields["database_lock_timeout_ms"].default
    async with open_postgres_as_owner(settings) as engine, engine.connect() as other, engine.connect() as command:
        await other.execute(lock)
        migration = alembic(settings, "upgrade", "head")
        waited = 0
        while waited < 3:
            assert migration.poll() is None
            waited += bool(await other.scalar(_WAITING))
            async with command.begin():
                await command.execute(text(f"SET LOCAL lock_timeout = {wait_ms}"))
                await command.execute(lock)
        await other.rollback()
        out, err = await asyncio.to_thread(migration.communicate)
        assert migration.returncode == 0, out + err
        assert "another session holds a lock" in err
        async with engine.connect() as connection:
            assert await read_definition(connection) == list(expected_definition())


@pytest.mark.slow
@pytest.mark.services
async def test_migrations_at_once_and_killed_end_in_one_schema(settings: Settings) -> None:
    """One migration is killed while it runs. Then three run at once. A session with a lock holds the first one up."""
    await require_success(alembic(settings, "downgrade", "0001"))
    async with open_postgres_as_owner(settings) as engine:
        async with engine.begin() as reader:
            await reader.execute(text("LOCK TABLE idempotency_keys"))
            killed = alembic(settings, "upgrade", "head")
            while not await reader.scalar(_WAITING):
                assert killed.poll() is None
                await asyncio.sleep(0.05)
            killed.kill()
            killed.communicate()
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
        await require_success(*(alembic(settings, "upgrade", "head") for _ in range(3)))
        async with engine.connect() as connection:
            assert await read_definition(connection) == list(expected_definition())
