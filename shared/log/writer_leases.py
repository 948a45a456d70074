"""Reads and takes the leases of writers: which process writes to a ledger's log, and how long still.

A lease makes commands fast and never safe. A process without a lease may append too: the append checks the head of the log, and
that alone keeps two writers from harming each other. So a lease may be wrong, late or taken twice.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Collection
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LEASE_SECONDS: Final = 1.0
"""How long a lease lasts after its last renewal, in seconds by PostgreSQL's clock."""

# Leases are taken in the order of their ledgers, so that two processes never wait for each other.
TAKE_LEASES: Final = text(f"""
    WITH mine AS (
        INSERT INTO writer_leases AS w (ledger_id, term, process_id, address, expires_at)
        SELECT ledger_id, 1, :process_id, :address, clock_timestamp() + interval '{LEASE_SECONDS} seconds'
        FROM unnest(CAST(:ledger_ids AS text[])) AS asked (ledger_id)
        WHERE NOT EXISTS (
            SELECT 1 FROM writer_leases o
            WHERE o.ledger_id = asked.ledger_id AND o.process_id <> :process_id AND o.expires_at > clock_timestamp()
        )
        ORDER BY ledger_id
        ON CONFLICT ON CONSTRAINT writer_leases_pkey DO UPDATE
        SET term = CASE WHEN w.process_id = excluded.process_id THEN w.term ELSE w.term + 1 END,
            process_id = excluded.process_id, address = excluded.address, expires_at = excluded.expires_at
        WHERE w.process_id = excluded.process_id OR w.expires_at <= clock_timestamp()
        RETURNING ledger_id, term, process_id, address, expires_at
    ), held AS (
        SELECT * FROM mine
        UNION ALL
        SELECT ledger_id, term, process_id, address, expires_at FROM writer_leases
        WHERE ledger_id = ANY (CAST(:ledger_ids AS text[])) AND ledger_id NOT IN (SELECT ledger_id FROM mine)
    )
    SELECT ledger_id, term, process_id, address, CAST(extract(epoch FROM expires_at - clock_timestamp()) AS double precision)
    FROM held
""")  # noqa: S608 # built of constants

END_LEASES: Final = text("UPDATE writer_leases SET expires_at = clock_timestamp() WHERE process_id = :process_id")


class WriterLease(msgspec.Struct, frozen=True):
    """A lease: the process that writes to a ledger, where it takes commands of others, and for how many seconds still.

    `term` grows by one whenever another process takes the lease.
    """

    ledger_id: str
    term: int
    process_id: str
    address: str
    remaining_seconds: float


async def take_leases(
    connection: AsyncConnection, process_id: str, address: str, ledger_ids: Collection[str]
) -> list[WriterLease]:
    """Takes the leases of these ledgers for a process, and renews those that it has. Returns the leases that there are now.

    The lease of another process stays until it expires.
    """
    parameters = {"process_id": process_id, "address": address, "ledger_ids": sorted(ledger_ids)}
    return [WriterLease(*row) for row in await connection.execute(TAKE_LEASES, parameters)]


async def end_leases(connection: AsyncConnection, process_id: str) -> None:
    """Ends all leases of a process, so that another one can take them at once."""
    await connection.execute(END_LEASES, {"process_id": process_id})
