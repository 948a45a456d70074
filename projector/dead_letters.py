"""Decides what happens to an event that cannot be applied to a read model.

The event is tried again a bounded number of times, with growing pauses. Then it becomes a dead letter and its streams are parked:
this read model folds no more of their events, and continues with all other streams. So no document is folded from a stream that
has a gap. The events that a generation leaves out follow from the log, its dead letters and the skips, and from nothing else.
Therefore the projector and `daybook verify` compute the same ones. An outage of a store makes no dead letters.
`shared.read_models.dead_letters` describes how dead letters are stored.
"""

import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from projector.projections.projection import Projection
from projector.sinks.protocols import StepDeadLetters
from shared.errors import DaybookError, EventNotApplied
from shared.log.encoding import NO_KEYS
from shared.log.events import RecordedEvent
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.read import read_stream
from shared.log.streams import projection_stream
from shared.log.user_events import UserErased
from shared.logs import kind_of
from shared.read_models.dead_letters import NO_DEAD_LETTERS, DeadLetter, DeadLetterSummary
from shared.read_models.shapes import COPY_MARK
from shared.timestamps import timestamp

APPLY_ATTEMPTS_MAX: Final = 5
LETTERS_MAX: Final = 100

_SOURCES: Final = str(Path(__file__).parents[1])
_LIBRARIES: Final = "site-packages"
_NEVER_PARKED: Final = "transfer-"
"""The prefix of streams that are never parked. Every event in a transfer's stream is also in the stream of an account, so parking
the account streams is enough. There are far fewer account streams."""


class DeadLetterTracker:
    """Decides which events a generation leaves out while the events are folded in the order of the log.

    `letters` and `skips` are sets of positions. `parked` is a set of stream ids.
    """

    def __init__(self, letters: Iterable[int] = (), parked: Iterable[str] = (), skips: frozenset[int] = frozenset()) -> None:
        self.letters = set(letters)
        self.parked = set(parked)
        self.skips = skips

    def sift(self, projection: Projection[Any], events: list[RecordedEvent], added: StepDeadLetters) -> list[RecordedEvent]:
        """Returns the events to fold, and records in `added` what is left out. Call `settle` after `added` is written."""
        if not (self.parked or self.letters or self.skips or added.parked):
            return events
        return [recorded for recorded in events if self._is_folded(projection, recorded, added)]

    def _is_folded(self, projection: Projection[Any], recorded: RecordedEvent, added: StepDeadLetters) -> bool:
        if recorded.position in self.skips:
            added.skipped.append(recorded.position)
            return False
        if type(recorded.event) not in projection.handles:
            return False
        streams = _parkable_streams(recorded)
        is_letter = recorded.position in self.letters
        if not is_letter and self.parked.isdisjoint(streams) and added.parked.keys().isdisjoint(streams):
            return True
        # An erasure must remove a person's data, even if the person's stream is parked.
        if not is_letter and projection.model.personal and type(recorded.event) is UserErased:
            return True
        added.put_aside += not is_letter
        self.park(recorded, added)
        return False

    def park(self, recorded: RecordedEvent, added: StepDeadLetters) -> None:
        """Adds to `added` the streams of an event that are not parked yet."""
        for stream_id in _parkable_streams(recorded):
            if stream_id not in self.parked:
                added.parked.setdefault(stream_id, recorded.position)

    def settle(self, added: StepDeadLetters) -> None:
        """Remembers what a step added. Call this after the step is written."""
        self.letters.update(letter.position for letter in added.letters)
        self.parked.update(added.parked)


class DeadLetterFilter:
    """Decides which events a generation left out, for events in any order. Its parked streams must be known."""

    def __init__(
        self,
        aside: DeadLetterSummary = NO_DEAD_LETTERS,
        letters: Iterable[DeadLetter] = (),
        parked: Mapping[str, int] | None = None,
    ) -> None:
        self.aside = aside
        self._letters = {letter.position for letter in letters}
        self._parked = parked or {}

    @property
    def events(self) -> int:
        """The number of events that the generation leaves out."""
        return self.aside.letters + self.aside.put_aside + len(self.aside.skipped)

    def sift(self, projection: Projection[Any], events: Iterable[RecordedEvent]) -> Iterable[RecordedEvent]:
        """Returns the events that the generation has folded."""
        if not self.events:
            return events
        return [recorded for recorded in events if self._is_folded(projection, recorded)]

    def _is_folded(self, projection: Projection[Any], recorded: RecordedEvent) -> bool:
        if recorded.position in self.aside.skipped or recorded.position in self._letters:
            return False
        if projection.model.personal and type(recorded.event) is UserErased:
            return True
        streams = _parkable_streams(recorded)
        return all(self._parked.get(stream_id, recorded.position + 1) > recorded.position for stream_id in streams)


