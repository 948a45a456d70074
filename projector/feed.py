"""Reads the log of one ledger for all its followers. Each slice of the log is read and decoded once, then shared.

A feed has no gaps: if an event is missing or cannot be read, the feed stops there and raises an error. With each request, a
reader sends the hash of the last event that it knows. If the log was restored from a backup and then got other events, the hash
does not match, and the reader gets an error instead of events that do not continue what it has read.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from functools import partial
from itertools import chain
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.dead_letters import read_skips
from shared.errors import LogDamaged, UnknownEvent
from shared.log.encoding import NO_KEYS, PERSONAL_TYPES
from shared.log.events import RecordedEvent
from shared.log.heads import read_head
from shared.log.money_events import MoneyEvent
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.read import (
    READ_EVENTS_MAX,
    StoredEvent,
    count_types,
    people_in_events,
    read_at,
    read_next,
    read_stored,
    read_streams,
    read_type,
)
from shared.log.user_events import UserErased
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import PersonKeys
from shared.stores.kept_connection import KeptConnection
from shared.stores.pooled_connection import for_single_reads
from shared.stores.store_errors import ASYNCPG_ERRORS

SLICES_KEPT: Final = 8
AHEAD_MAX: Final = (SLICES_KEPT - 2) * READ_EVENTS_MAX
"""How many events a reader may be ahead of the slowest one. Within this distance, the slices that the slowest reader needs next
are still in memory."""

AHEAD_SECONDS: Final = 5.0
"""Other readers no longer wait for a reader that has asked for nothing in this time, because its store hangs."""

AHEAD_LOOK_SECONDS: Final = 0.005
FEED_READS_AT_ONCE: Final = 3
"""The number of reads at the same time, so that many followers that start together do not compete for connections."""

COUNTED_AT_ONCE: Final = 200_000


class LogChangedError(Exception):
    """The log has changed: the event at the reader's position is missing, or its hash is not the one that the reader knows."""


class LogSlice(msgspec.Struct, frozen=True):
    """Consecutive events of the log. `hash_before` is the hash of the event before the first one."""

    hash_before: bytes
    events: list[RecordedEvent]

    def holds(self, position: int) -> bool:
        return bool(self.events) and self.events[0].position <= position <= self.events[-1].position

    def after(self, position: int, log_hash: bytes) -> list[RecordedEvent]:
        """Returns the events after `position`.

        Raises:
            LogChangedError: the hash of the event at `position` is not `log_hash`.
        """
        place = position + 1 - self.events[0].position if self.events else 0
        if log_hash != (self.events[place - 1].hash if place else self.hash_before):
            raise LogChangedError
        return self.events[place:]


