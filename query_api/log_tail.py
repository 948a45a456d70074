"""Reads new events at the end of each log, for the readers of event streams. One read serves all readers of a ledger.

Readers have no queues. A reader asks for the events after its own position. It gets them from the most recent events, which the
tail keeps in memory, or from PostgreSQL if it is further behind. So a slow reader only needs memory for the events of one read.
If it does not take them in time, it is disconnected. A wake-up makes the tail read immediately. The tail also polls the log, so a
lost wake-up only causes a delay.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import Final

import orjson
import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.log_reading import EventFilter
from shared.errors import DaybookError, TooManyStreams
from shared.log.heads import read_head
from shared.log.read import StoredEvent, read_stored
from shared.logs import kind_of
from shared.read_models.channels import WAKE_CHANNEL
from shared.stores.pooled_connection import for_single_reads
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

KEPT_EVENTS: Final = 1_000
EVENTS_AT_ONCE: Final = 200
LOOK_SECONDS: Final = 0.5
READS_AT_ONCE: Final = 2
"""How many readers may read from PostgreSQL at the same time, so that many slow readers leave connections for other queries."""


class PushedEvent:
    """An event with the lines that are sent to every reader. The lines are made only once."""

    def __init__(self, event: StoredEvent) -> None:
        self.position = event.position
        self.type = event.type
        self.lines = b"id: %d\nevent: %s\ndata: %s\n\n" % (
            event.position,
            event.type.encode(),
            orjson.dumps(event.members()),
        )
        self._event = event

    @cached_property
    def streams(self) -> tuple[str, ...] | None:
        """The streams of the event, or None if this code cannot decode the event.

        No person key is needed, because stream ids do not depend on encrypted fields.
        """
        try:
            return self._event.decoded({}).event.streams()
        except DaybookError:
            return None


def _matches(event: PushedEvent, wanted: EventFilter) -> bool:
    return wanted.type in {None, event.type} and (wanted.stream is None or wanted.stream in (event.streams or ()))


class LogTail:
    """The most recent events of one ledger's log, which grows while readers follow it."""

    def __init__(self, engine: AsyncEngine, ledger_id: str, head: int, reading: asyncio.Semaphore) -> None:
        self.head = head
        self.readers = 0
        self.is_idle = True
        self.is_failing = False
        self._engine = engine
        self._ledger_id = ledger_id
        self._reading = reading
        self._kept: deque[PushedEvent] = deque(maxlen=KEPT_EVENTS)
        self._kept_after = head
        self._moved = asyncio.Event()

    async def look(self) -> None:
        """Reads the new events from PostgreSQL and wakes all readers that wait."""
        if self.is_idle:
            await self._begin()
        while True:
            async with self._engine.connect() as connection:
                page = await read_stored(connection, self._ledger_id, self.head, EVENTS_AT_ONCE)
            if not page:
                return
            self._kept.extend(map(PushedEvent, page))
            self._kept_after = self._kept[0].position - 1
            self.head = page[-1].position
            self._moved.set()
            self._moved = asyncio.Event()

    async def look_now(self) -> int:
        """Reads the last position of the log from PostgreSQL and returns it."""
        async with self._engine.connect() as connection:
            return (await read_head(connection, self._ledger_id)).position

    async def _begin(self) -> None:
        """Moves the tail past the events that were recorded while it had no reader. `after` reads these from PostgreSQL."""
        self.head = self._kept_after = await self.look_now()
        self._kept.clear()
        self.is_idle = False
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self) -> None:
        await self._moved.wait()

    async def after(self, position: int, wanted: EventFilter) -> tuple[int, list[PushedEvent]]:
        """Returns the next matching events, and the position up to which there are no further ones."""
        head = self.head
        if position >= head:
            return position, []
        if position >= self._kept_after:
            start = position - self._kept_after
            events = list(islice(self._kept, start, start + EVENTS_AT_ONCE))
            if wanted.stream is None or all(event.streams is not None for event in events):
                return events[-1].position, [event for event in events if _matches(event, wanted)]
        async with self._reading, self._engine.connect() as connection:
            found = await wanted.read(connection, self._ledger_id, position, EVENTS_AT_ONCE)
        # Fewer events than the limit means that there are no more up to `head`, which was read before.
        reached = found[-1].position if found else head
        return (reached if len(found) == EVENTS_AT_ONCE else max(head, reached)), list(map(PushedEvent, found))


class LogTails:
    """The tails of all ledgers that have readers."""

    def __init__(self, engine: AsyncEngine, redis: "Redis", streams_max: int) -> None:
        self._engine = for_single_reads(engine)
        self._redis = redis
        self._streams_max = streams_max
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._tails: dict[str, LogTail] = {}
        self._streams: Counter[tuple[str, str]] = Counter()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, ledger_id: str) -> LogTail:
        """Returns the tail of a ledger. The first call starts the tasks that follow the logs.

        Raises:
            NotFound: there is no such ledger.
        """
        if not self._tasks:
            self._tasks = [
                keep_running("tails of the logs", self._look),
                keep_running("listener of wake-ups", self._listen),
            ]
        if ledger_id not in self._tails:
            async with self._engine.connect() as connection:
                head = await read_head(connection, ledger_id)
            self._tails.setdefault(ledger_id, LogTail(self._engine, ledger_id, head.position, self._reading))
        return self._tails[ledger_id]

    def reading(self, tail: LogTail, caller: tuple[str, str]) -> AbstractContextManager[None]:
        """Counts one more stream of the caller. Returns a context that reads the tail and ends the stream.

        The check and the count are one step without `await`, so streams that are opened at once cannot all pass the check.

        Raises:
            TooManyStreams: the caller already has as many streams as allowed.
        """
        if self._streams[caller] >= self._streams_max:
            raise TooManyStreams(streams_max=self._streams_max)
        self._streams[caller] += 1
        return self._counted(tail, caller)

    @contextmanager
    def _counted(self, tail: LogTail, caller: tuple[str, str]) -> Iterator[None]:
        """A tail without readers reads nothing."""
        tail.readers += 1
        self._woken.set()
        try:
            yield
        finally:
            tail.readers -= 1
            tail.is_idle = not tail.readers
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    async def close(self) -> None:
        await end_tasks(*self._tasks)

    async def _look(self) -> None:
        while True:
            self._woken.clear()
            for tail in list(self._tails.values()):
                if tail.readers:
                    try:
                        await tail.look()
                    except Exception as error:  # noqa: BLE001 # the tail of one ledger must not end those of the others
                        if not tail.is_failing:
                            log.warning("the log cannot be read", error=kind_of(error))
                        tail.is_failing = True
                    else:
                        tail.is_failing = False
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()

    async def _listen(self) -> None:
        while True:
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE_CHANNEL)
                    while True:
                        if await channel.get_message(timeout=LOOK_SECONDS):
                            self._woken.set()
            await asyncio.sleep(LOOK_SECONDS)


async def follow(
    tail: LogTail, wanted: EventFilter, position: int, beat_seconds: float
) -> AsyncIterator[tuple[int, list[PushedEvent]]]:
    """Yields positions with the matching events up to them, for ever.

    If there was no event for `beat_seconds`, yields the position with an empty list.
    """
    while True:
        position, events = await tail.after(position, wanted)
        if events:
            yield position, events
        elif position >= tail.head:
            try:
                async with asyncio.timeout(beat_seconds):
                    await tail.moved()
            except TimeoutError:
                yield position, []
