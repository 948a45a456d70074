"""The migrations make the schema that the code needs, and each can be undone."""

import asyncio
import os
import re
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
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.log.tables import metadata
from shared.settings import Settings
from shared.stores.postgres import open_postgres_as_owner
from shared.stores.schema import SCHEMA_REVISION
from shared.stores.schema_definition import expected_definition, read_definition

ROOT = Path(__file__).parents[2]
FEW_ROWS = {"api_keys"}
WITHOUT_WAITING_MS = 200
"""Less than a migration waits for the lock of a table, so a command that waits behind it fails."""
WITHIN_SECONDS = 120
_INSERTING = text("LOCK TABLE idempotency_keys IN ROW EXCLUSIVE MODE")
_WAITING = text("SELECT true FROM pg_locks WHERE NOT granted AND relation = 'idempotency_keys'::regclass")
_HALF_MADE = text("""
    SELECT true FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE c.relname = 'idempotency_keys_position_idx' AND NOT indisvalid
""")
_HELD_UP = text("SELECT true FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid'")
"""A session waits for the end of a transaction, to make or drop an index concurrently."""


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


def test_an_index_of_a_table_that_has_rows_is_made_concurrently() -> None:
    """An index that is made in another way holds every command up until all rows are in it."""
    for file in sorted((ROOT / "migrations" / "versions").glob("*.py")):
        code = file.read_text()
        new_tables = set(re.findall(r"CREATE TABLE (\w+)", code))
        indexed = set(re.findall(r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+)", code))
        assert indexed <= new_tables | FEW_ROWS, f"{file.name}: use shared.stores.concurrent_index"
        assert "op.create_index" not in code, file.name


@pytest.mark.services
async def test_a_migration_that_waits_for_a_lock_holds_no_command_up(settings: Settings) -> None:
    """A session has an open transaction for some time. The inserts of commands must not wait behind the migration meanwhile.

    They wait for a lock for the time of `DAYBOOK_DATABASE_LOCK_TIMEOUT_MS`. After that, each would be a 503.
    """
    wait_ms = Settings.model_fields["database_lock_timeout_ms"].default
    async with open_postgres_as_owner(settings) as engine, engine.connect() as other:
        await other.execute(_INSERTING)
        migration = alembic(settings, "downgrade", "0006")
        waited = 0
        while waited < 3:
            assert migration.poll() is None
            waited += bool(await other.scalar(_WAITING))
            await insert(engine, wait_ms)
        await other.rollback()
        out, err = await asyncio.to_thread(migration.communicate)
        assert migration.returncode == 0, out + err
        assert "another session holds a lock" in err


async def insert(engine: AsyncEngine, wait_ms: int) -> None:
    """Takes the lock of an insert, as a command does, and waits for it no longer than this."""
    async with engine.begin() as command:
        await command.execute(text(f"SET LOCAL lock_timeout = {wait_ms}"))
        await command.execute(_INSERTING)


@pytest.mark.slow
@pytest.mark.services
async def test_migrations_at_once_and_killed_make_an_index_while_commands_go_on(settings: Settings) -> None:
    """One migration is killed while it makes an index, which is left half-made. Then three run at once.

    An open transaction holds the index up. No command waits meanwhile.
    """
    await require_success(alembic(settings, "downgrade", "0001"))
    async with asyncio.timeout(WITHIN_SECONDS), open_postgres_as_owner(settings) as engine, engine.connect() as other:
        await other.execute(_INSERTING)
        killed = alembic(settings, "upgrade", "head")
        while not await other.scalar(_HALF_MADE):
            assert killed.poll() is None
            await insert(engine, WITHOUT_WAITING_MS)
        killed.kill()
        killed.communicate()
        while await other.scalar(_HELD_UP):  # until PostgreSQL notices that nobody is there
            await asyncio.sleep(0.05)
        assert await other.scalar(text("SELECT version_num FROM alembic_version")) == "0006"
        assert await other.scalar(_HALF_MADE)
        migrations = [alembic(settings, "upgrade", "head") for _ in range(3)]
        while not await other.scalar(_HELD_UP):
            assert not any(migration.poll() for migration in migrations)
            await insert(engine, WITHOUT_WAITING_MS)
        await other.rollback()
        await require_success(*migrations)
        async with engine.connect() as connection:
            assert await read_definition(connection) == list(expected_definition())
