"""Keeps one read model of one ledger up with the log.

Each read model has its own follower. A read model that fails or is slow does not delay the others. A follower that has nothing to
do waits without a timer. `projector.examiner` looks after the read model meanwhile, and `doubt` makes the follower open it again.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

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
from shared.supervision import end_tasks

log = structlog.get_logger()

STORE_PAUSE_SECONDS: Final = (0.05, 2.0)
"""The wait in seconds after the first failure of a store, and the longest wait. It is short, so that a read model is at the
end of the log within five seconds after an outage."""

MISTAKE_PAUSE_SECONDS: Final = (0.05, 60.0)
"""The same for a failure that does not end by itself. Each attempt may cost a whole build."""

PAUSED_SECONDS: Final = 0.5
"""The time in seconds between two checks of whether a paused projection was resumed."""

WELL_SECONDS: Final = 10.0
"""A follower that has followed a live generation for so long is well. The failures before no longer count."""


PRUNE_SECONDS: Final = 2.0
"""How long events wait for the deletion of an old generation. A large one takes longer, and is deleted while they are applied."""


class FollowedGeneration(NamedTuple):
    """The live generation that a follower keeps up with the log: its number, and the position that it has reached."""

    number: int
    position: int


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
        self._number = 0
        self._live_since: float | None = None
        self._doubts = 0
        self._is_opened = False
        self._failed = 0
        self.settled = asyncio.Event()
        """Set once the follower has reached the end of the log, or has failed."""
        self._is_stopped = False
        self._overtaken = 0
        self._letters = 0
        self._pruning: asyncio.Task[None] | None = None

    def report(self) -> ReadModelReport:
        """Returns how the follower spends its time, whether the read model has dead letters, and whether it is failing."""
        progress = self._generations.stopwatch.progress()
        return ReadModelReport(self._feed.ledger_id, self._model.name, progress, self._letters > 0, self._is_stopped)

    def following(self) -> FollowedGeneration | None:
        """Returns the live generation, or None while there is none or while the follower does not follow it."""
        return None if self._live_since is None else FollowedGeneration(self._number, self._position)

    def doubt(self) -> None:
        """Makes the follower open the read model again, because the stores say something else of it."""
        self._doubts += 1
        self._feed.nudge()

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
        try:
            await self._run()
        finally:
            if self._pruning:
                await end_tasks(self._pruning)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._follow()
            except OvertakenError:
                self._overtaken += 1
                await wait(self._stopping, backoff_seconds(self._overtaken, OVERTAKEN_SECONDS))
            except PausedError:
                self.settled.set()
                await wait(self._stopping, PAUSED_SECONDS)
            # An error of one projection, even a bug in its code, must not end the followers of the others.
            except Exception as error:  # noqa: BLE001
                self._failed = 1 if self._was_well() else self._failed + 1
                self._live_since = None
                self._is_stopped = True
                seconds = self._pause_seconds(error)
                self._log_failure(error, seconds)
                await self._failures.note(self._model, self._feed.ledger_id, self._position, error)
                self.settled.set()
                await wait(self._stopping, seconds)

    def _was_well(self) -> bool:
        """Returns True if the follower has just followed a live generation for `WELL_SECONDS`.

        A build that advances, or that is complete and lost again right after, shortens no pause. Otherwise a read model that
        cannot be built would be built many times a second for ever.
        """
        return self._live_since is not None and asyncio.get_running_loop().time() - self._live_since >= WELL_SECONDS

    async def _follow(self) -> None:
        """Follows the log until the read model is in doubt, or builds the generation if it is not live. Then open it again."""
        doubts = self._doubt_count
        opened = await self._generations.open()
        build = self._generations.resume(opened)
        self._number, self._position, self._is_opened = opened.generation.number, opened.generation.position, True
        if not opened.live:
            self._live_since = None
            await self._build(build)
            return
        if self._live_since is None:
            self._live_since = asyncio.get_running_loop().time()
        await self._go_on(build)
        while self._doubt_count == doubts and not self._stopping.is_set():
            if self._feed.head > self._position and await self._go_on(build):
                continue
            if self._feed.head < self._position:
                break
            self.settled.set()
            # No other task runs between this check and the wait, so neither new events nor a stop nor a doubt can be missed.
            if self._feed.head == self._position and self._doubt_count == doubts and not self._stopping.is_set():
                await self._feed.moved()

    @property
    def _doubt_count(self) -> int:
        return self._doubts + self._feed.doubts

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
        await self._generations.make_live(build)
        await self._note_success()
        if self._pruning is None or self._pruning.done():
            self._pruning = asyncio.create_task(self._prune())
        await asyncio.wait([self._pruning], timeout=PRUNE_SECONDS)

    async def _prune(self) -> None:
        try:
            await self._generations.prune()
        except Exception as error:  # noqa: BLE001 # the next call goes on
            about = {"ledger_id": self._feed.ledger_id, "projection": self._model.name}
            log.warning("old generations are dropped later", **about, error=kind_of(error))

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
