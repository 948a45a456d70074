"""Distributes the tables over the servers of Citus, by ledger: `daybook migrate --citus`.

The rows of a ledger are on one server, in all tables, so a batch of commands is a transaction there. Citus distributes no table
with triggers, so the triggers that refuse changes of the log are dropped first and made again afterwards, all in one transaction.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import SchemaMismatch
from shared.stores.postgres import postgres_address
from shared.stores.store_errors import reading_url

DISTRIBUTED: Final = (
    *("log_heads", "events", "stream_events", "streams", "idempotency_keys", "writer_leases"),
    *("passwords", "person_keys", "audit_records", "seals", "seal_nodes", "publishing"),
    *("read_model_operations", "verifications", "webhooks", "webhook_deliveries"),
)
"""The tables whose rows are distributed, each after the ones that it references. All are beside the first."""

REFERENCES: Final = {
    "alembic_version": "one row that says which migrations have been run",
    "api_keys": "a caller is found by its key, before anybody knows the ledger; small enough for a copy on each server",
    "password_resets": "a reset token is found by its hash; a row for each person who has forgotten a password lately",
}
"""The tables that each server has a copy of, and the reason."""

UNSAFE_TRIGGERS: Final = "citus.enable_unsafe_triggers"
"""Citus' setting for triggers on distributed tables. A trigger is unsafe if it changes rows elsewhere. These change nothing."""

_HAS_CITUS: Final = text("SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'create_distributed_table')")
_SERVERS_WITHOUT_TRIGGERS: Final = text(f"""
    SELECT count(*) FROM run_command_on_workers('SHOW {UNSAFE_TRIGGERS}') WHERE NOT success OR result <> 'on'
""")  # noqa: S608 # built of constants
_DONE: Final = text("SELECT c.relname FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid")
_TRIGGERS: Final = text("""
    SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND c.relnamespace = CAST('public' AS regnamespace) AND c.relname = ANY (:tables)
    ORDER BY c.relname, t.tgname
""")


async def distribute_tables(url: str) -> AsyncIterator[str]:
    """Distributes the tables that are not yet distributed. Yields each statement before it is run. All are one transaction.

    Raises:
        SchemaMismatch: Citus is missing, is not set up, or refuses a table. Nothing has changed then.
        SettingsInvalid: the URL cannot be read.
    """
    with reading_url("DAYBOOK_DATABASE_URL, or DAYBOOK_MIGRATION_DATABASE_URL"):
        address, tls = postgres_address(url)
    engine = create_async_engine(address, poolclass=NullPool, hide_parameters=True, connect_args=tls)
    try:
        async with engine.begin() as connection:
            for statement in await _statements(connection):
                yield statement
                try:
                    await connection.exec_driver_sql(statement)
                except DBAPIError as error:
                    raise SchemaMismatch(f"Citus refused `{statement}`: {error.orig}; nothing has changed") from None
    finally:
        await engine.dispose()


async def _statements(connection: AsyncConnection) -> Sequence[str]:
    if not await connection.scalar(_HAS_CITUS):
        raise SchemaMismatch("cannot distribute the tables: run `CREATE EXTENSION citus` in this database first")
    if await connection.scalar(_SERVERS_WITHOUT_TRIGGERS):
        raise SchemaMismatch(
            f"cannot distribute the tables: set {UNSAFE_TRIGGERS} = on in postgresql.conf of each server, and reload it"
        )
    done = set(await connection.scalars(_DONE))
    distributed = [table for table in DISTRIBUTED if table not in done]
    references = [table for table in REFERENCES if table not in done]
    if not distributed and not references:
        return []
    triggers = (await connection.execute(_TRIGGERS, {"tables": [*distributed, *references]})).all()
    first, *_ = DISTRIBUTED
    return [
        # One after the other over one connection: several tables are changed in this transaction.
        "SET LOCAL citus.multi_shard_modify_mode TO 'sequential'",
        f"SET LOCAL {UNSAFE_TRIGGERS} TO on",
        *(f"DROP TRIGGER {name} ON {table}" for table, name, _ in triggers),
        *(f"SELECT create_reference_table('{table}')" for table in references),
        *(
            f"SELECT create_distributed_table('{table}', 'ledger_id'"
            + (")" if table == first else f", colocate_with => '{first}')")
            for table in distributed
        ),
        *(definition for *_, definition in triggers),
    ]
