"""`daybook migrate` distributes tables and collections by ledger.

Citus and `mongos` are not part of the tests. Functions of the same names stand for Citus: they check its documented rules in the
catalog of a real PostgreSQL. What is sent to `mongos` is what a real MongoDB refuses.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from cli.exit_codes import ExitCode
from shared.errors import SchemaMismatch, SettingsInvalid
from shared.read_models.shapes import READ_MODELS
from shared.read_models.sharding import shard_collections, sharding_commands
from shared.settings import Settings
from shared.stores.citus import DISTRIBUTED, REFERENCES, distribute_tables
from shared.stores.postgres import open_postgres_as_owner
from shared.stores.schema_definition import expected_definition, read_definition
from tests.harness.mongo_listeners import listen
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

CITUS: Final = """
    CREATE SCHEMA stub;
    CREATE TABLE stub.pg_dist_partition (logicalrelid regclass PRIMARY KEY, column_name text, colocated_with regclass);
    CREATE VIEW public.pg_dist_partition AS SELECT logicalrelid FROM stub.pg_dist_partition;

    CREATE FUNCTION stub.require_no_trigger(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal) THEN
            RAISE 'cannot distribute relation "%" because it has triggers', relation;
        END IF;
    END $$;

    CREATE FUNCTION stub.create_distributed_table(
        relation regclass, distribution_column text, distribution_type text DEFAULT 'hash', colocate_with text DEFAULT 'default'
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        distributed_by smallint;
    BEGIN
        SELECT attnum INTO STRICT distributed_by FROM pg_attribute WHERE attrelid = relation AND attname = distribution_column;
        PERFORM stub.require_no_trigger(relation);
        IF EXISTS (SELECT FROM pg_index WHERE indrelid = relation AND indisunique AND distributed_by <> ALL (indkey)) THEN
            RAISE 'cannot create constraint on "%": it must include the distribution column', relation;
        END IF;
        -- A foreign key joins distribution columns, and references a table that is distributed in the same way.
        IF EXISTS (
            SELECT FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attname = distribution_column
            WHERE f.contype = 'f' AND f.conrelid = relation AND (
                NOT EXISTS (SELECT FROM generate_subscripts(f.conkey, 1) n
                            WHERE f.conkey[n] = distributed_by AND f.confkey[n] = a.attnum)
                OR f.confrelid NOT IN (SELECT logicalrelid FROM stub.pg_dist_partition)
            )
        ) THEN
            RAISE 'cannot create foreign key constraint on "%"', relation;
        END IF;
        -- Citus gives numbers of an identity column to servers in ranges, which only a bigint has room for.
        IF EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = relation AND attidentity <> '' AND atttypid <> 'bigint'::regtype
        ) THEN
            RAISE 'cannot distribute "%": an identity column is no bigint', relation;
        END IF;
        IF current_setting('citus.multi_shard_modify_mode', true) IS DISTINCT FROM 'sequential' THEN
            RAISE 'cannot distribute relation "%" in this transaction because it has a foreign key', relation;
        END IF;
        INSERT INTO stub.pg_dist_partition
        VALUES (relation, distribution_column, CASE colocate_with WHEN 'default' THEN relation ELSE colocate_with::regclass END);
    END $$;

    CREATE FUNCTION stub.create_reference_table(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM stub.require_no_trigger(relation);
        INSERT INTO stub.pg_dist_partition VALUES (relation, NULL, NULL);
    END $$;

    CREATE FUNCTION stub.run_command_on_workers(command text)
    RETURNS TABLE (nodename text, nodeport int, success bool, result text) LANGUAGE sql AS $$
        SELECT 'worker', 5432, true, coalesce(current_setting('citus.unsafe_on_workers', true), 'off')
    $$;

    CREATE FUNCTION stub.refuse_trigger() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('citus.enable_unsafe_triggers', true) IS DISTINCT FROM 'on' AND EXISTS (
            SELECT FROM pg_event_trigger_ddl_commands() JOIN pg_trigger t ON t.oid = objid
            JOIN stub.pg_dist_partition ON logicalrelid = tgrelid
        ) THEN
            RAISE 'triggers are not supported on distributed tables when "citus.enable_unsafe_triggers" is set to "false"';
        END IF;
    END $$;
    CREATE EVENT TRIGGER refuse_trigger ON ddl_command_end WHEN tag IN ('CREATE TRIGGER')
    EXECUTE FUNCTION stub.refuse_trigger();

    GRANT ALL ON SCHEMA stub TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA stub TO PUBLIC;
    GRANT ALL ON public.pg_dist_partition TO PUBLIC;
"""
"""Citus 12 in its documented rules, as far as `--citus` meets them."""
ON_WORKERS: Final = "citus.unsafe_on_workers"


@pytest_asyncio.fixture
async def citus(servers: Servers, settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the test's database, which has the functions of Citus."""
    name = settings.database_url.rpartition("/")[2]
    connection = await asyncpg.connect(servers.postgres.superuser_url.rpartition("/")[0] + f"/{name}", ssl=False)
    await connection.execute(CITUS)
    await connection.execute(f"ALTER DATABASE {name} SET search_path TO public, stub")
    await connection.execute(f"ALTER DATABASE {name} SET {ON_WORKERS} TO 'on'")
    yield connection
    await connection.close()


async def distribute(settings: Settings) -> list[str]:
    return [statement async for statement in distribute_tables(settings.database_url)]


async def definition(settings: Settings) -> list[str]:
    async with open_postgres_as_owner(settings) as engine, engine.connect() as connection:
        return [line for line in await read_definition(connection) if "pg_dist_partition" not in line]


async def test_all_tables_are_distributed_by_ledger_and_keep_their_triggers(
    citus: "asyncpg.Connection", settings: Settings
) -> None:
    statements = await distribute(settings)
    rows = await citus.fetch("SELECT logicalrelid::text, column_name, colocated_with::text FROM stub.pg_dist_partition")
    assert {tuple(row) for row in rows} == {
        *((table, "ledger_id", "log_heads") for table in DISTRIBUTED),
        *((table, None, None) for table in REFERENCES),
    }
    assert await definition(settings) == list(expected_definition())
    with pytest.raises(asyncpg.RestrictViolationError):
        await citus.execute("UPDATE events SET type = ''")
    assert len(statements) == len(set(statements)) > len(DISTRIBUTED) + len(REFERENCES)
    assert await distribute(settings) == [], "the second time there is nothing to do"
    await citus.execute("DELETE FROM stub.pg_dist_partition WHERE logicalrelid = 'seals'::regclass")
    assert [each for each in await distribute(settings) if "create_" in each] == [
        "SELECT create_distributed_table('seals', 'ledger_id', colocate_with => 'log_heads')"
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("CREATE UNIQUE INDEX wrong ON seals (key_id)", "must include the distribution column"),
        ("ALTER TABLE seals ADD FOREIGN KEY (ledger_id) REFERENCES passwords_of (ledger_id)", "foreign key"),
        ("ALTER TABLE seals ADD wrong int GENERATED ALWAYS AS IDENTITY", "no bigint"),
    ],
    ids=["key", "foreign-key", "identity"],
)
async def test_what_citus_refuses_changes_nothing(
    citus: "asyncpg.Connection", settings: Settings, change: str, reason: str
) -> None:
    await citus.execute("CREATE TABLE passwords_of (ledger_id text PRIMARY KEY)")
    await citus.execute(change)
    before = await definition(settings)
    with pytest.raises(SchemaMismatch, match=reason):
        await distribute(settings)
    assert await citus.fetchval("SELECT count(*) FROM stub.pg_dist_partition") == 0
    assert await definition(settings) == before


