"""Checks what PostgreSQL has beside the rows of the ledger: its schema, and rows of ledgers that do not exist.

What guards the log must be as the migrations made it. A row that was moved to a ledger that does not exist is missing in its own.
"""

from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.difference import DifferenceFound
from shared.identity.audit_records import NO_LEDGER
from shared.stores.schema_definition import expected_definition, read_definition

TABLES: Final = (
    *("events", "stream_events", "streams", "idempotency_keys", "person_keys"),
    *("audit_records", "seals", "seal_nodes"),
)
"""The tables with rows of ledgers that the worker may read."""


def _strays(table: str) -> TextClause:
    """Returns the statement that finds a ledger id of a table that is no ledger's. It looks once into the index for each ledger.

    Seals of the audit records of a ledger have the id `<ledger>:audit`.
    """
    return text(f"""
        WITH RECURSIVE found AS (
            SELECT (SELECT min(ledger_id) FROM {table}) AS ledger_id
            UNION ALL
            SELECT (SELECT min(ledger_id) FROM {table} WHERE ledger_id > found.ledger_id) FROM found WHERE ledger_id IS NOT NULL
        )
        SELECT ledger_id FROM found WHERE split_part(ledger_id, ':', 1) <> :no_ledger
            AND NOT EXISTS (SELECT FROM log_heads h WHERE h.ledger_id = split_part(found.ledger_id, ':', 1))
        LIMIT 1
    """)  # noqa: S608 # the names are those of `TABLES`


async def verify_schema(connection: AsyncConnection) -> int:
    """Compares all tables, columns, constraints, indexes, triggers, functions and grants, and returns their number.

    Then looks for rows of ledgers that do not exist.

    Raises:
        DifferenceFound: one of them is missing, was changed or was added, or a row is of no ledger. The error names the first.
    """
    expected, found = set(expected_definition()), set(await read_definition(connection))
    for part in sorted(expected ^ found):
        kind, _, rest = part.partition(" ")
        where = f"schema of PostgreSQL, {kind} {rest}"
        raise DifferenceFound(where, *(("one", None) if part in expected else (None, "one")))
    for table in TABLES:
        if (stray := await connection.scalar(_strays(table), {"no_ledger": NO_LEDGER})) is not None:
            raise DifferenceFound(f"{table}, row of ledger {stray!a}", None, "one")
    return len(found)
