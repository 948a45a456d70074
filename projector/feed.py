"""The log as those who follow it see it: each page is read and decoded once, however many they are.

What a feed gives is dense: where an event is missing or cannot be read, it stops there and says so. And it continues what the
reader has: with each request comes the hash of the last event that the reader knows, so that nobody goes on with a log that was
restored from a backup and then went another way.
"""

import asyncio
import time
from collections import Counter, deque
from functools import partial
from itertools import chain
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.dead_letters import read_skips
from shared.connections import DRIVER_ERRORS, KeptConnection
from shared.errors import LogDamaged, UnknownEvent
from shared.event_store import PAGE_EVENTS, StoredEvent, count_types, read_at, read_head, read_next, read_stored, read_streams
from shared.events import NO_KEYS, RecordedEvent, UserErased
from shared.person_keys import PERSONAL_TYPES, PersonKeys
from shared.personal_data import Keys

PAGES_KEPT: Final = 8
AHEAD_MAX: Final = (PAGES_KEPT - 2) * PAGE_EVENTS
"""How far a reader may be ahead of another one, so that what it read is still there for the other."""

AHEAD_SECONDS: Final = 5.0
"""A reader that has not asked for so long is not waited for: its store hangs."""

LOOK_SECONDS: Final = 0.005
READS_AT_ONCE: Final = 3
"""So that many followers that start together do not fight for connections."""


COUNTED_AT_ONCE: Final = 200_000


class LogChangedError(Exception):
    """The log is not, or no longer, the one that the reader knows up to its position."""


class Page(msgspec.Struct, frozen=True):
    """Events without a gap; `hash_before` is that of the event before the first."""

    hash_before: bytes
    events: list[RecordedEvent]

    def holds(self, position: int) -> bool:
        return bool(self.events) and self.events[0].position <= position <= self.events[-1].position

    def after(self, position: int, log_hash: bytes) -> list[RecordedEvent]:
        """Raises:
        LogChangedError: the event at `position` has another hash.
        """
        place = position + 1 - self.events[0].position if self.events else 0
        if log_hash != (self.events[place - 1].hash if place else self.hash_before):
            raise LogChangedError
        return self.events[place:]


