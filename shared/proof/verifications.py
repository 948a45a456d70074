"""Reads and writes the verifications of ledgers that operators ask for over HTTP. All SQL on their table is in this file.

The command API adds a verification in the transaction of its audit record, and cancels one by its status. One worker does them,
one after another: the one whose connection has the lock. If that worker dies, the next one begins the same verification again.
The query API shows them.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.timestamps import timestamp

VerificationStatus = Literal["waiting", "running", "done", "failed", "cancelled"]
LedgerVerdict = Literal["ok", "dead-letters", "different"]

VERIFICATIONS_KEPT_DAYS: Final = 90

_SHOWN: Final = (
    "ledger_id, verification_id, reason, principal, status, step, events_done, events_total, CAST(checks AS text), outcome, "
    "requested_at, changed_at"
)
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('daybook verifications of ' || :ledger_id, 0))")
_INSERT: Final = text("""
    INSERT INTO verifications (ledger_id, verification_id, reason, principal, status, events_done, events_total, checks,
                               requested_at, changed_at)
    SELECT :ledger_id, :verification_id, :reason, :principal, 'waiting', 0, 0, '[]', now(), now()
    WHERE NOT EXISTS (SELECT FROM verifications WHERE ledger_id = :ledger_id AND status IN ('waiting', 'running'))
""")
_FIND: Final = text(f"""
    SELECT {_SHOWN} FROM verifications WHERE ledger_id = :ledger_id AND verification_id = :verification_id
""")  # noqa: S608 # built of constants
_READ: Final = text(f"""
    SELECT {_SHOWN} FROM verifications
    WHERE ledger_id = :ledger_id AND verification_id < :before ORDER BY verification_id DESC LIMIT :limit
""")  # noqa: S608 # built of constants
_CANCEL: Final = text("""
    UPDATE verifications SET status = 'cancelled', changed_at = now()
    WHERE ledger_id = :ledger_id AND verification_id = :verification_id AND status IN ('waiting', 'running')
""")

# ── for the worker ───────────────────────────────────────────────────────────────────────────────────────────────────

# The lock belongs to one connection, and ends with it.
_LEAD: Final = text("SELECT pg_try_advisory_lock(hashtextextended('daybook worker of verifications', 0))")
_NEXT: Final = text(f"""
    SELECT {_SHOWN} FROM verifications WHERE status IN ('waiting', 'running') ORDER BY verification_id LIMIT 1
""")  # noqa: S608 # built of constants
_NOTE: Final = text("""
    UPDATE verifications SET status = 'running', step = :step, events_done = :done, events_total = :total,
           checks = CAST(:checks AS jsonb), changed_at = now()
    WHERE ledger_id = :ledger_id AND verification_id = :verification_id AND status IN ('waiting', 'running')
""")
_END: Final = text("""
    UPDATE verifications SET status = :status, step = NULL, checks = CAST(:checks AS jsonb), outcome = :outcome,
           changed_at = now()
    WHERE ledger_id = :ledger_id AND verification_id = :verification_id AND status IN ('waiting', 'running')
""")
_FORGET_OLD: Final = text("""
    DELETE FROM verifications
    WHERE status NOT IN ('waiting', 'running') AND changed_at < now() - make_interval(days => :days)
