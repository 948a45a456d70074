"""Reads and locks heads: the end of a ledger's log and the end of each stream. Also creates new ledgers.

A ledger's row in `log_heads` is its lock: only the transaction that has locked the row can append to the ledger.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import NotFound
from shared.stores.postgres import Driver

UNFOLDED: Final = 0
"""A fold version that no fold has. A stream with it has no usable snapshot, so its state is computed from its events."""

# If a stream has one event and no snapshot, the event is read with the head. The position of other streams is compared with NULL,
# which PostgreSQL knows without a look into the events.
_STREAM_HEAD: Final = f"""
    s.stream_id, s.version, s.position, s.fold_version, CAST(s.snapshot AS text) AS snapshot,
    e.type, e.schema_version, CAST(e.data AS text) AS data
    FROM streams s
    LEFT JOIN events e ON e.ledger_id = s.ledger_id
        AND e.position = CASE WHEN s.version = 1 AND s.fold_version = {UNFOLDED} THEN s.position END
"""

# The ledger's head is locked first, as in the appending statement. A transaction that holds this lock never waits for another
# lock, so deadlocks are impossible. Counting the rows of `head` makes PostgreSQL lock the head before the streams. Locking the
# streams makes PostgreSQL read their newest committed rows.
LOCK_STREAMS: Final = text(f"""
    WITH head AS MATERIALIZED (
        SELECT position, hash, greatest(clock_timestamp(), recorded_at) FROM log_heads WHERE ledger_id = :ledger_id FOR UPDATE
    ), touched AS MATERIALIZED (
        SELECT {_STREAM_HEAD}
        WHERE s.ledger_id = :ledger_id AND s.stream_id = ANY (CAST(:stream_ids AS text[])) AND (SELECT count(*) FROM head) > 0
        FOR UPDATE OF s
    )
    SELECT * FROM head LEFT JOIN touched ON true
""")  # noqa: S608 # built of constants

READ_STREAM_HEADS: Final = f"""
    SELECT {_STREAM_HEAD}
    WHERE s.ledger_id = $1 AND s.stream_id = ANY ($2)
"""

_HEAD: Final = """
    SELECT position, hash, greatest(clock_timestamp(), recorded_at) FROM log_heads WHERE ledger_id = :ledger_id
"""
READ_HEAD: Final = text(_HEAD)
LOCK_HEAD: Final = text(_HEAD + "FOR UPDATE")

# One number stands for the positions of all ledgers. While it stays the same, no row is sent.
READ_MOVED_HEADS: Final = text("""
    SELECT h.ledger_id, h.position, d.digest
    FROM log_heads h, (SELECT bit_xor(hashtextextended(ledger_id, position)) AS digest FROM log_heads) d
    WHERE d.digest IS DISTINCT FROM CAST(:known AS bigint)
""")

OPEN_LEDGER: Final = text("""
    INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES (:ledger_id, 0, '', to_timestamp(0))
    ON CONFLICT ON CONSTRAINT log_heads_pkey DO NOTHING
""")

READ_HEADS: Final = text("SELECT ledger_id, position, recorded_at FROM log_heads ORDER BY ledger_id")

READ_ENDS: Final = text("""
    SELECT h.position,
           coalesce((SELECT min(e.position) FROM events e WHERE e.ledger_id = :ledger_id), 1),
           coalesce((SELECT max(e.position) FROM events e WHERE e.ledger_id = :ledger_id), 0)
    FROM log_heads h WHERE h.ledger_id = :ledger_id
""")

READ_RECORDED: Final = text("""
    SELECT h.position, h.recorded_at, e.recorded_at
    FROM log_heads h JOIN events e ON e.ledger_id = h.ledger_id AND e.position = h.position
    WHERE h.ledger_id = :ledger_id