class Feed:
    """One ledger's log. `head` is its last position as far as is known: it may already be further."""

    def __init__(
        self, engine: AsyncEngine, ledger_id: str, person_keys: PersonKeys, reading: asyncio.Semaphore | None = None
    ) -> None:
        """`reading` limits the reads at once, where several feeds have one engine."""
        self.ledger_id = ledger_id
        self.head = 0
        self._person_keys = person_keys
        # Reading needs no transaction, and without one it is one round trip.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._pages: deque[Page] = deque(maxlen=PAGES_KEPT)
        self._readers: WeakKeyDictionary[object, tuple[int, float]] = WeakKeyDictionary()
        self._reads: dict[int, asyncio.Task[Page]] = {}
        self._reading = reading or asyncio.Semaphore(READS_AT_ONCE)
        self._moved = asyncio.Event()
        self._kept = KeptConnection(self._engine)
        self._listening = asyncio.Lock()

    async def close(self) -> None:
        """To be called by who has looked. A look that is under way keeps its connection until it ends."""
        async with self._listening:
            await self._kept.release()

    async def page(self, after: int, log_hash: bytes, reader: object) -> list[RecordedEvent]:
        """The next events, at most `PAGE_EVENTS`; none at the end of the log.

        Raises:
            LogChangedError: `log_hash` is not that of the event at `after`.
            UnknownEvent, LogDamaged: the very next event cannot be read, or is missing.
        """
        while self._is_far_ahead(after, reader):  # noqa: ASYNC110 # also time ends this
            await asyncio.sleep(LOOK_SECONDS)
        page = next((page for page in self._pages if page.holds(after + 1)), None)
        try:
            return (page or await self._read_once(after)).after(after, log_hash)
        except LogChangedError:
            self._pages.clear()
            raise

    async def look(self) -> bool:
        """Reads what is new, for all followers, before they ask for it. False where that is not all.

        Raises:
            LogChangedError, UnknownEvent, LogDamaged: those who follow find the same.
        """
        # What is being read already was perhaps asked for before the news came.
        page = await self._read_once(self.head, anew=True)
        return len(page.events) < PAGE_EVENTS

    async def _read_once(self, after: int, *, anew: bool = False) -> Page:
        read = self._reads.get(after)
        if read is None or read.done() or anew:  # done, and only not forgotten yet: the head may have moved since
            read = self._reads[after] = asyncio.create_task(self._read(after, at_once=anew))
            read.add_done_callback(partial(self._forget, after))
        # Others may be waiting for the same page.
        return await asyncio.shield(read)

    def _is_far_ahead(self, after: int, reader: object) -> bool:
        now = time.monotonic()
        self._readers[reader] = after, now
        return any(after - other > AHEAD_MAX and now - asked < AHEAD_SECONDS for other, asked in self._readers.values())

    async def refresh(self) -> int:
        """The head as it is now.

        Raises:
            NotFound: there is no such ledger.
        """
        async with self._reading, self._engine.connect() as connection:
            self.move_to((await read_head(connection, self.ledger_id)).position)
        return self.head

    async def hash_at(self, position: int) -> str:
        """The hash of the event at a position up to the head, hexadecimal.

        Raises:
            LogDamaged: there is no such event.
        """
        async with self._reading, self._engine.connect() as connection:
            stored = await read_stored(connection, self.ledger_id, position - 1, 1)
        if not stored or stored[0].position != position:
            raise self._missing(position)
        return stored[0].hash.hex()

    async def skips(self, name: str) -> frozenset[int]:
        """The positions that operators had left out of a read model."""
        async with self._reading:
            return await read_skips(self._engine, self.ledger_id, name)

    async def at(self, positions: list[int]) -> list[RecordedEvent]:
        """The events at some positions, without the pages between them.

        Raises:
            UnknownEvent: this code cannot read one of them.
        """
        if not positions:
            return []
        async with self._reading, self._engine.connect() as connection:
            stored = await read_at(connection, self.ledger_id, positions)
            keys = await self._person_keys.read_for(connection, stored)
        return [row.decoded(keys) for row in stored]

    async def streams(self, stream_ids: list[str], events_max: int) -> dict[str, list[RecordedEvent]]:
        """Stream → its events, in order; without the longest ones where all together have more than `events_max`.

        Raises what `at` raises.
        """
        if not stream_ids:
            return {}
        async with self._reading, self._engine.connect() as connection:
            stored = await read_streams(connection, self.ledger_id, stream_ids, events_max)
            keys = await self._person_keys.read_for(connection, chain.from_iterable(stored.values()))
        return {stream_id: [row.decoded(keys) for row in rows] for stream_id, rows in stored.items()}

    async def count_types(self, up_to: int) -> Counter[str]:
        """Type → how many events of it there are up to a position; slice by slice, each well within a statement's time."""
        numbers: Counter[str] = Counter()
        for after in range(0, up_to, COUNTED_AT_ONCE):
            async with self._reading, self._engine.connect() as connection:
                numbers.update(await count_types(connection, self.ledger_id, after, min(after + COUNTED_AT_ONCE, up_to)))
        return numbers

    def move_to(self, head: int) -> None:
        """Wakes who waits, if this is news. Backwards too: a log can be restored from a backup."""
        if head != self.head:
            self.head = head
            self.nudge()

    def nudge(self) -> None:
        """Wakes everyone who waits."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self) -> None:
        """Waits for the head to move, or for a nudge."""
        await self._moved.wait()

    def _forget(self, after: int, read: asyncio.Task[Page]) -> None:
        """A failure counts as seen even when all who waited for it have given up."""
        if self._reads.get(after) is read:
            del self._reads[after]
        if not read.cancelled():
            read.exception()

    async def _read(self, after: int, *, at_once: bool = False) -> Page:
        head = self.head
        stored = await self._read_kept(after) if at_once and not self._listening.locked() else None
        # What is personal is rare, and needs its keys.
        if stored is None or any(row.type in PERSONAL_TYPES for row in stored):
            async with self._reading, self._engine.connect() as connection:
                stored = await read_stored(connection, self.ledger_id, max(after - 1, 0), PAGE_EVENTS + 1)
                keys = await self._person_keys.read_for(connection, stored)
        else:
            keys = NO_KEYS.keys
        hash_before = b""
        if after:
            if not stored or stored[0].position != after:
                raise LogChangedError
            hash_before = stored.pop(0).hash
        page = Page(hash_before, self._decoded(after, stored, keys))
        if page.events:
            if any(type(recorded.event) is UserErased for recorded in page.events):
                self._pages.clear()  # they may hold what was just erased
            self._keep(page)
            self.move_to(max(self.head, page.events[-1].position))
        elif after < head and after < await self.refresh():
            raise self._missing(after + 1)
        return page

    async def _read_kept(self, after: int) -> list[StoredEvent] | None:
        """Without taking a connection each time; None where that one fails: then another one says why."""
        async with self._listening:
            try:
                async with self._kept.connected() as driver:
                    return await read_next(driver, self.ledger_id, max(after - 1, 0), PAGE_EVENTS + 1)
            except DRIVER_ERRORS:
                return None

    def _keep(self, page: Page) -> None:
        """A page that goes on where the last one ends becomes a part of it: pages that are read as events come are small."""
        last = self._pages[-1] if self._pages else None
        if last and last.events[-1].hash == page.hash_before and len(last.events) + len(page.events) <= PAGE_EVENTS:
            last.events.extend(page.events)
        else:
            self._pages.append(page)

    def _decoded(self, after: int, stored: list[StoredEvent], keys: Keys) -> list[RecordedEvent]:
        """Up to the first that is missing or cannot be read; it raises only if that is the very first."""
        events: list[RecordedEvent] = []
        for position, row in enumerate(stored, after + 1):
            try:
                if row.position != position:
                    raise self._missing(position)
                events.append(row.decoded(keys))
            except (UnknownEvent, LogDamaged):
                if not events:
                    raise
                break
        return events

    def _missing(self, position: int) -> LogDamaged:
        return LogDamaged(f"position {position} of ledger {self.ledger_id!r} is missing from the log")