async def test_what_is_missing_is_said_with_the_next_step(servers: Servers, settings: Settings) -> None:
    with pytest.raises(SchemaMismatch, match="run `CREATE EXTENSION citus`"):
        await distribute(settings)
    name = settings.database_url.rpartition("/")[2]
    superuser = await asyncpg.connect(servers.postgres.superuser_url.rpartition("/")[0] + f"/{name}", ssl=False)
    try:
        await superuser.execute(CITUS)
        await superuser.execute(f"ALTER DATABASE {name} SET search_path TO public, stub")
    finally:
        await superuser.close()
    with pytest.raises(SchemaMismatch, match="enable_unsafe_triggers = on in postgresql"):
        await distribute(settings)


class Commands(CommandListener):
    """Notes the commands that are sent to shard collections."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "shardCollection":
            self.sent.append({name: event.command[name] for name in ("shardCollection", "key", "$db")})

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    listener = Commands()
    listen(monkeypatch, listener)
    return listener


async def test_a_server_that_is_no_mongos_refuses_to_shard_and_is_named(settings: Settings, commands: Commands) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_MONGO_URL: names a server that is no mongos"):
        [each async for each in shard_collections(settings)]
    [sent] = commands.sent
    assert sent == {"shardCollection": f"{settings.mongo_database}.pointers", "key": {"_id": 1}, "$db": "admin"}
    wanted = {model.name for model in READ_MODELS if model.store == "mongo"} | {"pointers", "checkpoints", "dead_letters"}
    every = [each["shardCollection"].partition(".")[2] for each in sharding_commands("daybook")]
    assert wanted <= {*every}
    assert len(every) == len({*every})
    assert all(each["key"] == {"_id": 1} for each in sharding_commands("daybook"))


@pytest.mark.usefixtures("citus")
async def test_the_command_prints_what_it_does_and_ends_with_one_line_if_it_cannot(settings: Settings) -> None:
    code, lines = await daybook(settings, "migrate", "--citus")
    assert (code, lines[-1]) == (ExitCode.DONE, "the tables are distributed by ledger")
    assert "SELECT create_distributed_table('log_heads', 'ledger_id')" in lines
    code, lines = await daybook(settings, "migrate", "--mongo-sharding")
    assert code == ExitCode.SETTINGS
    assert "names a server that is no mongos" in lines[-1]


async def daybook(settings: Settings, *arguments: str) -> tuple[int, list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.app", *arguments),
        env=os.environ | environment_of(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()
