"""Keeps one read model of one ledger up with the log.

Each read model has its own follower. A read model that fails or is slow does not delay the others.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from pymongo.errors import PyMongoError

from projector.failures import Failures
from projector.generations.build import GenerationBuild, OvertakenError
from projector.generations.generations import OVERTAKEN_SECONDS, Generations, PausedError
from projector.notifications import MovedNotifier
from shared.backoff import backoff_seconds
from shared.errors import DaybookError, EventNotApplied, StoreUnavailable
from shared.logs import kind_of
from shared.read_models.worker_reports import Phase, ReadModelReport
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

log = structlog.get_logger()

STORE_PAUSE_SECONDS: Final = (0.05, 5.0)
"""The wait in seconds after the first failure of a store, and the longest wait."""

MISTAKE_PAUSE_SECONDS: Final = (0.05, 60.0)
"""The same for a failure that does not end by itself. Each attempt may cost a whole build."""

PAUSED_SECONDS: Final = 0.5
"""The time in seconds between two checks of whether a paused projection was resumed."""

EXAMINE_SECONDS: Final = 10.0
"""The time in seconds between two checks that the read model still exists and was made from this log."""


class FollowerState(msgspec.Struct, frozen=True):
    """How far a follower is. `position` is None until it has opened its read model. `events` were applied since the start."""

    ledger_id: str
    name: str
    position: int | None
    head: int
    dead_letters: int
    has_failed: bool
    events: int
    seconds: Mapping[Phase, float]
    """The time in seconds since the start that the follower spent in each phase."""


class Follower:
    """Follows the log until `stopping` is set."""

    def __init__(
        self, generations: Generations, failures: Failures, notifier: MovedNotifier, events_max: int, stopping: asyncio.Event
    ) -> None:
        self._generations = generations
        self._failures = failures
        self._notifier = notifier
        self._events_max = events_max
        self._stopping = stopping
        self._feed = generations.feed
        self._model = generations.projection.model
        self._position = 0
        self._is_opened = False
        self._failed = 0
        self._is_stopped = False
        self._overtaken = 0
        self._letters = 0

    def report(self) -> ReadModelReport:
        """Returns how the follower spends its time, whether the read model has dead letters, and whether it is failing."""
        progress = self._generations.stopwatch.progress()
        return ReadModelReport(self._feed.ledger_id, self._model.name, progress, self._letters > 0, self._is_stopped)

    def state(self) -> FollowerState:
        """Returns how far the follower is, and what it has done since the start."""
        stopwatch = self._generations.stopwatch
        position = self._position if self._is_opened else None
        return FollowerState(
            *(self._feed.ledger_id, self._model.name, position, self._feed.head, self._letters, self._is_stopped),
            events=stopwatch.total_events,
            seconds=stopwatch.total_seconds,
        )

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._follow()
            except OvertakenError:
                self._overtaken += 1
                await wait(self._stopping, backoff_seconds(self._overtaken, OVERTAKEN_SECONDS))
            except PausedError:
                await wait(self._stopping, PAUSED_SECONDS)
            # An error of one projection, even a bug in its code, must not end the followers of the others.
            except Exception as error:  # noqa: BLE001
                self._failed += 1
                self._is_stopped = True
                seconds = self._pause_seconds(error)
                self._log_failure(error, seconds)
                await self._failures.note(self._model, self._feed.ledger_id, self._position, error)
                await wait(self._stopping, seconds)

    async def _follow(self) -> None:
        """Follows the log for `EXAMINE_SECONDS`, or builds the generation if it is not live. Then it must be opened again.

        Only a whole round with a live generation ends well. A build that advances, or that is complete and lost again right
        after, shortens no pause. Otherwise a read model that cannot be built would be built many times a second for ever.
        """
        doubts = self._feed.doubts
        opened = await self._generations.open()
        build = self._generations.resume(opened)
        self._position, self._is_opened = opened.generation.position, True
        if not opened.live:
            await self._build(build)
            return
        end = asyncio.get_running_loop().time() + EXAMINE_SECONDS
        await self._go_on(build)
        while self._is_trusted(doubts) and (left := end - asyncio.get_running_loop().time()) > 0:
            if self._feed.head > self._position and await self._go_on(build):
                continue
            if self._feed.head < self._position:
                break
            # No other task runs between this check and the wait, so neither new events nor a stop nor a doubt can be missed.
            if self._feed.head == self._position and self._is_trusted(doubts):
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._feed.moved()
        if asyncio.get_running_loop().time() >= end:
            self._failed = 0

    def _is_trusted(self, doubts: int) -> bool:
        """True while the follower may go on without examining the read model. `doubts` is their number when it was examined."""
        return self._feed.doubts == doubts and not self._stopping.is_set()

    async def _go_on(self, build: GenerationBuild) -> int:
        count = await self._advance(build, build.advance(self._events_max))
        await self._note_success()
        if count:
            self._notifier.tell(self._model, self._feed.ledger_id, self._position)
        return count

    async def _build(self, build: GenerationBuild) -> None:
        while await self._advance(build, build.advance_far()):
            if self._stopping.is_set():
                return
        await self._generations.finish(build)
        await self._note_success()

    async def _advance(self, build: GenerationBuild, advancing: Awaitable[int]) -> int:
        count = await advancing
        self._position = build.generation.position
        self._letters = build.letters
        return count

    async def _note_success(self) -> None:
        self._is_stopped = False
        self._overtaken = 0
        await self._failures.clear(self._model, self._feed.ledger_id)

    def _pause_seconds(self, error: Exception) -> float:
        if isinstance(error, EventNotApplied):
            # An event is tried a bounded number of times. The next event that fails begins with short pauses again.
            return backoff_seconds(self._generations.attempts.tries, MISTAKE_PAUSE_SECONDS)
        is_store = isinstance(error, (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, StoreUnavailable))
        return backoff_seconds(self._failed, STORE_PAUSE_SECONDS if is_store else MISTAKE_PAUSE_SECONDS)

    def _log_failure(self, error: Exception, seconds: float) -> None:
        about = {"ledger_id": self._feed.ledger_id, "projection": self._model.name, "position": self._position}
        # If an event could not be applied, show the traceback of the code that failed.
        culprit = error.__cause__ if isinstance(error, EventNotApplied) and error.__cause__ else error
        is_ours = not isinstance(culprit, (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, DaybookError))
        shown = culprit if is_ours else None
        log.error("projection stopped", **about, error=kind_of(error), again_in_seconds=round(seconds, 2), exc_info=shown)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, but after `seconds` at the latest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
