"""Reads and writes the operations on read models that operators ask for over HTTP. All SQL on their table is in this file.

The command API adds an operation in the transaction of its audit record. One worker does it: the one whose connection has the
lock. If that worker dies, the next one begins what has no end again. The query API shows the operations.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.timestamps import timestamp

OperationKind = Literal["rebuild", "rollback", "retry", "skip", "pause", "resume"]
OperationStatus = Literal["waiting", "running", "done", "failed"]

KINDS: Final[tuple[OperationKind, ...]] = get_args(OperationKind)
PAUSING: Final[frozenset[OperationKind]] = frozenset({"pause", "resume"})
"""They take a moment, and a pause must be possible while a generation is being built. All other kinds build one."""
ENDED: Final[frozenset[OperationStatus]] = frozenset({"done", "failed"})
OPERATIONS_KEPT_DAYS: Final = 30
OUTCOME_CHARACTERS_MAX: Final = 500

_SHOWN: Final = (
    "ledger_id, operation_id, read_model, kind, event_position, reason, principal, status, events_done, events_total, code, "
    "outcome, requested_at, changed_at"
)
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('daybook operations of ' || :ledger_id, 0))")
_INSERT: Final = text("""
    INSERT INTO read_model_operations (ledger_id, operation_id, read_model, kind, event_position, reason, principal, status,
                                       events_done, events_total, requested_at, changed_at)
    SELECT :ledger_id, :operation_id, :read_model, :kind, CAST(:event_position AS bigint), :reason, :principal,
           'waiting', 0, 0, now(), now()
    WHERE NOT EXISTS (
        SELECT FROM read_model_operations
        WHERE ledger_id = :ledger_id AND read_model = :read_model AND kind = ANY (CAST(:excluded AS text[]))
        AND status IN ('waiting', 'running')
    )
""")
_FIND: Final = text(f"""
    SELECT {_SHOWN} FROM read_model_operations WHERE ledger_id = :ledger_id AND operation_id = :operation_id
""")  # noqa: S608 # built of constants
_READ: Final = text(f"""
    SELECT {_SHOWN} FROM read_model_operations
    WHERE ledger_id = :ledger_id AND operation_id < :before ORDER BY operation_id DESC LIMIT :limit
""")  # noqa: S608 # built of constants

# ── for the worker ───────────────────────────────────────────────────────────────────────────────────────────────────

# The lock belongs to one connection, and ends with it.
_LEAD: Final = text("SELECT pg_try_advisory_lock(hashtextextended('daybook worker of operations', 0))")
_READ_OPEN: Final = text(f"""
    SELECT {_SHOWN} FROM read_model_operations WHERE status IN ('waiting', 'running') ORDER BY operation_id
""")  # noqa: S608 # built of constants
_NOTE: Final = text("""
    UPDATE read_model_operations SET status = 'running', events_done = :done, events_total = :total, changed_at = now()
    WHERE ledger_id = :ledger_id AND operation_id = :operation_id AND status IN ('waiting', 'running')
""")
_END: Final = text("""
    UPDATE read_model_operations SET status = :status, events_done = :done, events_total = :total, code = :code,
           outcome = :outcome, changed_at = now()
    WHERE ledger_id = :ledger_id AND operation_id = :operation_id
""")
_FORGET_OLD: Final = text("""
    DELETE FROM read_model_operations
    WHERE status IN ('done', 'failed') AND changed_at < now() - make_interval(days => :days)
""")


class ReadModelOperation(msgspec.Struct, frozen=True):
    """An operation that an operator asked for.

    `event_position` is the event of a skip. `code` says why the operation failed, and `outcome` is a sentence about its end.
    """

    ledger_id: str
    id: str
    read_model: str
    kind: OperationKind
    event_position: int | None
    reason: str
    principal: str
    status: OperationStatus
    events_done: int
    events_total: int
    code: str | None
    outcome: str | None
    requested_at: datetime
    changed_at: datetime

    def members(self) -> dict[str, Any]:
        """Returns the members of a JSON document about the operation."""
        return {
            "id": self.id,
            "projection": self.read_model,
            "kind": self.kind,
            "event_position": self.event_position,
            "reason": self.reason,
            "requested_by": self.principal,
            "status": self.status,
            "events_done": self.events_done,
            "events_total": self.events_total,
            "code": self.code,
            "outcome": self.outcome,
            "requested_at": timestamp(self.requested_at),
            "changed_at": timestamp(self.changed_at),
        }


async def request(
    connection: AsyncConnection,
    ledger_id: str,
    operation_id: str,
    read_model: str,
    kind: OperationKind,
    event_position: int | None,
    reason: str,
    principal: str,
) -> bool:
    """Adds an operation. Returns False if another one that excludes it is under way."""
    await connection.execute(_LOCK, {"ledger_id": ledger_id})
    row = {
        "ledger_id": ledger_id,
        "operation_id": operation_id,
        "read_model": read_model,
        "kind": kind,
        "event_position": event_position,
        "reason": reason,
        "principal": principal,
        "excluded": [each for each in KINDS if (each in PAUSING) == (kind in PAUSING)],
    }
    return (await connection.execute(_INSERT, row)).rowcount == 1


async def find(connection: AsyncConnection, ledger_id: str, operation_id: str) -> ReadModelOperation | None:
    row = (await connection.execute(_FIND, {"ledger_id": ledger_id, "operation_id": operation_id})).one_or_none()
    return ReadModelOperation(*row) if row else None


async def read(connection: AsyncConnection, ledger_id: str, before: str, limit: int) -> list[ReadModelOperation]:
    """Returns the operations of a ledger whose id is smaller than `before`, newest first."""
    rows = await connection.execute(_READ, {"ledger_id": ledger_id, "before": before, "limit": limit})
    return [ReadModelOperation(*row) for row in rows]


async def lead(connection: AsyncConnection) -> bool:
    """Makes this connection the only one that does operations, as long as it lives. Returns False if another one is."""
    return bool(await connection.scalar(_LEAD))


async def read_open(connection: AsyncConnection) -> list[ReadModelOperation]:
    """Returns the operations of all ledgers that are not at their end, oldest first."""
    return [ReadModelOperation(*row) for row in await connection.execute(_READ_OPEN)]


async def note(connection: AsyncConnection, operation: ReadModelOperation, done: int, total: int) -> None:
    """Stores that the operation is running, and how far it is."""
    await connection.execute(_NOTE, _place(operation) | {"done": done, "total": total})


async def end(
    connection: AsyncConnection, operation: ReadModelOperation, code: str | None, outcome: str, done: int, total: int
) -> None:
    """Stores the end of the operation. It has failed if there is a `code`."""
    status = "failed" if code else "done"
    values = {"status": status, "code": code, "outcome": outcome[:OUTCOME_CHARACTERS_MAX], "done": done, "total": total}
    await connection.execute(_END, _place(operation) | values)


async def forget_old(connection: AsyncConnection) -> None:
    """Deletes operations that ended over `OPERATIONS_KEPT_DAYS` ago. Their audit records stay."""
    await connection.execute(_FORGET_OLD, {"days": OPERATIONS_KEPT_DAYS})


def _place(operation: ReadModelOperation) -> dict[str, Any]:
    return {"ledger_id": operation.ledger_id, "operation_id": operation.id}
