"""Takes a ledger that was exported into PostgreSQL: whole, or not at all."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cli.ledger_lines import LedgerLine
from cli.progress import Progress
from command_api.fold import snapshot_place
from command_api.folds import fold_of
from shared import event_store
from shared.connections import driver_of
from shared.errors import LedgerFileRefused
from shared.event_store import PAGE_EVENTS, Answer, StoredEvent, StreamEvent, StreamHead
from shared.events import EVENT_TYPES, NO_KEYS, UserErased
from shared.person_keys import ADDRESSES, PERSONAL_TYPES, PersonKeys, WrappedKey
from shared.personal_data import people_in

UNFOLDED: Final = 0
"""The version of no fold: a stream whose head has it is folded from its events when it is needed."""

# Who writes into our stdin may take a break.
_WITHOUT_HURRY: Final = text("SET LOCAL idle_in_transaction_session_timeout = 0")


async def import_ledger(
    engine: AsyncEngine,
    person_keys: PersonKeys,
    ledger: LedgerLine,
    contents: Iterator[StoredEvent | Answer],
    keys: dict[str, WrappedKey],
    progress: Progress,
) -> bool:
    """In one transaction. False, and nothing is written, where the ledger has all these events already.

    Raises:
        LedgerFileRefused: it has other events; a person's key is missing; PostgreSQL cannot hold what is in the file.
        UnknownEvent: this code cannot read an event.
    """
    async with engine.begin() as connection:
        await connection.execute(_WITHOUT_HURRY)
        is_new = await _is_new(connection, ledger)
        copy = _Copy(connection, ledger.ledger_id)
        answers = 0
        while page := list(islice(contents, PAGE_EVENTS)):
            if is_new:
                await copy.take(page)
            answers += sum(isinstance(line, Answer) for line in page)
            progress.extend(ledger.events + answers)
            progress.advance(len(page))
        if is_new:
            if missing := copy.people - keys.keys():
                raise LedgerFileRefused(
                    f"{len(missing)} people of ledger {ledger.ledger_id!r} have no key: give the file that was exported with "
                    "--keys; without it their names and addresses would be lost; nothing is imported"
                )
            taken = [key for person_id, key in keys.items() if person_id in copy.people or person_id == ADDRESSES]
            await person_keys.replace(connection, ledger.ledger_id, taken)
    return is_new


async def _is_new(connection: AsyncConnection, ledger: LedgerLine) -> bool:
    """From here on nobody else writes to it."""
    head = await event_store.open_ledger(connection, ledger.ledger_id)
    if not head.position:
        return True
    last = await event_store.read_stored(connection, ledger.ledger_id, ledger.events - 1, 1)
    if [event.hash.hex() for event in last] != [ledger.hash]:
        raise LedgerFileRefused(
            f"ledger {ledger.ledger_id!r} holds other events: import into a database where it is empty or not there"
        )
    return False


class _Stream(msgspec.Struct):
    version: int
    position: int
    state: Any


class _Copy:
    """Writes pages of a ledger, with what follows from them: places in streams, heads and snapshots."""

    def __init__(self, connection: AsyncConnection, ledger_id: str) -> None:
        self.people: set[str] = set()
        """Those whom the events tell something about, and who were not erased."""
        self._connection = connection
        self._ledger_id = ledger_id

    async def take(self, page: Sequence[StoredEvent | Answer]) -> None:
        events = [line for line in page if isinstance(line, StoredEvent)]
        answers = [line for line in page if isinstance(line, Answer)]
        driver = await driver_of(self._connection)
        if events:
            stream_events, heads = await self._evolve(events)
            await event_store.append_stored(driver, self._ledger_id, events, stream_events, heads)
        if answers:
            await event_store.append_answers(driver, self._ledger_id, answers)

    async def _evolve(self, events: Sequence[StoredEvent]) -> tuple[list[StreamEvent], list[StreamHead]]:
        decoded = [(stored.position, stored.decoded(NO_KEYS.keys).event) for stored in events]
        self._meet(events)
        stream_ids = {stream_id for _, event in decoded for stream_id in event.streams()}
        _, heads = await event_store.lock(self._connection, self._ledger_id, stream_ids)
        streams = {stream_id: self._loaded(stream_id, heads.get(stream_id)) for stream_id in stream_ids}
        stream_events = []
        for position, event in decoded:
            for stream_id in event.streams():
                stream, fold = streams[stream_id], fold_of(stream_id)
                stream.version, stream.position = stream.version + 1, position
                if not fold.is_personal:
                    stream.state = fold.evolve(stream.state, event)
                stream_events.append(StreamEvent(stream_id, stream.version, position))
        return stream_events, [self._head(stream_id, stream) for stream_id, stream in streams.items()]

    def _meet(self, events: Sequence[StoredEvent]) -> None:
        for stored in events:
            if stored.type in PERSONAL_TYPES:
                self.people |= people_in(EVENT_TYPES[stored.type], msgspec.json.decode(stored.data))
            elif stored.type == UserErased.__name__:
                self.people.discard(msgspec.json.decode(stored.data)["user_id"])

    def _loaded(self, stream_id: str, head: StreamHead | None) -> _Stream:
        fold = fold_of(stream_id)
        if head is None:
            return _Stream(0, 0, fold.initial)
        state = (
            None if fold.is_personal else fold.read(head.snapshot, snapshot_place(self._ledger_id, stream_id, head.version), {})
        )
        return _Stream(head.version, head.position, state)

    def _head(self, stream_id: str, stream: _Stream) -> StreamHead:
        """Without a snapshot where it would hold personal data: those are few events, and sealed."""
        fold = fold_of(stream_id)
        if fold.is_personal:
            return StreamHead(stream_id, stream.version, stream.position, UNFOLDED, "null")
        snapshot = fold.write(stream.state, snapshot_place(self._ledger_id, stream_id, stream.version), {})
        return StreamHead(stream_id, stream.version, stream.position, fold.version, snapshot)
