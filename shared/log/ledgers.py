"""Lists the ledgers with their settings, from the log itself, so that a new ledger is listed at once.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import NotFound
from shared.log.encoding import NO_KEYS, decode
from shared.log.ledger_events import LedgerClosed, LedgerCreated, LedgerEvent
from shared.log.ledger_state import LedgerState, evolve_ledger
from shared.log.streams import LEDGER_STREAM

LEDGERS_MAX: Final = 10_000
"""The most ledgers that `read_ledgers` returns if you give no limit."""

READ_LEDGERS: Final = text("""
    SELECT h.ledger_id, h.position, e.type, e.schema_version, CAST(e.data AS text), e.recorded_at
    FROM (
        SELECT ledger_id, position FROM log_heads
        WHERE ledger_id > :after AND (CAST(:ledger_id AS text) IS NULL OR ledger_id = :ledger_id)
        ORDER BY ledger_id LIMIT :limit
    ) h
    LEFT JOIN stream_events s ON s.ledger_id = h.ledger_id AND s.stream_id = :stream_id
    LEFT JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    ORDER BY h.ledger_id, s.version
""")


class Ledger(msgspec.Struct, frozen=True):
    """A ledger: its id, the last position of its log, its state, and when it was created and closed, if events say so."""

    ledger_id: str
    position: int
    state: LedgerState = LedgerState()
    created_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.state.name or self.ledger_id

    def after(self, event: LedgerEvent, recorded_at: datetime) -> "Ledger":
        """Returns the ledger after an event of its stream `ledger`."""
        return msgspec.structs.replace(
            self,
            state=evolve_ledger(self.state, event),
            created_at=recorded_at if isinstance(event, LedgerCreated) else self.created_at,
            closed_at=recorded_at if isinstance(event, LedgerClosed) else self.closed_at,
        )


async def read_ledgers(
    connection: AsyncConnection, after: str = "", limit: int = LEDGERS_MAX, *, only: str | None = None
) -> list[Ledger]:
    """Returns the ledgers whose ids are greater than `after`, in the order of their ids. With `only`, returns that one at most.

    Raises:
        UnknownEvent: this code cannot read an event about a ledger.
    """
    asked = {"after": after, "limit": limit, "ledger_id": only, "stream_id": LEDGER_STREAM}
    found: dict[str, Ledger] = {}
    for ledger_id, position, kind, schema_version, data, recorded_at in await connection.execute(READ_LEDGERS, asked):
        ledger = found.get(ledger_id) or Ledger(ledger_id, position)
        event = None if kind is None else decode(kind, schema_version, data, NO_KEYS)
        if isinstance(event, LedgerEvent):
            ledger = ledger.after(event, recorded_at)
        found[ledger_id] = ledger
    return list(found.values())


async def read_ledger(connection: AsyncConnection, ledger_id: str) -> Ledger:
    """Returns a ledger.

    Raises:
        NotFound: there is no such ledger.
    """
    found = await read_ledgers(connection, only=ledger_id)
    if not found:
        raise NotFound(f"There is no ledger {ledger_id!r}.")
    return found[0]
