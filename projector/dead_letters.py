"""What happens to an event that cannot be applied to a read model.

It is tried again, with growing pauses, a bounded number of times. Then it is put aside and its streams are parked: for this read
model nothing more of them is folded, while all others go on. So a document is never folded from a stream with a hole in it, and
what is put aside is a function of the log, of the letters and of the skips alone: `Parking.sift` tells it to who writes a read
model and to who verifies one. `shared.dead_letters` says how it is stored. An outage of a store is no such failure.
"""

import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.projections import Projection
from shared.dead_letters import NOTHING_ASIDE, Aside, Letter
from shared.errors import DaybookError, EventRefused
from shared.event_store import read_stream
from shared.events import NO_KEYS, ProjectionEventSkipped, RecordedEvent, UserErased, projection_stream, timestamp
from shared.logs import kind_of
from shared.read_models import COPY_MARK

ATTEMPTS_MAX: Final = 5
LETTERS_MAX: Final = 100
REFUSED: Final = "event {position} ("
"""How an error begins that names an event."""

_HERE: Final = str(Path(__file__).parents[1])
_LIBRARIES: Final = "site-packages"
_ALSO_OF_OTHERS: Final = "transfer-"
"""What happens in such a stream happens in those of its accounts too: parking these is enough, and there are far fewer."""


class PutAside(msgspec.Struct):
    """What one step puts aside: new letters, streams that get parked, how many events behind them, and what was skipped."""

    letters: list[Letter] = msgspec.field(default_factory=list)
    parked: dict[str, int] = msgspec.field(default_factory=dict)
    put_aside: int = 0
    skipped: list[int] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.letters or self.parked or self.put_aside or self.skipped)


class Parking:
    """What one generation leaves out. `letters` and `skips` are positions, `parked` names streams."""

    def __init__(self, letters: Iterable[int] = (), parked: Iterable[str] = (), skips: frozenset[int] = frozenset()) -> None:
        self.letters = set(letters)
        self.parked = set(parked)
        self.skips = skips

    def sift(self, projection: Projection[Any], page: list[RecordedEvent], aside: PutAside) -> list[RecordedEvent]:
        """The events to fold; those that are to be put aside are noted in `aside`, which `settle` makes part of this."""
        if not (self.parked or self.letters or self.skips or aside.parked):
            return page
        return [recorded for recorded in page if self._is_folded(projection, recorded, aside)]

    def _is_folded(self, projection: Projection[Any], recorded: RecordedEvent, aside: PutAside) -> bool:
        if recorded.position in self.skips:
            aside.skipped.append(recorded.position)
            return False
        if type(recorded.event) not in projection.handles:
            return False
        streams = _own_streams(recorded)
        is_letter = recorded.position in self.letters
        if not is_letter and self.parked.isdisjoint(streams) and aside.parked.keys().isdisjoint(streams):
            return True
        # What is known of an erased person has to go, whatever else is put aside.
        if not is_letter and projection.model.personal and type(recorded.event) is UserErased:
            return True
        aside.put_aside += not is_letter
        self.park(recorded, aside)
        return False

    def park(self, recorded: RecordedEvent, aside: PutAside) -> None:
        """The streams of the event that are not parked yet."""
        for stream_id in _own_streams(recorded):
            if stream_id not in self.parked:
                aside.parked.setdefault(stream_id, recorded.position)

    def settle(self, aside: PutAside) -> None:
        """What the step put aside is written."""
        self.letters.update(letter.position for letter in aside.letters)
        self.parked.update(aside.parked)


