"""Measures how fast the stores write plain rows and documents. These figures are the yardsticks for batches and replays."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from uuid import uuid4

import asyncpg
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern

from bench.interleaving import Lane, Values, interleave
from bench.ledger_filling import append_uniform
from bench.measurement import Section
from bench.rig import Rig
from bench.workloads import account_id, nonce
from shared.timestamps import timestamp

BATCH_ROWS: Final = 1_000

UNNEST: Final = "INSERT … SELECT unnest, 1,000 rows"
COPY: Final = "COPY, 1,000 rows"
INSERT_MANY: Final = "MongoDB insert_many, 1,000 documents"
IN_PROCESS: Final = "transfers through the command handler, no HTTP"

COLUMNS: Final = ("ledger_id", "position", "event_id", "type", "schema_version", "data", "metadata", "recorded_at", "hash")
MAKE_TABLE: Final = """
    CREATE TABLE events (
        ledger_id text NOT NULL, position bigint NOT NULL, event_id uuid NOT NULL, type text NOT NULL,
        schema_version smallint NOT NULL, data jsonb NOT NULL, metadata jsonb NOT NULL, recorded_at timestamptz NOT NULL,
        hash bytea NOT NULL, PRIMARY KEY (ledger_id, position), UNIQUE (ledger_id, event_id)
    );
    CREATE INDEX ON events (ledger_id, type, position)
"""
INSERT_ONE: Final = "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
INSERT_ALL: Final = """
    INSERT INTO events
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::smallint[], $6::jsonb[], $7::jsonb[],
                         $8::timestamptz[], $9::bytea[])
"""


async def measure_stores(rig: Rig) -> Section:
    section = Section("stores", "The bare stores, and the batch path without HTTP")
    scale = rig.scale
    url = await rig.scratch()
    await make_events_table(url)
    connection: asyncpg.Connection = await asyncpg.connect(url)
    settings = await rig.ledger(scale.accounts)
    rows = event_rows()

    async def unnest() -> None:
        columns = [list(column) for column in zip(*(next(rows) for _ in range(BATCH_ROWS)), strict=True)]
        await connection.execute(INSERT_ALL, *columns)

    async def copy() -> None:
        await connection.copy_records_to_table("events", records=[next(rows) for _ in range(BATCH_ROWS)], columns=COLUMNS)

    async def in_process() -> Values:
        return {"per second": await append_uniform(settings, int(scale.seconds * 5_000), scale.accounts)}

    lanes: dict[str, Lane] = {
        UNNEST: lambda: repeated(unnest, BATCH_ROWS, scale.seconds),
        COPY: lambda: repeated(copy, BATCH_ROWS, scale.seconds),
        IN_PROCESS: in_process,
    }
    await interleave(section, lanes, scale.rounds)
    await connection.close()
    section.notes.append("Rows like those of the event table, with its indexes; each statement is a transaction of its own.")
    return section


async def make_events_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(MAKE_TABLE)
    await connection.close()


async def insert_single(connection: asyncpg.Connection, seconds: float) -> Values:
    """Inserts rows one after another, each in its own transaction."""
    rows = event_rows()

    async def insert() -> None:
        await connection.execute(INSERT_ONE, *next(rows))

    return await repeated(insert, 1, seconds)


async def repeated(work: Callable[[], Awaitable[None]], rows: int, seconds: float) -> Values:
    begin = time.perf_counter()
    done = 0
    while (took := time.perf_counter() - begin) < seconds:
        await work()
        done += rows
    return {"per second": done / took}


def event_rows() -> Iterator[tuple[Any, ...]]:
    """Makes rows like the events of transfers. Each call uses a new ledger id, so that no two rows have the same key."""
    ledger_id = f"bench-{nonce()}"
    data = json.dumps(_transfer() | {"from_balance": -7, "to_balance": 7})
    metadata = json.dumps({"command": "TransferFunds", "request_id": str(uuid4())})
    now = datetime.now(UTC)
    for position in count(1):
        yield ledger_id, position, uuid4(), "FundsTransferred", 1, data, metadata, now, bytes(32)


def _transfer() -> dict[str, Any]:
    return {
        "transfer_id": str(uuid4()),
        "from_account_id": account_id(1),
        "to_account_id": account_id(2),
        "amount": 7,
        "currency": "EUR",
    }


# ── MongoDB ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def insert_many(mongo_url: str, seconds: float) -> Values:
    """Inserts documents like those of the read model `transfers`, with the same write concern but without its indexes."""
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        concern = WriteConcern(w="majority", j=True)
        collection = client.bench.get_collection(f"raw_{nonce()}", write_concern=concern)
        numbers = count(1)

        async def insert() -> None:
            documents = [_document(next(numbers)) for _ in range(BATCH_ROWS)]
            await collection.insert_many(documents, ordered=False)

        done = await repeated(insert, BATCH_ROWS, seconds)
        await collection.drop()
    return {"documents per second": done["per second"]}


def _document(position: int) -> dict[str, Any]:
    now = timestamp(datetime.now(UTC))
    accounts = [account_id(1), account_id(2)]
    moments = {"occurred_at": now, "recorded_at": now}
    return (
        _transfer()
        | moments
        | {"_id": str(uuid4()), "kind": "transfer", "found_by": [*accounts, "kind=transfer"], "position": position}
    )