""")


class Head(msgspec.Struct, frozen=True):
    """The end of a ledger's log. `now` is the time by PostgreSQL's clock, but never earlier than the last recorded event."""

    position: int
    hash: bytes
    now: datetime

    def is_same(self, other: "Head") -> bool:
        """Returns True if nothing was appended between the two heads."""
        return self.position == other.position and self.hash == other.hash


class StreamHead(msgspec.Struct, frozen=True):
    """The head of a stream. `snapshot` is the stream's state as JSON; `fold_version` is the `StreamFold.version` that made it.

    If the stream has one event and no snapshot, the last three fields are those of the event. They are read and never written.
    """

    stream_id: str
    version: int
    position: int
    fold_version: int
    snapshot: str
    event_type: str | None = None
    event_schema_version: int | None = None
    event_data: str | None = None

    def columns(self) -> tuple[str, int, int, int, str]:
        """Returns what is stored of the head."""
        return self.stream_id, self.version, self.position, self.fold_version, self.snapshot


async def lock_streams(
    connection: AsyncConnection, ledger_id: str, stream_ids: Iterable[str]
) -> tuple[Head, dict[str, StreamHead]]:
    """Locks the end of the log and returns it, with the heads of the given streams. A stream without events has no head.

    No other transaction can append to this ledger until this one ends, so a decision on these heads stays valid.

    Raises:
        NotFound: there is no such ledger.
    """
    rows = (await connection.execute(LOCK_STREAMS, {"ledger_id": ledger_id, "stream_ids": list(stream_ids)})).all()
    if not rows:
        raise _no_ledger(ledger_id)
    return Head(*rows[0][:3]), {row[3]: StreamHead(*row[3:]) for row in rows if row[3] is not None}


def _no_ledger(ledger_id: str) -> NotFound:
    return NotFound(f"There is no ledger {ledger_id!r}.")


async def lock_head(connection: AsyncConnection, ledger_id: str) -> Head:
    """Locks the end of the log and returns it. No other transaction can append to this ledger until this one ends.

    Raises:
        NotFound: there is no such ledger.
    """
    row = (await connection.execute(LOCK_HEAD, {"ledger_id": ledger_id})).one_or_none()
    if row is None:
        raise _no_ledger(ledger_id)
    return Head(*row)


async def read_stream_heads(driver: Driver, ledger_id: str, stream_ids: Iterable[str]) -> dict[str, StreamHead]:
    """Returns the committed heads of streams without locking them. `append_prepared` checks later that they have not moved."""
    rows = await driver.fetch(READ_STREAM_HEADS, ledger_id, list(stream_ids))
    return {row[0]: StreamHead(*row) for row in rows}


async def open_ledger(connection: AsyncConnection, ledger_id: str) -> Head:
    """Locks the end of a ledger's log and returns it. Creates the ledger with an empty log if it does not exist."""
    await connection.execute(OPEN_LEDGER, {"ledger_id": ledger_id})
    return await lock_head(connection, ledger_id)


async def read_heads(connection: AsyncConnection) -> dict[str, tuple[int, datetime]]:
    """Returns the last position of every ledger and the time when that event was recorded, by ledger id."""
    rows = await connection.execute(READ_HEADS)
    return {row[0]: (row[1], row[2]) for row in rows}


async def read_moved_heads(connection: AsyncConnection, known: int | None) -> tuple[int, dict[str, int]] | None:
    """Returns the last position of every ledger by ledger id, and a digest of all of them. None if the digest is `known`."""
    rows = (await connection.execute(READ_MOVED_HEADS, {"known": known})).all()
    return (rows[0][2], {row[0]: row[1] for row in rows}) if rows else None


async def read_head(connection: AsyncConnection, ledger_id: str) -> Head:
    """Returns the end of the log without locking it.

    Raises:
        NotFound: there is no such ledger.
    """
    row = (await connection.execute(READ_HEAD, {"ledger_id": ledger_id})).one_or_none()
    if row is None:
        raise _no_ledger(ledger_id)
    return Head(*row)


async def read_ends(connection: AsyncConnection, ledger_id: str) -> tuple[int, int, int]:
    """Returns three positions from one statement: the head's, and those of the first and the last event that exist.

    If there is no event, the second and third are 1 and 0.
    """
    row = (await connection.execute(READ_ENDS, {"ledger_id": ledger_id})).one()
    return row[0], row[1], row[2]


async def read_recorded(connection: AsyncConnection, ledger_id: str) -> tuple[int, datetime, datetime] | None:
    """Returns the head's position and time, and the time of the event there. Returns None if there is no event."""
    row = (await connection.execute(READ_RECORDED, {"ledger_id": ledger_id})).one_or_none()
    return (row[0], row[1], row[2]) if row else None
