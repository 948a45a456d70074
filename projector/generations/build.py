"""Applies the log to one generation, batch by batch.

If a batch fails, smaller and smaller parts of it are applied, until the failing event is in a batch of its own and all events
before it are applied. This event is tried again. It becomes a dead letter after the last attempt.

If a store fails, no event is the cause. But the next batches are smaller: a slow store may never take a large one in time.
"""

import time
from typing import Any, Final

import msgspec
import structlog
from pymongo.errors import PyMongoError

from projector.dead_letters import ApplyAttempts, DeadLetterTracker
from projector.feed import Feed, LogChangedError
from projector.generations.batch_size import BatchSize
from projector.projections.projection import Projection
from projector.sinks.protocols import BatchWriter, Step, StepDeadLetters
from projector.stopwatch import Stopwatch
from shared.errors import LogDamaged, StoreUnavailable, UnknownEvent
from shared.log.events import RecordedEvent
from shared.read_models.generations import Generation
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.tracing import TRACEPARENT, Traces

log = structlog.get_logger()

CHANGES_MAX: Final = 10_000
"""The number of changed documents (or Redis commands) at which a batch is written. It bounds the memory that a batch needs."""

BUILD_EVENTS_MAX: Final = 100_000
BUILD_CHANGES_MAX: Final = 40_000
"""The limits of a batch for a generation that is not live. They are higher, so that documents that change often are written less
often."""


class OvertakenError(Exception):
    """Another worker has moved this generation's checkpoint, or dropped or retired it. Read pointer and checkpoint again."""


class BatchFailedError(Exception):
    """An event of a batch cannot be folded or written. `last` is the last event of the batch."""

    def __init__(self, last: RecordedEvent) -> None:
        super().__init__()
        self.last = last


class OpenedGeneration(msgspec.Struct, frozen=True):
    """A generation that can continue from its position. `live` is True if readers see it, and False if it is being built."""

    generation: Generation
    log_hash: bytes
    live: bool
    skips: frozenset[int] = frozenset()
    """The positions that operators decided to skip."""
    has_letters: bool = False


