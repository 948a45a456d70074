"""Checks the schema of PostgreSQL: what guards the log must be as the migrations made it."""

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.difference import DifferenceFound
from shared.stores.schema_definition import expected_definition, read_definition


async def verify_schema(connection: AsyncConnection) -> int:
    """Compares all tables, columns, constraints, indexes, triggers, functions and grants, and returns their number.

    Raises:
        DifferenceFound: one of them is missing, was changed or was added. The error names the first.
    """
    expected, found = set(expected_definition()), set(await read_definition(connection))
    for part in sorted(expected ^ found):
        kind, _, rest = part.partition(" ")
        where = f"schema of PostgreSQL, {kind} {rest}"
        raise DifferenceFound(where, *(("one", None) if part in expected else (None, "one")))
    return len(found)