def _parkable_streams(recorded: RecordedEvent) -> list[str]:
    return [stream_id for stream_id in recorded.event.streams() if not stream_id.startswith(_NEVER_PARKED)]


class ApplyAttempts:
    """Counts the attempts of this process to apply an event to a read model, and decides when the event becomes a dead letter.

    After one event has failed in all attempts, other events that fail with the same cause become dead letters at their first
    failure. Otherwise a bug that affects a thousand events would delay all other events by a thousand series of pauses.
    """

    def __init__(
        self, attempts_max: int = APPLY_ATTEMPTS_MAX, letters_max: int = LETTERS_MAX, *, makes_dead_letters: bool = True
    ) -> None:
        """If `makes_dead_letters` is False, an event that fails in all attempts raises an error and makes no dead letter."""
        self.attempts_max = attempts_max
        self.letters_max = letters_max
        self.makes_dead_letters = makes_dead_letters
        self.position = 0
        """The position of the event that failed last. The next attempt applies this event in a batch of its own."""
        self.careful = False
        """True after the store failed to apply a batch. Before each later batch, `require_fits` then looks for an event whose
        changes are too large for the store, so that only that event becomes a dead letter."""
        self.tries = 0
        """How often the event at `position` was tried without success."""
        self._known: set[str] = set()

    def failed(self, recorded: RecordedEvent, error: Exception, letters: int) -> DeadLetter:
        """Counts a failed attempt. Returns the dead letter to write if it was the last attempt.

        `letters` is the number of dead letters that the generation has already.

        Raises:
            EventNotApplied: the event must be tried again, or the generation may have no more dead letters.
        """
        self.tries = self.tries + 1 if recorded.position == self.position else 1
        self.position = recorded.position
        cause, kind = cause_of(error), type(recorded.event).__name__
        is_tried = self.tries >= self.attempts_max or f"{kind} {cause}" in self._known
        is_full = letters >= self.letters_max
        if not is_tried or is_full or not self.makes_dead_letters:
            full = f"; no more dead letters are allowed (there are {letters})" if is_full and self.makes_dead_letters else ""
            event = f"event {recorded.position} ({kind} {recorded.event_id})"
            what = f"{event} cannot be applied: {cause}; tried {self.tries} times{full}"
            raise EventNotApplied(what, position=recorded.position, is_final=is_tried) from error
        self._known.add(f"{kind} {cause}")
        now = timestamp(datetime.now(UTC))
        streams = list(recorded.event.streams())
        return DeadLetter(recorded.position, recorded.event_id, kind, streams, cause, self.tries, now)


def cause_of(error: Exception) -> str:
    """Returns the type of an error and the last line of Daybook's code that it passed through.

    The error's message is left out, because it may contain personal data.
    """
    if isinstance(error, DaybookError):
        return kind_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_SOURCES) and _LIBRARIES not in frame.filename]
    if not frames:
        return kind_of(error)
    place = (ours or frames)[-1]
    return f"{kind_of(error)} in {place.name}, {Path(place.filename).name} line {place.lineno}"


async def read_skips(engine: AsyncEngine, ledger_id: str, name: str) -> frozenset[int]:
    """Returns the positions that operators decided to skip in a read model."""
    stream_id, version = projection_stream(name.partition(COPY_MARK)[0]), 0
    skips: set[int] = set()
    async with engine.connect() as connection:
        while events := await read_stream(connection, ledger_id, stream_id, version):
            version += len(events)
            decoded = [stored.decoded(NO_KEYS.keys).event for stored in events]
            skips.update(event.position for event in decoded if type(event) is ProjectionEventSkipped)
    return frozenset(skips)
