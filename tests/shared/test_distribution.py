"""In a store with several servers, all data of one ledger stay together.

The tables follow the rules of Citus for distribution by ledger: every key and every foreign key begins with `ledger_id`. The keys
of a ledger's read models are in one slot of a Redis Cluster.
"""

from typing import Final

import pytest
from redis.crc import key_slot
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.read_models.failures import failures_key
from shared.read_models.generations import Generation, pointer_key
from shared.read_models.shapes import READ_MODELS
from shared.read_models.worker_reports import phase_times_key
from shared.settings import Settings
from shared.stores.citus import DISTRIBUTED, REFERENCES
from shared.stores.postgres import open_postgres_as_owner

_KEYS: Final = text("""
    SELECT c.relname || '.' || k.relname, c.relname, (
        SELECT array_agg(a.attname ORDER BY n)
        FROM unnest(i.indkey) WITH ORDINALITY AS columns (number, n)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = number
    )
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class k ON k.oid = i.indexrelid
    WHERE i.indisunique AND c.relnamespace = CAST('public' AS regnamespace)
""")
_FOREIGN_KEYS: Final = text("""
    SELECT f.conname, c.relname, t.relname, own.attname, their.attname
    FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_class t ON t.oid = f.confrelid
    JOIN pg_attribute own ON own.attrelid = c.oid AND own.attnum = f.conkey[1]
    JOIN pg_attribute their ON their.attrelid = t.oid AND their.attnum = f.confkey[1]
    WHERE f.contype = 'f' AND c.relnamespace = CAST('public' AS regnamespace)
""")
_TABLES: Final = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


async def offences(connection: AsyncConnection) -> set[str]:
    """Returns the keys and tables that Citus would not distribute by `ledger_id`."""
    tables = set(await connection.scalars(_TABLES)) - REFERENCES.keys()
    keys = (await connection.execute(_KEYS)).all()
    found = {name for name, table, columns in keys if table in tables and columns[0] != "ledger_id"}
    found |= tables - {table for _, table, _ in keys}
    for name, table, referenced, own, their in await connection.execute(_FOREIGN_KEYS):
        if {table, referenced} & REFERENCES.keys() or (own, their) != ("ledger_id", "ledger_id"):
            found.add(name)
    return found


@pytest.mark.services
async def test_every_key_and_foreign_key_begins_with_the_ledger(settings: Settings) -> None:
    async with open_postgres_as_owner(settings) as engine, engine.connect() as connection:
        assert await offences(connection) == set()
        assert {*DISTRIBUTED, *REFERENCES} == set(await connection.scalars(_TABLES))
        await connection.execute(text("CREATE TABLE good (ledger_id text, id text, PRIMARY KEY (ledger_id, id))"))
        await connection.execute(text("CREATE TABLE without_key (ledger_id text)"))
        await connection.execute(text("CREATE TABLE other_key (ledger_id text, id text PRIMARY KEY)"))
        await connection.execute(text("CREATE UNIQUE INDEX wrong_order ON good (id, ledger_id)"))
        await connection.execute(text("ALTER TABLE good ADD CONSTRAINT across FOREIGN KEY (id) REFERENCES other_key"))
        assert await offences(connection) == {"without_key", "other_key.other_key_pkey", "good.wrong_order", "across"}
        await connection.rollback()


def test_all_keys_of_the_read_models_of_a_ledger_are_in_one_slot() -> None:
    models = [model for model in READ_MODELS if model.store == "redis"]

    def slots(ledger_id: str) -> set[int]:
        keys = [failures_key(ledger_id), phase_times_key(ledger_id), *(pointer_key(model, ledger_id) for model in models)]
        for number, model in enumerate(models, 1):
            generation = Generation(model, ledger_id, number)
            keys += [generation.key("checkpoint"), generation.key("account:ada"), generation.key("ranking:EUR")]
        return {key_slot(key.encode()) for key in keys}

    assert len(models) > 2
    assert [len(slots(ledger_id)) for ledger_id in ("main", "tenant-2")] == [1, 1]
    assert slots("main") != slots("tenant-2")
