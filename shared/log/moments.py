"""Finds the positions of moments in a ledger's log, and the moments of positions.

A later position never has an earlier `recorded_at`, so the last event up to a moment is found by halving: with one look-up by
position for each doubling of the log, and without an index on time.

Both functions use the caller's connection. Neither begins or commits a transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

READ_POSITIONS_AT: Final = text("""
    WITH RECURSIVE search (place, moment, low, high) AS (
        SELECT asked.place, asked.moment, CAST(0 AS bigint), log_heads.position
        FROM unnest(CAST(:moments AS timestamptz[])) WITH ORDINALITY AS asked (moment, place), log_heads
        WHERE log_heads.ledger_id = :ledger_id
        UNION ALL
        SELECT place, moment,
               CASE WHEN middle.recorded_at <= moment THEN middle.position ELSE low END,
               CASE WHEN middle.recorded_at <= moment THEN high ELSE middle.position - 1 END
        FROM search CROSS JOIN LATERAL (
            SELECT position, recorded_at FROM events WHERE ledger_id = :ledger_id AND position = (low + high + 1) / 2
        ) middle
        WHERE low < high
    )
    SELECT low FROM search WHERE low = high ORDER BY place
""")

READ_MOMENTS: Final = text("""
    SELECT position, recorded_at FROM events WHERE ledger_id = :ledger_id AND position = ANY (CAST(:positions AS bigint[]))
""")


async def read_positions_at(connection: AsyncConnection, ledger_id: str, moments: Sequence[datetime]) -> list[int]:
    """Returns for each moment the position of the last event that was recorded up to it, inclusive, or 0 if there is none.

    Returns nothing if there is no such ledger.
    """
    rows = await connection.execute(READ_POSITIONS_AT, {"ledger_id": ledger_id, "moments": moments})
    return [row[0] for row in rows]


async def read_moments(connection: AsyncConnection, ledger_id: str, positions: Sequence[int]) -> dict[int, datetime]:
    """Returns when the events at these positions were recorded. Leaves out positions that the log has not reached."""
    rows = await connection.execute(READ_MOMENTS, {"ledger_id": ledger_id, "positions": positions})
    return {row[0]: row[1] for row in rows}