class GenerationBuild:
    """Applies the events of the log to one generation."""

    def __init__(
        self,
        projection: Projection[Any],
        sink: BatchWriter[Any],
        feed: Feed,
        opened: OpenedGeneration,
        attempts: ApplyAttempts | None = None,
        stopwatch: Stopwatch | None = None,
        traces: Traces | None = None,
        size: BatchSize | None = None,
    ) -> None:
        self.generation = opened.generation
        self._stopwatch = stopwatch or Stopwatch()
        self._traces = traces
        self._log_hash = opened.log_hash
        self._projection = projection
        self._sink = sink
        self._feed = feed
        self._attempts = attempts or ApplyAttempts()
        self._size = size or BatchSize()
        self._dead_letters = None if opened.has_letters else DeadLetterTracker(skips=opened.skips)
        self._skips = opened.skips
        self._suspect = 0
        """A batch that ended at this position failed, so one of the events up to it cannot be applied."""

    @property
    def letters(self) -> int:
        """The number of dead letters. It is 0 until `advance` has read them."""
        return len(self._dead_letters.letters) if self._dead_letters else 0

    async def advance_far(self, events_max: int = BUILD_EVENTS_MAX) -> int:
        """Does the same as `advance`, with large batches that need few writes. For a generation that is not live."""
        is_large = self._projection.large_batches and not self._projection.write_once
        changes_max = BUILD_CHANGES_MAX if is_large else CHANGES_MAX
        return await self.advance(min(events_max, BUILD_EVENTS_MAX), changes_max)

    async def advance(self, events_max: int, changes_max: int = CHANGES_MAX) -> int:
        """Folds a batch and writes it. Returns the number of its events, or 0 at the end of the log.

        Raises:
            OvertakenError: another worker writes this generation, or the generation takes no more batches.
            UnknownEvent, LogDamaged: the next event cannot be read. All events before it are applied.
            EventNotApplied: the next event could not be applied and must be tried again.
        """
        if self._dead_letters is None:
            letters = await self._sink.read_letters(self.generation)
            parked = await self._sink.read_parked(self.generation)
            self._dead_letters = DeadLetterTracker((letter.position for letter in letters), parked, self._skips)
        events_max, changes_max = self._size.at_most(events_max), self._size.at_most(changes_max)
        while True:
            position = self.generation.position
            if self._attempts.position == position + 1:
                self._suspect = self._attempts.position
            suspects = self._suspect - position
            try:
                return await self._advance(max(suspects // 2, 1) if suspects > 0 else events_max, changes_max, self._dead_letters)
            except BatchFailedError as failed:
                self._suspect = failed.last.position
                if self._suspect == position + 1:
                    await self._write_dead_letter(failed, self._dead_letters)
                    return 1

    async def _advance(self, events_max: int, changes_max: int, dead_letters: DeadLetterTracker) -> int:
        changes, added = self._projection.new_changes(), StepDeadLetters()
        before = after = self.generation.position
        log_hash = self._log_hash
        last = None
        began_ns, traced = time.time_ns() if self._traces else 0, list[RecordedEvent]()
        while after - before < events_max and len(changes) < changes_max:
            events = await self._next_events(after, log_hash)
            del events[events_max - (after - before) :]
            if not events:
                break
            if self._traces:
                traced += [event for event in events if TRACEPARENT in event.metadata]
            last = events[-1]
            after, log_hash = last.position, last.hash
            try:
                with self._stopwatch.measured("folding"):
                    self._projection.fold(changes, dead_letters.sift(self._projection, events, added))
            # Catches every error: the function is pure, so the cause is the event or the code, and never a store.
            except Exception as error:
                raise BatchFailedError(last) from error
            if after == self._feed.head:
                break  # no more events are known; the next call of `advance` asks the feed for more
        if last:
            await self._write(last, added, changes)
            dead_letters.settle(added)
        if self._traces:
            self._traces.applied(self._projection.name, traced, began_ns)
        return after - before

    async def _write(self, last: RecordedEvent, added: StepDeadLetters, changes: Any) -> None:
        step = Step(self.generation.position, last.position, last.hash.hex(), added)
        try:
            with self._stopwatch.measured("writing"):
                if self._attempts.careful:
                    await self._sink.require_fits(self.generation, step, changes)
                applied = await self._sink.apply(self.generation, step, changes)
        except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, StoreUnavailable):
            self._size.failed()
            raise  # an outage of a store, or the batch takes it too long; no event is the cause
        except Exception as error:
            self._attempts.careful = True
            raise BatchFailedError(last) from error
        if not applied:
            raise OvertakenError
        self._size.taken()
        self._stopwatch.count(step.after - step.before)
        self.generation = msgspec.structs.replace(self.generation, position=last.position)
        self._log_hash = last.hash

    async def _write_dead_letter(self, failed: BatchFailedError, dead_letters: DeadLetterTracker) -> None:
        """Writes the failed event as a dead letter, if it has failed in all attempts.

        Raises:
            EventNotApplied: the event must be tried again first.
        """
        event, error = failed.last, failed.__cause__
        letter = self._attempts.failed(event, error if isinstance(error, Exception) else failed, len(dead_letters.letters))
        added = StepDeadLetters(letters=[letter])
        dead_letters.park(event, added)
        await self._write(event, added, self._projection.new_changes())
        dead_letters.settle(added)
        about = {"ledger_id": event.ledger_id, "projection": self._projection.name, "position": event.position}
        log.error("event put aside", **about, cause=letter.cause, streams=letter.streams)

    async def _next_events(self, after: int, log_hash: bytes) -> list[RecordedEvent]:
        """Returns the next events. If the next event cannot be read but this batch has events, returns none.

        So the events of this batch are written first, and the next call raises the error.
        """
        try:
            with self._stopwatch.measured("reading"):
                return await self._feed.next_events(after, log_hash, self)
        except LogChangedError:
            raise OvertakenError from None
        except (UnknownEvent, LogDamaged):
            if after == self.generation.position:
                raise
            return []