class LeftOut:
    """The same for any events and not all of them in order, of a generation whose parked streams are known."""

    def __init__(
        self, aside: Aside = NOTHING_ASIDE, letters: Iterable[Letter] = (), parked: Mapping[str, int] | None = None
    ) -> None:
        self.aside = aside
        self._letters = {letter.position for letter in letters}
        self._parked = parked or {}

    @property
    def events(self) -> int:
        return self.aside.letters + self.aside.put_aside + len(self.aside.skipped)

    def sift(self, projection: Projection[Any], events: Iterable[RecordedEvent]) -> Iterable[RecordedEvent]:
        """The events that were folded."""
        if not self.events:
            return events
        return [recorded for recorded in events if self._is_folded(projection, recorded)]

    def _is_folded(self, projection: Projection[Any], recorded: RecordedEvent) -> bool:
        if recorded.position in self.aside.skipped or recorded.position in self._letters:
            return False
        if projection.model.personal and type(recorded.event) is UserErased:
            return True
        return all(self._parked.get(stream_id, recorded.position + 1) > recorded.position for stream_id in _own_streams(recorded))


def _own_streams(recorded: RecordedEvent) -> list[str]:
    return [stream_id for stream_id in recorded.event.streams() if not stream_id.startswith(_ALSO_OF_OTHERS)]


class Attempts:
    """How often a process has tried what cannot be applied to one read model.

    A cause that has outlasted all attempts once is not waited for again: a mistake in the code that hits a thousand events
    would hold up all others for a thousand times the pauses.
    """

    def __init__(self, attempts_max: int = ATTEMPTS_MAX, letters_max: int = LETTERS_MAX, *, parks: bool = True) -> None:
        """`parks`: what cannot be applied is put aside in the end; else it is an error for good."""
        self.attempts_max = attempts_max
        self.letters_max = letters_max
        self.parks = parks
        self.position = 0
        """Of the event that was refused last; the next attempt is at it alone."""
        self.careful = False
        """The store has refused something: ask it beforehand, where a failure could not be undone."""
        self._count = 0
        self._known: set[str] = set()

    def refused(self, recorded: RecordedEvent, error: Exception, letters: int) -> Letter:
        """The letter for an event that shall be put aside now.

        Raises:
            EventRefused: it is to be tried again, or nothing more may be put aside.
        """
        self._count = self._count + 1 if recorded.position == self.position else 1
        self.position = recorded.position
        cause, kind = cause_of(error), type(recorded.event).__name__
        is_tried = self._count >= self.attempts_max or f"{kind} {cause}" in self._known
        is_full = letters >= self.letters_max
        if not is_tried or is_full or not self.parks:
            full = f"; {letters} events are put aside already, and more are not" if is_full and self.parks else ""
            which = REFUSED.format(position=recorded.position)
            what = f"{which}{kind} {recorded.event_id}) cannot be applied: {cause}; tried {self._count} times{full}"
            raise EventRefused(what, position=recorded.position, is_final=is_tried) from error
        self._known.add(f"{kind} {cause}")
        now = timestamp(datetime.now(UTC))
        streams = list(recorded.event.streams())
        return Letter(recorded.position, recorded.event_id, kind, streams, cause, self._count, now)


def cause_of(error: Exception) -> str:
    """What kind of error, and the last place in our code that it came through. What it says is told only if it is ours."""
    if isinstance(error, DaybookError):
        return kind_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_HERE) and _LIBRARIES not in frame.filename]
    if not frames:
        return kind_of(error)
    place = (ours or frames)[-1]
    return f"{kind_of(error)} in {place.name}, {Path(place.filename).name} line {place.lineno}"


async def read_skips(engine: AsyncEngine, ledger_id: str, name: str) -> frozenset[int]:
    """The positions that operators had left out of a read model."""
    stream_id, version = projection_stream(name.partition(COPY_MARK)[0]), 0
    skips: set[int] = set()
    async with engine.connect() as connection:
        while page := await read_stream(connection, ledger_id, stream_id, version):
            version += len(page)
            events = [stored.decoded(NO_KEYS.keys).event for stored in page]
            skips.update(event.position for event in events if type(event) is ProjectionEventSkipped)
    return frozenset(skips)
