"""Finds the PostgreSQL sessions that hold a lock which blocks Daybook.

Every role can see which PostgreSQL session waits for which other one, and how long. The age of another session's transaction is
visible only to roles that may act as its login; it is used if it is visible.
"""

from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# The first part finds PostgreSQL sessions that a session of Daybook waits for. The second part finds sessions that have locked a
# whole table of Daybook: between two attempts nothing waits for them, but the next attempt will.
READ_LOCK_HOLDERS: Final = text("""
    SELECT holder.pid, coalesce(h.application_name, ''), w.application_name, max(extract(epoch FROM greatest(
               clock_timestamp() - waiting.waitstart, coalesce(clock_timestamp() - h.xact_start, interval '0'))))::float8, false
    FROM pg_locks waiting
    JOIN pg_stat_activity w ON w.pid = waiting.pid
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS holder (pid)
    LEFT JOIN pg_stat_activity h ON h.pid = holder.pid
    WHERE NOT waiting.granted AND w.datname = current_database() AND w.application_name LIKE 'daybook-%'
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT l.pid, coalesce(h.application_name, ''), '', max(extract(epoch FROM clock_timestamp() - h.xact_start))::float8, true
    FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation
    LEFT JOIN pg_stat_activity h ON h.pid = l.pid
    WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
    AND c.relname IN ('events', 'log_heads', 'stream_events', 'streams')
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid <> pg_backend_pid()
    GROUP BY 1, 2
""")


class LockHolder(msgspec.Struct, frozen=True):
    """A PostgreSQL session that holds a lock. `waiting` names a Daybook process that waits for the lock, or is empty.

    `seconds` is the longer of two times: how long that process has waited, and, if visible, the age of the holder's transaction.
    `locks_table` is True if the session has locked a whole table of Daybook.
    """

    pid: int
    application: str
    waiting: str
    seconds: float | None
    locks_table: bool = False

    def __str__(self) -> str:
        name = f" ({self.application})" if self.application else ""
        age = f", for {self.seconds:.0f} s or longer" if self.seconds is not None else ""
        return f"PostgreSQL session {self.pid}{name} holds a lock{age}: `SELECT pg_terminate_backend({self.pid})` ends it"


async def read_lock_holders(connection: AsyncConnection) -> list[LockHolder]:
    """Returns the PostgreSQL sessions that hold such a lock, the one with the longest time first."""
    holders: dict[int, LockHolder] = {}
    for found in (LockHolder(*row) for row in (await connection.execute(READ_LOCK_HOLDERS)).all()):
        known = holders.setdefault(found.pid, found)
        holders[found.pid] = msgspec.structs.replace(known, locks_table=known.locks_table or found.locks_table)
    return sorted(holders.values(), key=lambda holder: -(holder.seconds or 0))