""")


class Check(msgspec.Struct, frozen=True):
    """The outcome of one check. `text` says what was compared, or where the first difference is, without the values there."""

    name: str
    verdict: LedgerVerdict
    text: str


class Verification(msgspec.Struct, frozen=True):
    """A verification that an operator asked for.

    `step` is what is being checked, of whose `events_total` events `events_done` were read. `outcome` says why it failed.
    """

    ledger_id: str
    id: str
    reason: str
    principal: str
    status: VerificationStatus
    step: str | None
    events_done: int
    events_total: int
    checks: list[Check]
    outcome: str | None
    requested_at: datetime
    changed_at: datetime

    def members(self) -> dict[str, Any]:
        """Returns the members of a JSON document about the verification."""
        return {
            "id": self.id,
            "reason": self.reason,
            "requested_by": self.principal,
            "status": self.status,
            "step": self.step,
            "events_done": self.events_done,
            "events_total": self.events_total,
            "verdict": self._verdict(),
            "checks": msgspec.to_builtins(self.checks),
            "outcome": self.outcome,
            "requested_at": timestamp(self.requested_at),
            "changed_at": timestamp(self.changed_at),
        }

    def _verdict(self) -> LedgerVerdict | None:
        """Returns the worst verdict of all checks, or None until every check has one."""
        if self.status != "done":
            return None
        found = {check.verdict for check in self.checks}
        return next((verdict for verdict in ("different", "dead-letters") if verdict in found), "ok")


async def request(connection: AsyncConnection, ledger_id: str, verification_id: str, reason: str, principal: str) -> bool:
    """Adds a verification. Returns False if another one of the ledger has no end yet."""
    await connection.execute(_LOCK, {"ledger_id": ledger_id})
    row = {"ledger_id": ledger_id, "verification_id": verification_id, "reason": reason, "principal": principal}
    return (await connection.execute(_INSERT, row)).rowcount == 1


async def find(connection: AsyncConnection, ledger_id: str, verification_id: str) -> Verification | None:
    place = {"ledger_id": ledger_id, "verification_id": verification_id}
    row = (await connection.execute(_FIND, place)).one_or_none()
    return _read(row) if row else None


async def read(connection: AsyncConnection, ledger_id: str, before: str, limit: int) -> list[Verification]:
    """Returns the verifications of a ledger whose id is smaller than `before`, newest first."""
    rows = await connection.execute(_READ, {"ledger_id": ledger_id, "before": before, "limit": limit})
    return [_read(row) for row in rows]


async def cancel(connection: AsyncConnection, ledger_id: str, verification_id: str) -> bool:
    """Cancels a verification. Returns False if it has ended already, or there is none."""
    place = {"ledger_id": ledger_id, "verification_id": verification_id}
    return (await connection.execute(_CANCEL, place)).rowcount == 1


async def lead(connection: AsyncConnection) -> bool:
    """Makes this connection the only one that does verifications, as long as it lives. Returns False if another one is."""
    return bool(await connection.scalar(_LEAD))


async def next_open(connection: AsyncConnection) -> Verification | None:
    """Returns the oldest verification of all ledgers that has no end yet."""
    row = (await connection.execute(_NEXT)).one_or_none()
    return _read(row) if row else None


async def note(
    connection: AsyncConnection, verification: Verification, step: str | None, done: int, total: int, checks: Sequence[Check]
) -> bool:
    """Stores how far a verification is. Returns False if it was cancelled."""
    values = {"step": step, "done": done, "total": total, "checks": msgspec.json.encode(checks).decode()}
    return (await connection.execute(_NOTE, _place(verification) | values)).rowcount == 1


async def end(connection: AsyncConnection, verification: Verification, failure: str | None, checks: Sequence[Check]) -> None:
    """Stores the end of a verification, unless it was cancelled. `failure` says why it could not be done."""
    values = {"status": "failed" if failure else "done", "outcome": failure, "checks": msgspec.json.encode(checks).decode()}
    await connection.execute(_END, _place(verification) | values)


async def forget_old(connection: AsyncConnection) -> None:
    """Deletes verifications that ended over `VERIFICATIONS_KEPT_DAYS` ago. Their audit records stay."""
    await connection.execute(_FORGET_OLD, {"days": VERIFICATIONS_KEPT_DAYS})


def _read(row: Any) -> Verification:
    columns = [*row]
    columns[8] = msgspec.json.decode(columns[8], type=list[Check])
    return Verification(*columns)


def _place(verification: Verification) -> dict[str, Any]:
    return {"ledger_id": verification.ledger_id, "verification_id": verification.id}