class Feed:
    """Reads the log of one ledger. `head` is the last position that the feed knows of; the log may have more events by now."""

    def __init__(
        self, engine: AsyncEngine, ledger_id: str, person_keys: PersonKeys, reading: asyncio.Semaphore | None = None
    ) -> None:
        """Creates a feed. Pass the same `reading` to all feeds of an engine to limit how many of them read at the same time."""
        self.ledger_id = ledger_id
        self.head = 0
        self.doubts = 0
        self._person_keys = person_keys
        # A read needs no transaction. Without a transaction it takes a single round trip.
        self._engine = for_single_reads(engine)
        self._slices: deque[LogSlice] = deque(maxlen=SLICES_KEPT)
        self._readers: WeakKeyDictionary[object, tuple[int, float]] = WeakKeyDictionary()
        self._reads: dict[int, asyncio.Task[LogSlice]] = {}
        self._reading = reading or asyncio.Semaphore(FEED_READS_AT_ONCE)
        self._moved = asyncio.Event()
        self._kept = KeptConnection(self._engine)
        self._looking = asyncio.Lock()

    @property
    def is_looking(self) -> bool:
        """True while a call of `look` uses the kept connection."""
        return self._looking.locked()

    async def close(self) -> None:
        """Releases the connection that `look` keeps, after a running `look` has ended. Required once `look` was called."""
        async with self._looking:
            await self._kept.release()

    # ── following ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def next_events(self, after: int, log_hash: bytes, reader: object) -> list[RecordedEvent]:
        """Returns the next events after a position, at most `READ_EVENTS_MAX`, or none at the end of the log.

        Waits while this reader is more than `AHEAD_MAX` events ahead of another one.

        Raises:
            LogChangedError: `log_hash` is not the hash of the event at `after`.
            UnknownEvent, LogDamaged: the event right after `after` cannot be read, or is missing.
        """
        while self._is_far_ahead(after, reader):  # noqa: ASYNC110 # ends after `AHEAD_SECONDS` even if no reader moves
            await asyncio.sleep(AHEAD_LOOK_SECONDS)
        found = next((each for each in self._slices if each.holds(after + 1)), None)
        try:
            return (found or await self._read_once(after)).after(after, log_hash)
        except LogChangedError:
            self._slices.clear()
            raise

    async def look(self) -> bool:
        """Reads the new events before the followers ask for them. Returns False if the log may have more.

        Raises:
            LogChangedError, UnknownEvent, LogDamaged: the log was changed or is damaged. The followers get the same error.
        """
        # `anew`: a read that is running already may have begun before the newest events were recorded.
        found = await self._read_once(self.head, anew=True)
        return len(found.events) < READ_EVENTS_MAX

    async def refresh(self) -> int:
        """Reads the head of the log from PostgreSQL and returns its position.

        Raises:
            NotFound: the ledger does not exist.
        """
        async with self._reading, self._engine.connect() as connection:
            self.move_to((await read_head(connection, self.ledger_id)).position)
        return self.head

    def move_to(self, head: int) -> None:
        """Sets the head, and wakes the followers if it changed. The head is lower if the log was restored from a backup."""
        if head != self.head:
            self.head = head
            self.nudge()

    def nudge(self) -> None:
        """Wakes all callers of `moved`."""
        self._moved.set()
        self._moved = asyncio.Event()

    def doubt(self) -> None:
        """Makes the followers examine their read models now, because one may have lost data."""
        self.doubts += 1
        self.nudge()

    async def moved(self) -> None:
        """Waits until the head changes or `nudge` is called."""
        await self._moved.wait()

    def _is_far_ahead(self, after: int, reader: object) -> bool:
        now = asyncio.get_running_loop().time()
        self._readers[reader] = after, now
        return any(after - other > AHEAD_MAX and now - asked < AHEAD_SECONDS for other, asked in self._readers.values())

    # ── single questions ─────────────────────────────────────────────────────────────────────────────────────────────

    async def hash_at(self, position: int) -> str:
        """Returns the hash of the event at a position, in hexadecimal. The position must not be beyond the head.

        Raises:
            LogDamaged: the log has no event at this position.
        """
        async with self._reading, self._engine.connect() as connection:
            stored = await read_stored(connection, self.ledger_id, position - 1, 1)
        if not stored or stored[0].position != position:
            raise self._missing(position)
        return stored[0].hash.hex()

    async def skips(self, name: str) -> frozenset[int]:
        """Returns the positions that operators decided to skip in a read model."""
        async with self._reading:
            return await read_skips(self._engine, self.ledger_id, name)

    async def events_at(self, positions: list[int]) -> list[RecordedEvent]:
        """Returns the events at the given positions.

        Raises:
            UnknownEvent: this code cannot read one of the events.
        """
        if not positions:
            return []
        async with self._reading, self._engine.connect() as connection:
            stored = await read_at(connection, self.ledger_id, positions)
            keys = await self._person_keys.read(connection, self.ledger_id, people_in_events(stored))
        return [row.decoded(keys) for row in stored]

    async def read_streams(self, stream_ids: list[str], events_max: int) -> dict[str, list[RecordedEvent]]:
        """Returns the events of each stream, in order. Leaves out the longest streams if there are more than `events_max` events.

        Raises:
            UnknownEvent: this code cannot read one of the events.
        """
        if not stream_ids:
            return {}
        async with self._reading, self._engine.connect() as connection:
            stored = await read_streams(connection, self.ledger_id, stream_ids, events_max)
            keys = await self._person_keys.read(
                connection, self.ledger_id, people_in_events(chain.from_iterable(stored.values()))
            )
        return {stream_id: [row.decoded(keys) for row in rows] for stream_id, rows in stored.items()}

    async def count_types(self, up_to: int) -> Counter[str]:
        """Returns the number of events of each type up to a position. Counts in slices, to stay below the statement timeout."""
        numbers: Counter[str] = Counter()
        for after in range(0, up_to, COUNTED_AT_ONCE):
            async with self._reading, self._engine.connect() as connection:
                numbers.update(await count_types(connection, self.ledger_id, after, min(after + COUNTED_AT_ONCE, up_to)))
        return numbers

    async def events_of_type(self, kind: type[MoneyEvent], up_to: int) -> AsyncIterator[MoneyEvent]:
        """Yields the events of one type up to a position, in order. Reads them in slices."""
        after = 0
        while after < up_to:
            async with self._reading, self._engine.connect() as connection:
                page = await read_type(connection, self.ledger_id, kind.__name__, after, READ_EVENTS_MAX)
            for stored in page:
                event = stored.decoded(NO_KEYS.keys).event
                if stored.position <= up_to and isinstance(event, kind):
                    yield event
            after = page[-1].position if len(page) == READ_EVENTS_MAX else up_to

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read_once(self, after: int, *, anew: bool = False) -> LogSlice:
        read = self._reads.get(after)
        if read is None or read.done() or anew:  # a read that is done but not yet forgotten may miss the newest events
            read = self._reads[after] = asyncio.create_task(self._read(after, at_once=anew))
            read.add_done_callback(partial(self._forget, after))
        # If the caller is cancelled, the read must continue, because other readers may wait for the same slice.
        return await asyncio.shield(read)

    def _forget(self, after: int, read: asyncio.Task[LogSlice]) -> None:
        """Removes a finished read. Also fetches its exception, because asyncio warns about a failure that nobody fetched."""
        if self._reads.get(after) is read:
            del self._reads[after]
        if not read.cancelled():
            read.exception()

    async def _read(self, after: int, *, at_once: bool = False) -> LogSlice:
        head = self.head
        stored = await self._read_kept(after) if at_once and not self.is_looking else None
        # Events with personal data need person keys, so they are read again together with the keys. They are rare.
        if stored is None or any(row.type in PERSONAL_TYPES for row in stored):
            async with self._reading, self._engine.connect() as connection:
                stored = await read_stored(connection, self.ledger_id, max(after - 1, 0), READ_EVENTS_MAX + 1)
                keys = await self._person_keys.read(connection, self.ledger_id, people_in_events(stored))
        else:
            keys = {}
        hash_before = b""
        if after:
            if not stored or stored[0].position != after:
                raise LogChangedError
            hash_before = stored.pop(0).hash
        found = LogSlice(hash_before, self._decoded(after, stored, keys))
        if found.events:
            if any(type(recorded.event) is UserErased for recorded in found.events):
                self._slices.clear()  # older slices may hold the personal data that was just erased
            if any(type(recorded.event) is ProjectionEventSkipped for recorded in found.events):
                self.doubt()  # a read model that was made before an event was skipped must be built again
            self._keep(found)
            self.move_to(max(self.head, found.events[-1].position))
        elif after < head and after < await self.refresh():
            raise self._missing(after + 1)
        return found

    async def _read_kept(self, after: int) -> list[StoredEvent] | None:
        """Reads over the kept connection. Returns None if that fails; the read that follows on another connection says why."""
        async with self._looking:
            try:
                async with self._kept.connected() as driver:
                    return await read_next(driver, self.ledger_id, max(after - 1, 0), READ_EVENTS_MAX + 1)
            except ASYNCPG_ERRORS:
                return None

    def _keep(self, found: LogSlice) -> None:
        """Keeps a slice in memory. If it continues the last slice and both together are small enough, joins the two.

        This matters because a wake-up often brings only a few events.
        """
        last = self._slices[-1] if self._slices else None
        if last and last.events[-1].hash == found.hash_before and len(last.events) + len(found.events) <= READ_EVENTS_MAX:
            last.events.extend(found.events)
        else:
            self._slices.append(found)

    def _decoded(self, after: int, stored: list[StoredEvent], keys: KeysByPerson) -> list[RecordedEvent]:
        """Returns the events before the first one that is missing or cannot be read.

        Raises:
            UnknownEvent, LogDamaged: the first of all the events is missing or cannot be read.
        """
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
