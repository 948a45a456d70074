"""Who holds a lock in PostgreSQL that Daybook waits for.

Told from what every role may see: who waits for whom, and for how long. What a session runs, and since when its transaction is
open, PostgreSQL shows only to those who may act as its login.
"""

from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# First those whom a session of ours waits for; then those who have locked a whole table of ours, whom we will wait for: between
# two attempts nobody waits.
HOLDERS: Final = text("""
    SELECT holder.pid, coalesce(h.application_name, ''), w.application_name, max(extract(epoch FROM greatest(
               clock_timestamp() - waiting.waitstart, coalesce(clock_timestamp() - h.xact_start, interval '0'))))::float8
    FROM pg_locks waiting
    JOIN pg_stat_activity w ON w.pid = waiting.pid
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS holder (pid)
    LEFT JOIN pg_stat_activity h ON h.pid = holder.pid
    WHERE NOT waiting.granted AND w.datname = current_database() AND w.application_name LIKE 'daybook-%'
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT l.pid, coalesce(h.application_name, ''), '', max(extract(epoch FROM clock_timestamp() - h.xact_start))::float8
    FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation
    LEFT JOIN pg_stat_activity h ON h.pid = l.pid
    WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND c.relname IN ('events', 'log_heads', 'stream_events', 'streams')
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid <> pg_backend_pid()
    GROUP BY 1, 2
""")


class Holder(msgspec.Struct, frozen=True):
    """A session that others wait for. `waiting` is the process that does: daybook-projector, or empty where none does just now.

    `seconds` is how long it has been waited for, or if it may be seen, how old the session's transaction is.
    """

    pid: int
    application: str
    waiting: str
    seconds: float | None

    def __str__(self) -> str:
        name = f" ({self.application})" if self.application else ""
        age = f", for {self.seconds:.0f} s or longer" if self.seconds is not None else ""
        return f"PostgreSQL session {self.pid}{name} holds a lock{age}: `SELECT pg_terminate_backend({self.pid})` ends it"


async def read_holders(connection: AsyncConnection) -> list[Holder]:
    """The ones that have been waited for longest first."""
    holders = {row[0]: Holder(*row) for row in reversed((await connection.execute(HOLDERS)).all())}
    return sorted(holders.values(), key=lambda holder: -(holder.seconds or 0))
