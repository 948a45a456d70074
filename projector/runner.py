"""Keeps every read model of every ledger up with its log, for as long as it runs.

Each read model of each ledger has a follower of its own: one that fails or is slow does not hold up the others. A failure is
retried with growing pauses, for ever, and what it was stands where readers find it (`shared.read_models.read_troubles`). A
wake-up makes a follower look at once; without one it looks by itself, so that nothing depends on a message.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.dead_letters import Attempts
from projector.feed import READS_AT_ONCE, Feed
from projector.generations import OVERTAKEN_SECONDS, Copy, Generations, OvertakenError, PausedError, pause
from projector.projections import PROJECTIONS, Projection
from projector.sinks import make_sinks
from projector.telling import Telling
from projector.troubles import Troubles
from shared.connections import STORE_ERRORS, MongoDatabase
from shared.errors import DaybookError, EventRefused
from shared.event_store import read_heads
from shared.logs import kind_of
from shared.pace import TELL_SECONDS, Told, tell
from shared.person_keys import PersonKeys
from shared.read_models import WAKE_CHANNEL
from shared.settings import Settings

log = structlog.get_logger()

PAUSE_SECONDS: Final = (0.05, 5.0)
"""After the first failure, and at most."""

PAUSED_SECONDS: Final = 0.5
"""How often a follower asks whether its projection is still paused."""

EXAMINE_SECONDS: Final = 10.0
"""How often a follower makes sure that its read model is still there and of this log."""


class Runner:
    """Follows all ledgers; `run` until `stop`."""

    def __init__(
        self,
        engine: AsyncEngine,
        mongo: MongoDatabase,
        redis: "Redis",
        settings: Settings,
        projections: Sequence[Projection[Any]] = PROJECTIONS,
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._redis = redis
        self._person_keys = PersonKeys(settings)
        self._sinks = make_sinks(mongo, redis)
        self._troubles = Troubles(mongo, redis)
        self._telling = Telling(redis)
        self._events_max = settings.projector_batch_events_max
        self._attempts_max = settings.projector_attempts_max
        self._letters_max = settings.projector_dead_letters_max
        self._look_seconds = settings.projector_look_ms / 1000
        self._projections = projections
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._feeds: dict[str, Feed] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._followers: list[Follower] = []
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Returns when it was stopped and the batches under way are written."""
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(each) for each in (self._listen(), self._tell())]
                await self._look(tasks)
                for task in beside:
                    task.cancel()
        finally:
            await self._telling.close()
            for feed in self._feeds.values():
                await feed.close()

    def wake(self) -> None:
        """There may be new events."""
        self._woken.set()

    def stop(self) -> None:
        """Ends `run` after the batches under way."""
        self._stopping.set()
        self._woken.set()
        for heard in self._heard.values():
            heard.set()
        for feed in self._feeds.values():
            feed.nudge()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Asks where the logs end, again and again; a ledger that is new gets its followers."""
        failing = False
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                async with self._engine.connect() as connection:
                    heads = await read_heads(connection)
            except STORE_ERRORS as error:
                if not failing:
                    log.error("the log cannot be read", error=kind_of(error))  # noqa: TRY400 # an outage needs no traceback
                failing = True
            else:
                failing = False
                for ledger_id, (head, _) in heads.items():
                    self._feed(ledger_id, tasks).move_to(head)
            await _wait(self._woken, self._look_seconds)

    def _feed(self, ledger_id: str, tasks: asyncio.TaskGroup) -> Feed:
        feed = self._feeds.get(ledger_id)
        if feed is None:
            feed = self._feeds[ledger_id] = Feed(self._engine, ledger_id, self._person_keys, self._reading)
            self._heard[ledger_id] = asyncio.Event()
            tasks.create_task(self._hear(feed, self._heard[ledger_id]))
            for projection in self._projections:
                attempts = Attempts(self._attempts_max, self._letters_max)
                generations = Generations(projection, self._sinks[projection.model.store], feed, attempts)
                follower = Follower(generations, self._troubles, self._telling, self._events_max, self._stopping)
                self._followers.append(follower)
                tasks.create_task(follower.run())
        return feed

    async def _hear(self, feed: Feed, heard: asyncio.Event) -> None:
        """What a message tells of is read at once, and only once for all followers; where the log ends needs not be asked."""
        while not self._stopping.is_set():
            try:
                is_all = await feed.look()
            except Exception:  # noqa: BLE001 # those who follow find the same, and say so
                is_all = False
            if not is_all:
                self.wake()
            await heard.wait()
            heard.clear()

    async def _tell(self) -> None:
        """How the work goes on, for those who ask. Where Redis is away, nobody is told."""
        while True:
            await asyncio.sleep(TELL_SECONDS)
            with suppress(*STORE_ERRORS):
                await tell(self._redis, [follower.told() for follower in self._followers])

    async def _listen(self) -> None:
        """Turns messages into looks. When Redis is away, the looks go on without them."""
        while True:
            with suppress(*STORE_ERRORS):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE_CHANNEL)
                    # What was said while nobody listened.
                    self.wake()
                    while True:
                        if message := await channel.get_message(timeout=self._look_seconds):
                            heard = self._heard.get(message["data"])
                            (heard or self._woken).set()
            await asyncio.sleep(self._look_seconds)


class Follower:
    """Keeps one read model of one ledger up with the log."""

    def __init__(
        self, generations: Generations, troubles: Troubles, telling: Telling, events_max: int, stopping: asyncio.Event
    ) -> None:
        self._generations = generations
        self._troubles = troubles
        self._telling = telling
        self._events_max = events_max
        self._stopping = stopping
        self._feed = generations.feed
        self._model = generations.projection.model
        self._position = 0
        self._failures = 0
        self._overtaken = 0
        self._letters = 0

    def told(self) -> Told:
        """How it gets on."""
        pace = self._generations.stopwatch.pace()
        return Told(self._feed.ledger_id, self._model.name, pace, self._letters > 0, self._failures > 0)

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._follow()
            except OvertakenError:
                self._overtaken += 1
                await _wait(self._stopping, pause(self._overtaken, OVERTAKEN_SECONDS))
            except PausedError:
                await _wait(self._stopping, PAUSED_SECONDS)
            # Whatever one projection does, also a mistake in its code, must not end the others.
            except Exception as error:  # noqa: BLE001
                self._failures += 1
                seconds = pause(self._failures, PAUSE_SECONDS)
                self._log_failure(error, seconds)
                await self._troubles.note(self._model, self._feed.ledger_id, self._position, error)
                await _wait(self._stopping, seconds)

    async def _follow(self) -> None:
        """Until it is time to examine the read model anew."""
        opened = await self._generations.open()
        copy = self._generations.copy(opened)
        self._position = opened.generation.position
        if not opened.live:
            await self._build(copy)
            return
        end = asyncio.get_running_loop().time() + EXAMINE_SECONDS
        await self._go_on(copy)
        while not self._stopping.is_set() and (left := end - asyncio.get_running_loop().time()) > 0:
            if self._feed.head > self._position and await self._go_on(copy):
                continue
            if self._feed.head < self._position:
                break
            # From here to the wait nothing else runs, so that neither news nor the wish to stop can be missed.
            if self._feed.head == self._position and not self._stopping.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._feed.moved()

    async def _go_on(self, copy: Copy) -> int:
        count = await self._advance(copy, copy.advance(self._events_max))
        if count:
            self._telling.tell(self._model, self._feed.ledger_id, self._position)
        return count

    async def _build(self, copy: Copy) -> None:
        while await self._advance(copy, copy.advance_far()):
            if self._stopping.is_set():
                return
        await self._generations.finish(copy)

    async def _advance(self, copy: Copy, advancing: Awaitable[int]) -> int:
        count = await advancing
        self._position = copy.generation.position
        self._failures = self._overtaken = 0
        self._letters = copy.letters
        await self._troubles.clear(self._model, self._feed.ledger_id)
        return count

    def _log_failure(self, error: Exception, seconds: float) -> None:
        about = {"ledger_id": self._feed.ledger_id, "projection": self._model.name, "position": self._position}
        # Where an event was refused, the code that refused it is what to look at.
        culprit = error.__cause__ if isinstance(error, EventRefused) and error.__cause__ else error
        is_ours = not isinstance(culprit, (*STORE_ERRORS, PyMongoError, DaybookError))
        shown = culprit if is_ours else None
        log.error("projection stopped", **about, error=kind_of(error), again_in_seconds=round(seconds, 2), exc_info=shown)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
