"""Imports an exported ledger into PostgreSQL. One transaction writes the whole ledger, so an error leaves nothing behind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import EventImpossible, LedgerFileInvalid
from shared.ledger_file.files import read_file
from shared.ledger_file.format import LedgerLine, LedgerRow, read_ledger, read_person_keys
from shared.log.append import StreamEvent, append_stored
from shared.log.encoding import NO_KEYS, people_in_data
from shared.log.event_check import Domain, require_first_event
from shared.log.heads import UNFOLDED, StreamHead, lock_streams, open_ledger
from shared.log.history_check import check_history
from shared.log.read import READ_EVENTS_MAX, StoredEvent, read_stored
from shared.log.snapshots import make_head, read_state
from shared.log.stored_replies import StoredReply, append_stored_replies
from shared.log.user_events import UserErased
from shared.privacy.person_keys import ADDRESSES, PersonKeys, WrappedKey
from shared.progress import Progress, ShowProgress
from shared.settings import Settings
from shared.stores.postgres import driver_of, open_postgres
from shared.stores.store_errors import ASYNCPG_ERRORS, POSTGRES_AND_REDIS_ERRORS

KEYS_BEYOND_MAX: Final = 1_000
"""How many more keys than events a file of keys may have: people can be added while the ledger is exported."""
DATA_FAULTS: Final = ("22", "23")
"""The SQLSTATE classes of errors that the data cause."""

# A program that writes the file to stdin may pause for any time.
_WITHOUT_IDLE_TIMEOUT: Final = text("SET LOCAL idle_in_transaction_session_timeout = 0")


class ImportedLedger(NamedTuple):
    """The result of an import. `is_new` is False if the ledger already had all these events; then nothing was written."""

    ledger_id: str
    events: int
    is_new: bool


async def import_ledger(
    settings: Settings,
    domain: Domain,
    file: Path,
    keys_file: Path | None,
    show_progress: ShowProgress,
) -> ImportedLedger:
    """Imports a file that `export_ledger` wrote.

    Raises:
        LedgerFileInvalid: a file differs from what was exported; no command could have recorded an event, or have got a stored
            reply; the ledger has other events; a person key is missing; or PostgreSQL cannot store the content of the file.
        UnknownEvent: this code cannot read an event of the file.
        FileUnusable: a file cannot be read.
    """
    person_keys = PersonKeys(settings)
    async with open_postgres(settings, "daybook_command") as engine:
        with read_file(file) as lines:
            ledger, rows = read_ledger(lines)
            keys = _read_keys(keys_file, ledger)
            copy = _LedgerCopy(ledger, domain, person_keys, keys)
            with show_progress("import", ledger.events, "lines") as progress, _data_faults_named():
                is_new = await copy.run(engine, rows, progress)
    return ImportedLedger(ledger.ledger_id, ledger.events, is_new)


def _read_keys(keys_file: Path | None, ledger: LedgerLine) -> dict[str, WrappedKey]:
    if keys_file is None:
        return {}
    with read_file(keys_file) as lines:
        return read_person_keys(lines, ledger.ledger_id, 2 * ledger.events + KEYS_BEYOND_MAX)


@contextmanager
def _data_faults_named() -> Iterator[None]:
    """Replaces errors about the content of the file by `LedgerFileInvalid`. Does not change other errors."""
    try:
        yield
    except EventImpossible as impossible:
        raise LedgerFileInvalid(f"{impossible.detail}; nothing is imported") from None
    except (*POSTGRES_AND_REDIS_ERRORS, *ASYNCPG_ERRORS) as error:
        cause = getattr(error, "orig", error)
        if str(getattr(cause, "sqlstate", ""))[:2] in DATA_FAULTS or isinstance(cause, ValueError):
            reason = str(cause).partition("\n")[0]
            raise LedgerFileInvalid(f"PostgreSQL cannot hold what stands in the file ({reason}); nothing is imported") from None
        raise


class _UnfinishedStream(msgspec.Struct):
    """The head and the state of a stream after the events that are imported so far."""

    version: int
    position: int
    state: Any


class _LedgerCopy:
    """Writes the rows of a ledger, and the stream events, stream heads and snapshots that are computed from them."""

    def __init__(
        self,
        ledger: LedgerLine,
        domain: Domain,
        person_keys: PersonKeys,
        keys: dict[str, WrappedKey],
    ) -> None:
        self._ledger = ledger
        self._ledger_id = ledger.ledger_id
        self._domain = domain
        self._fold_of = domain.fold_of
        self._person_keys = person_keys
        self._keys = keys
        self._people: set[str] = set()
        """The ids of the people whose personal data the events contain. Erased people are left out."""

    async def run(self, engine: AsyncEngine, rows: Iterator[LedgerRow], progress: Progress) -> bool:
        """Imports everything in one transaction. Returns False and writes nothing if the ledger already has all events.

        In both cases all rows are read, because only that proves that the file is complete.
        """
        total = self._ledger.events
        async with engine.begin() as connection:
            await connection.execute(_WITHOUT_IDLE_TIMEOUT)
            is_new = await self._lock(connection)
            while page := list(islice(rows, READ_EVENTS_MAX)):
                if is_new:
                    await self._append(connection, page)
                total += sum(isinstance(row, StoredReply) for row in page)
                progress.extend(total)
                progress.advance(len(page))
            if is_new:
                await self._put_keys(connection)
                await self._check(connection)
        return is_new

    async def _lock(self, connection: AsyncConnection) -> bool:
        """Locks the ledger against other writers. Returns True if it is empty, False if it already has the file's events."""
        head = await open_ledger(connection, self._ledger_id)
        if not head.position:
            return True
        last = await read_stored(connection, self._ledger_id, self._ledger.events - 1, 1)
        if [event.hash.hex() for event in last] != [self._ledger.hash]:
            raise LedgerFileInvalid(
                f"ledger {self._ledger_id!r} holds other events: import the file into a database that has no such ledger, "
                "or where the ledger is empty"
            )
        return False

    async def _put_keys(self, connection: AsyncConnection) -> None:
        """Stores the keys of the people whose personal data the events contain. Keys of erased people are not stored."""
        if missing := self._people - self._keys.keys():
            raise LedgerFileInvalid(
                f"{len(missing)} people of ledger {self._ledger_id!r} have no key: pass the file that was exported with "
                "--keys; without it their names and addresses would be lost; nothing is imported"
            )
        if self._people and ADDRESSES not in self._keys:
            raise LedgerFileInvalid(
                f"the key for hashes of e-mail addresses of ledger {self._ledger_id!r} is missing in the file of keys; "
                "without it an address could be taken twice; nothing is imported"
            )
        needed = self._people | {ADDRESSES}
        keys = [key for person_id, key in self._keys.items() if person_id in needed]
        await self._person_keys.replace(connection, self._ledger_id, keys)

    async def _check(self, connection: AsyncConnection) -> None:
        """Checks everything that was written, as `daybook verify` does: valid hashes do not show who computed them."""
        parts = connection, self._ledger_id, self._ledger.events, self._domain, self._person_keys
        replies = await check_history(*parts, lambda _: None, lambda _: None)
        if replies.fault:
            raise EventImpossible(replies.fault)

    async def _append(self, connection: AsyncConnection, page: Sequence[LedgerRow]) -> None:
        events = [row for row in page if isinstance(row, StoredEvent)]
        replies = [row for row in page if isinstance(row, StoredReply)]
        driver = await driver_of(connection)
        if events:
            self._note_people(events)
            stream_events, heads = await self._evolve(connection, events)
            await append_stored(driver, self._ledger_id, events, stream_events, heads)
        if replies:
            await append_stored_replies(driver, self._ledger_id, replies)

    def _note_people(self, events: Sequence[StoredEvent]) -> None:
        for stored in events:
            self._people |= people_in_data(stored.type, stored.data)
            if stored.type == UserErased.__name__:
                self._people.discard(msgspec.json.decode(stored.data)["user_id"])

    async def _evolve(
        self, connection: AsyncConnection, events: Sequence[StoredEvent]
    ) -> tuple[list[StreamEvent], list[StreamHead]]:
        decoded = [(stored.position, stored.decoded(NO_KEYS.keys).event) for stored in events]
        stream_ids = {stream_id for _, event in decoded for stream_id in event.streams()}
        _, heads = await lock_streams(connection, self._ledger_id, stream_ids)
        streams = {stream_id: self._loaded(stream_id, heads.get(stream_id)) for stream_id in stream_ids}
        stream_events = []
        for position, event in decoded:
            for stream_id in event.streams():
                stream, fold = streams[stream_id], self._fold_of(stream_id)
                stream.version, stream.position = stream.version + 1, position
                require_first_event(event, stream_id, stream.version)
                if not fold.is_personal:
                    stream.state = fold.evolve(stream.state, event)
                stream_events.append(StreamEvent(stream_id, stream.version, position))
        return stream_events, [self._head(stream_id, stream) for stream_id, stream in streams.items()]

    def _loaded(self, stream_id: str, head: StreamHead | None) -> _UnfinishedStream:
        fold = self._fold_of(stream_id)
        if head is None:
            return _UnfinishedStream(0, 0, fold.initial)
        state = None if fold.is_personal else read_state(fold, self._ledger_id, head, {})
        return _UnfinishedStream(head.version, head.position, state)

    def _head(self, stream_id: str, stream: _UnfinishedStream) -> StreamHead:
        """Returns the head to write. A snapshot with personal data is left out, because it would have to be encrypted.

        The state of such a stream is computed when it is needed, which costs little because the stream has few events.
        """
        fold = self._fold_of(stream_id)
        if fold.is_personal:
            return StreamHead(stream_id, stream.version, stream.position, UNFOLDED, "null")
        return make_head(fold, self._ledger_id, stream_id, stream.version, stream.position, stream.state, {})
