"""Pushes events to whoever listens: each process reads the end of a log once, however many readers it has.

A reader has no queue. It asks for what comes after its own position and gets it from the events that were read last, or, if it is
behind those, from the log; so a slow reader costs a page of memory, and one that does not take it in time is cut off. Wake-ups
make a tail look at once; it also looks by itself, so that nothing depends on a message.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import Final

import msgspec
import orjson
import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from query_api.events import event_item
from shared.connections import STORE_ERRORS
from shared.errors import DaybookError, TooManyStreams
from shared.event_store import StoredEvent, read_head, read_stored, read_stream, read_type
from shared.read_models import WAKE_CHANNEL

log = structlog.get_logger()

KEPT_EVENTS: Final = 1_000
PAGE_EVENTS: Final = 200
LOOK_SECONDS: Final = 0.5
READS_AT_ONCE: Final = 2
"""So that many readers that begin far back leave connections to everybody else."""


class Pushed:
    """An event, as every reader is sent it."""

    def __init__(self, event: StoredEvent) -> None:
        self.position = event.position
        self.type = event.type
        self.lines = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), orjson.dumps(event_item(event)))
        self._event = event

    @cached_property
    def streams(self) -> tuple[str, ...] | None:
        """None where this code cannot read the event. What is sealed in it says nothing of its streams."""
        try:
            return self._event.decoded({}).event.streams()
        except DaybookError:
            return None


class Wanted(msgspec.Struct, frozen=True):
    """What a reader wants of a ledger's events."""

    type: str | None = None
    stream: str | None = None

    def holds(self, event: Pushed) -> bool:
        return self.type in {None, event.type} and (self.stream is None or self.stream in (event.streams or ()))

    async def read(self, connection: AsyncConnection, ledger_id: str, after: int) -> Sequence[StoredEvent]:
        """A page of it from the log."""
        if self.stream:
            return await read_stream(connection, ledger_id, self.stream, 0, PAGE_EVENTS, after, self.type)
        if self.type:
            return await read_type(connection, ledger_id, self.type, after, PAGE_EVENTS)
        return await read_stored(connection, ledger_id, after, PAGE_EVENTS)


class Tail:
    """The end of one ledger's log, as it grows."""

    def __init__(self, engine: AsyncEngine, ledger_id: str, head: int, reading: asyncio.Semaphore) -> None:
        self.head = head
        self.readers = 0
        self.is_idle = True
        self._engine = engine
        self._ledger_id = ledger_id
        self._reading = reading
        self._kept: deque[Pushed] = deque(maxlen=KEPT_EVENTS)
        self._kept_after = head
        self._moved = asyncio.Event()

    async def look(self) -> None:
        """Reads what is new and tells everybody who waits."""
        if self.is_idle:
            await self._begin()
        while True:
            async with self._engine.connect() as connection:
                page = await read_stored(connection, self._ledger_id, self.head, PAGE_EVENTS)
            if not page:
                return
            self._kept.extend(map(Pushed, page))
            self._kept_after = self._kept[0].position - 1
            self.head = page[-1].position
            self._moved.set()
            self._moved = asyncio.Event()

    async def look_now(self) -> int:
        """The end of the log as it is now."""
        async with self._engine.connect() as connection:
            return (await read_head(connection, self._ledger_id)).position

    async def _begin(self) -> None:
        """What came while nobody listened is read by those who want it."""
        self.head = self._kept_after = await self.look_now()
        self._kept.clear()
        self.is_idle = False
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self) -> None:
        await self._moved.wait()

    async def after(self, position: int, wanted: Wanted) -> tuple[int, list[Pushed]]:
        """The next events that are wanted, and the position up to which there are no others."""
        head = self.head
        if position >= head:
            return position, []
        if position >= self._kept_after:
            start = position - self._kept_after
            events = list(islice(self._kept, start, start + PAGE_EVENTS))
            if wanted.stream is None or all(event.streams is not None for event in events):
                return events[-1].position, [event for event in events if wanted.holds(event)]
        async with self._reading, self._engine.connect() as connection:
            found = await wanted.read(connection, self._ledger_id, position)
        # Less than a page is all that there is up to the head that we knew.
        reached = found[-1].position if found else head
        return (reached if len(found) == PAGE_EVENTS else max(head, reached)), list(map(Pushed, found))


class Tails:
    """The tails of all ledgers that somebody listens to."""

    def __init__(self, engine: AsyncEngine, redis: "Redis", streams_max: int) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._redis = redis
        self._streams_max = streams_max
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._tails: dict[str, Tail] = {}
        self._streams: Counter[tuple[str, str]] = Counter()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, ledger_id: str) -> Tail:
        """Raises:
        NotFound: there is no such ledger.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._listen())]
        if ledger_id not in self._tails:
            async with self._engine.connect() as connection:
                head = await read_head(connection, ledger_id)
            self._tails.setdefault(ledger_id, Tail(self._engine, ledger_id, head.position, self._reading))
        return self._tails[ledger_id]

    def admit(self, caller: tuple[str, str]) -> None:
        """Raises:
        TooManyStreams: the caller has as many as one may have.
        """
        if self._streams[caller] >= self._streams_max:
            raise TooManyStreams(streams_max=self._streams_max)

    @contextmanager
    def reading(self, tail: Tail, caller: tuple[str, str]) -> Iterator[None]:
        """Counts a reader for as long as it reads. A tail that nobody reads is not looked at."""
        self._streams[caller] += 1
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._woken.clear()
            for tail in list(self._tails.values()):
                if tail.readers:
                    try:
                        await tail.look()
                    except (*STORE_ERRORS, DaybookError) as error:
                        log.warning("the log cannot be read", error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()

    async def _listen(self) -> None:
        while True:
            with suppress(*STORE_ERRORS):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE_CHANNEL)
                    while True:
                        if await channel.get_message(timeout=LOOK_SECONDS):
                            self._woken.set()
            await asyncio.sleep(LOOK_SECONDS)


async def follow(tail: Tail, wanted: Wanted, position: int, beat_seconds: float) -> AsyncIterator[tuple[int, list[Pushed]]]:
    """Pages of what is wanted, for ever; an empty one when nothing has come for so long."""
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
