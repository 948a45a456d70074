"""Stores how far each ledger is published, in the table `publishing`. All SQL on that table is in this module.

A ledger without a row is published up to position 0. Every function uses the caller's connection. None of them begins or commits
a transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.timestamps import timestamp

CAUSE_CHARACTERS_MAX: Final = 300
BEHIND_SECONDS: Final = 2.0
"""How long an event may wait before its ledger counts as behind, in seconds."""

# The lock ends with its connection, so a worker that was killed is replaced without a time limit.
_LEAD: Final = text("SELECT pg_try_advisory_lock(hashtextextended('daybook publisher', 0))")
_DUE: Final = text("""
    SELECT h.ledger_id, coalesce(p.position, 0), coalesce(p.failures, 0)
    FROM log_heads h LEFT JOIN publishing p ON p.ledger_id = h.ledger_id
    WHERE coalesce(p.position, 0) < h.position AND coalesce(p.next_attempt_at <= now(), true)
    ORDER BY p.next_attempt_at NULLS FIRST LIMIT :limit
""")
_MOVE: Final = text("""
    INSERT INTO publishing (ledger_id, position, failures, next_attempt_at) VALUES (:ledger_id, :after, 0, now())
    ON CONFLICT ON CONSTRAINT publishing_pkey DO UPDATE
    SET position = excluded.position, failures = 0, failing_since = NULL, cause = NULL, next_attempt_at = now()
    WHERE publishing.position = :before
    RETURNING true
""")
_POSTPONE: Final = text("""
    INSERT INTO publishing (ledger_id, position, failures, failing_since, cause, next_attempt_at)
    VALUES (:ledger_id, 0, 1, now(), :cause, now() + make_interval(secs => :pause_seconds))
    ON CONFLICT ON CONSTRAINT publishing_pkey DO UPDATE
    SET failures = publishing.failures + 1, failing_since = coalesce(publishing.failing_since, now()),
        cause = excluded.cause, next_attempt_at = excluded.next_attempt_at
""")
_REWIND: Final = text("""
    INSERT INTO publishing (ledger_id, position, failures, next_attempt_at)
    SELECT ledger_id, :position, 0, now() FROM log_heads WHERE ledger_id = :ledger_id AND position >= :position
    ON CONFLICT ON CONSTRAINT publishing_pkey DO UPDATE
    SET position = excluded.position, failures = 0, failing_since = NULL, cause = NULL, next_attempt_at = now()
""")
_READ: Final = text("""
    SELECT h.ledger_id, coalesce(p.position, 0), greatest(h.position - coalesce(p.position, 0), 0),
           CAST(coalesce(greatest(extract(epoch FROM clock_timestamp() - e.recorded_at), 0), 0) AS double precision),
           p.cause, p.failing_since
    FROM log_heads h
    LEFT JOIN publishing p ON p.ledger_id = h.ledger_id
    LEFT JOIN events e ON e.ledger_id = h.ledger_id AND e.position = coalesce(p.position, 0) + 1
    WHERE h.position > 0 ORDER BY h.ledger_id
""")


class DueLedger(msgspec.Struct, frozen=True):
    """A ledger with events to publish now. `failures` counts the attempts that failed since the last success."""

    ledger_id: str
    position: int
    failures: int


class PublishedLedger(msgspec.Struct, frozen=True):
    """How far a ledger is published. `lag_seconds` is the age of the oldest event that the broker has not acknowledged.

    `failure` is why the last attempt failed, and `failing_since` when the first one did after the last success.
    """

    ledger_id: str
    position: int
    lag_events: int
    lag_seconds: float
    failure: str | None
    failing_since: datetime | None

    @property
    def is_failing(self) -> bool:
        return self.failing_since is not None

    @property
    def cause(self) -> str | None:
        """Says to operators why the ledger is behind. None if it is not."""
        if self.failing_since is not None:
            return f"{self.failure} (since {timestamp(self.failing_since)})"
        return "the worker has not reached it yet" if self.lag_seconds > BEHIND_SECONDS else None


def in_words(ledgers: Sequence[PublishedLedger]) -> str:
    """Returns the state of publishing in one line for operators."""
    behind = [ledger for ledger in ledgers if ledger.cause]
    if not behind:
        return "ok"
    first = behind[0]
    events = sum(ledger.lag_events for ledger in behind)
    return f"behind: {events} events of {len(behind)} ledgers; ledger {first.ledger_id}: {first.cause}"


async def lead(connection: AsyncConnection) -> bool:
    """Makes this connection the only one that publishes, as long as it lives. Returns False if another one is."""
    return bool(await connection.scalar(_LEAD))


async def read_due(connection: AsyncConnection, limit: int) -> list[DueLedger]:
    """Returns ledgers that have something to publish now, the one that has waited longest first."""
    return [DueLedger(*row) for row in await connection.execute(_DUE, {"limit": limit})]


async def move(connection: AsyncConnection, ledger_id: str, before: int, after: int) -> bool:
    """Moves the checkpoint. Returns False, and changes nothing, if it is not at `before`: somebody has moved it."""
    return bool(await connection.scalar(_MOVE, {"ledger_id": ledger_id, "before": before, "after": after}))


async def postpone(connection: AsyncConnection, ledger_id: str, cause: str, pause_seconds: float) -> None:
    """Plans the next attempt after one that failed. Does not move the checkpoint."""
    values = {"ledger_id": ledger_id, "cause": cause[:CAUSE_CHARACTERS_MAX], "pause_seconds": pause_seconds}
    await connection.execute(_POSTPONE, values)


async def rewind(connection: AsyncConnection, ledger_id: str, position: int) -> bool:
    """Sets the checkpoint, so that the events after `position` are published, again or for the first time.

    Returns False if there is no such ledger, or if its log ends before this position.
    """
    return (await connection.execute(_REWIND, {"ledger_id": ledger_id, "position": position})).rowcount == 1


async def read_published(connection: AsyncConnection) -> list[PublishedLedger]:
    """Returns how far each ledger that has events is published, in the order of the ids."""
    return [PublishedLedger(*row) for row in await connection.execute(_READ)]
