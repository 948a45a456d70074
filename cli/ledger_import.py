"""Takes the lines of a ledger into a log that is empty, or that has the beginning of the same one."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cli.event_lines import KeyRow, require_next
from shared import event_store
from shared.errors import LedgerFileRefused, UnknownEvent
from shared.event_store import Answer, Head, StoredEvent
from shared.person_keys import PersonKeys

Numbered = Sequence[tuple[int, StoredEvent | Answer]]


class Importer:
    """A batch is one transaction: it is written whole or not at all."""

    def __init__(self, engine: AsyncEngine, person_keys: PersonKeys, keys: Sequence[KeyRow]) -> None:
        self.ledger_id = ""
        self.position = 0
        self._hash = b""
        self._engine = engine
        self._person_keys = person_keys
        self._key_rows = keys
        self._found: Head | None = None

    async def take(self, lines: Numbered) -> None:
        """Raises:
        LedgerFileRefused: names the line that does not follow; nothing of this batch is written.
        """
        new = [line for number, line in lines if isinstance(line, StoredEvent) and await self._is_new(number, line)]
        answers = [line for _, line in lines if isinstance(line, Answer)]
        if new or (answers and self._found):
            async with self._engine.begin() as connection:
                await self._append(connection, new)
                await event_store.append_answers(connection, self.ledger_id, answers)

    def close(self) -> None:
        """Raises:
        LedgerFileRefused: the file ends before what is in the log already.
        """
        if self._found is None:
            raise LedgerFileRefused("the file holds no event")
        if self.position < self._found.position:
            raise LedgerFileRefused(
                f"ledger {self.ledger_id!r} has {self._found.position} events already, the file {self.position}"
            )

    async def _is_new(self, number: int, event: StoredEvent) -> bool:
        found = self._found or await self._begin(event.ledger_id)
        if event.ledger_id != self.ledger_id:
            raise LedgerFileRefused(f"line {number} is of ledger {event.ledger_id!r}, those before are of {self.ledger_id!r}")
        require_next(number, event, self.position, self._hash)
        if event.position == found.position and event.hash != found.hash:
            raise LedgerFileRefused(f"ledger {self.ledger_id!r} holds another history: import into an empty one")
        self.position, self._hash = event.position, event.hash
        return event.position > found.position

    async def _begin(self, ledger_id: str) -> Head:
        self.ledger_id = ledger_id
        async with self._engine.begin() as connection:
            self._found = await event_store.open_ledger(connection, ledger_id)
            rows = [(row.person_id, row.wrapped_key, row.master_key_id) for row in self._key_rows if row.ledger_id == ledger_id]
            if not self._found.position:
                await self._person_keys.restore(connection, ledger_id, rows)
        return self._found

    async def _append(self, connection: AsyncConnection, events: Sequence[StoredEvent]) -> None:
        if not events:
            return
        try:
            if not await event_store.append_stored(connection, self.ledger_id, events):
                raise LedgerFileRefused(f"somebody else writes to ledger {self.ledger_id!r}: stop its processes first")
        except UnknownEvent as unknown:
            raise LedgerFileRefused(f"{unknown.detail}; import it with a newer daybook") from None
