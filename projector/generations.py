"""How a generation of a read model comes to be, goes through the log, becomes the live one, and goes.

Any number of workers and replays may do this at once for the same read model. They share no lock: each looks at the pointer and
the checkpoint, acts on what it saw, and the sink refuses the act if another was faster. Whoever is refused looks again. A
generation that is being built belongs to nobody, so whoever comes next resumes it.
"""

import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from pymongo.errors import PyMongoError

from projector.comparison import Comparing, Comparison
from projector.dead_letters import Attempts, Parking, PutAside
from projector.feed import Feed, LogChangedError
from projector.projections import Projection
from projector.sinks import Checkpoint, Pointer, Sink, Step
from projector.stopwatch import Stopwatch
from shared.connections import STORE_ERRORS
from shared.errors import GenerationRefused, LogDamaged, NothingKept, UnknownEvent
from shared.events import RecordedEvent
from shared.read_models import Generation

log = structlog.get_logger()

CHANGES_MAX: Final = 10_000
"""Documents (or commands for Redis) in one batch: what bounds memory, whatever the number of events."""

BUILD_EVENTS_MAX: Final = 100_000
BUILD_CHANGES_MAX: Final = 40_000
"""Of a generation that nobody reads yet. Where few documents take many events, few writes take them all."""

OVERTAKEN_SECONDS: Final = (0.005, 0.5)
"""How long to wait after another was faster: at first, and at most."""


SHOWN_MAX: Final = 10
"""Differences that are told."""

_PERSONAL: Final = (
    "{name} holds personal data, so no generation is kept that an erasure would not reach: there is nothing to roll back to. "
    "Run `daybook projections rebuild {name}`, with the code of an earlier version if that is what you want back"
)

Check = Callable[[Generation, Comparison], Awaitable[None]]
"""More that is to be looked at before a generation becomes live; it raises `GenerationRefused`."""


class OvertakenError(Exception):
    """Somebody else moved the generation on, or took it away: look again."""


class PausedError(Exception):
    """Somebody paused the projection: nothing moves until it is resumed."""


class Opened(msgspec.Struct, frozen=True):
    """A generation that can go on from its position. `live`: readers see it; else it has to be built first."""

    generation: Generation
    log_hash: bytes
    live: bool
    skips: frozenset[int] = frozenset()
    """Positions that operators had left out."""
    has_letters: bool = False


class RefusedError(Exception):
    """Something in a batch cannot be folded or written; `up_to` is where the batch would have ended."""

    def __init__(self, up_to: RecordedEvent) -> None:
        super().__init__()
        self.up_to = up_to


class Generations:
    """The generations of one read model of one ledger."""

    def __init__(self, projection: Projection[Any], sink: Sink[Any], feed: Feed, attempts: Attempts | None = None) -> None:
        self.projection = projection
        self.sink = sink
        self.feed = feed
        self.attempts = attempts or Attempts()
        self.stopwatch = Stopwatch()
        self._model = projection.model

    async def read_pointer(self) -> Pointer:
        return await self.sink.read_pointer(self._model, self.feed.ledger_id)

    def copy(self, opened: Opened) -> "Copy":
        """Ready to go on from where the generation is."""
        return Copy(self.projection, self.sink, self.feed, opened, self.attempts, self.stopwatch)

    async def require_not_paused(self) -> None:
        """Raises:
        PausedError: its argument says since when.
        """
        if since := (await self.sink.read_notes(self._model, self.feed.ledger_id)).get("paused"):
            raise PausedError(since)

    async def open(self) -> Opened:
        """The generation to keep up with the log.

        That is the live one, if it is there and of this log and this code. Otherwise it is the one that is being built, or a new
        one. Readers keep a live generation of an older code meanwhile. One that is not of this log they lose at once.

        Raises:
            PausedError: and it is of this log, if it is there.
        """
        while True:
            pointer = await self.read_pointer()
            live, flaw = await self._examine(pointer.live, live=True)
            if live and not flaw:
                await self.require_not_paused()
                return live
            if pointer.live is not None and not live:
                log.warning("read model lost", ledger_id=self.feed.ledger_id, projection=self._model.name, cause=flaw)
                pointer = await self._point(pointer, msgspec.structs.replace(pointer, live=None))
            await self.require_not_paused()
            building, flaw = await self._examine(pointer.building, live=False)
            if building and not flaw:
                return building
            await self._begin(pointer)

    async def open_new(self) -> Opened:
        """The generation that is being built beside the live one: one that was left unfinished, or a new one.

        Raises:
            PausedError: nothing may be built.
        """
        while True:
            await self.require_not_paused()
            pointer = await self.read_pointer()
            building, flaw = await self._examine(pointer.building, live=False)
            # One with a lower number than the live one is on its way back from a rollback that was interrupted.
            if building and not flaw and (pointer.live or 0) < building.generation.number and self._may_go_on(building):
                return building
            await self._begin(pointer)

    def _may_go_on(self, building: Opened) -> bool:
        """Whoever must not put anything aside cannot go on where others have."""
        return self.attempts.parks or not building.has_letters

    async def _begin(self, pointer: Pointer) -> None:
        """A number that was never used, so that nothing is left under it from before."""
        used = await self.sink.numbers(self._model, self.feed.ledger_id)
        number = max((*used, *(number or 0 for number in pointer.numbers))) + 1
        await self.sink.prepare(Generation(self._model, self.feed.ledger_id, number))
        await self._point(pointer, msgspec.structs.replace(pointer, building=number))

    async def _point(self, before: Pointer, after: Pointer) -> Pointer:
        if not await self.sink.move_pointer(self._model, self.feed.ledger_id, before, after):
            raise OvertakenError
        return after

    async def _examine(self, number: int | None, *, live: bool) -> tuple[Opened | None, str]:
        """The generation, unless it is lost, and what is wrong with it, if anything is.

        The head is asked for after the checkpoint: the log only grows, so a checkpoint beyond it is of another log.
        """
        if number is None:
            return None, "there is none"
        generation = Generation(self._model, self.feed.ledger_id, number)
        checkpoint = await self.sink.read_checkpoint(generation)
        if checkpoint is None:
            return None, "its checkpoint or its data are gone"
        if checkpoint.position > await self.feed.refresh():
            return None, f"it is at {checkpoint.position}, and the log ends at {self.feed.head}"
        if not await self._is_of_this_log(checkpoint):
            return None, f"the log was another one up to {checkpoint.position}"
        generation = msgspec.structs.replace(generation, position=checkpoint.position)
        skips = await self.feed.skips(self._model.name)
        opened = Opened(generation, bytes.fromhex(checkpoint.log_hash), live, skips, checkpoint.aside.letters > 0)
        return opened, self._flaw(checkpoint, skips)

    def _flaw(self, checkpoint: Checkpoint, skips: frozenset[int]) -> str:
        """Of one that is of this log."""
        if checkpoint.model_version != self._model.version:
            return f"it was made by version {checkpoint.model_version} of its projection"
        if checkpoint.aside.skipped != {position for position in skips if position <= checkpoint.position}:
            return "it was made before an event was skipped"
        return ""

    async def _is_of_this_log(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.position == 0:
            return True
        return await self.feed.hash_at(checkpoint.position) == checkpoint.log_hash

    async def finish(self, copy: "Copy", check: Check | None = None) -> Comparison | None:
        """Takes a built generation to the head and makes it the live one; what it replaces is kept, what that replaced is not.

        Before that it is compared with the log and with what it replaces, and `check` may look at it as well. None where somebody
        else has done all this.

        Raises:
            GenerationRefused: it is not what the log says. It is gone then, and everything else as it was.
        """
        await self.sink.index(copy.generation)
        compared = None
        while True:
            while await copy.advance_far():
                pass
            pointer = await self.read_pointer()
            if pointer.live == copy.generation.number:
                break
            if pointer.building != copy.generation.number:
                raise OvertakenError
            compared = compared or await self._compare(copy, pointer, check)
            if await self.sink.switch(copy.generation, pointer):
                log.info("read model switched", ledger_id=self.feed.ledger_id, projection=self._model.name, before=pointer.live)
                break
        await self.prune()
        return compared

    async def _compare(self, copy: "Copy", pointer: Pointer, check: Check | None) -> Comparison:
        try:
            found = await Comparing(self.projection, self.sink, self.feed, copy.generation).compare(pointer.live)
            if check:
                await check(copy.generation, found)
        except GenerationRefused:
            await self._give_up(pointer)
            raise
        about = {"ledger_id": self.feed.ledger_id, "projection": self._model.name, "generation": copy.generation.number}
        log.info("read model compared", **about, count=found.count, sampled=found.sampled)
        if found.before and found.before.differing and found.before.version == self._model.version:
            log.warning("the read model before was wrong", **about, differing=found.before.differing[:SHOWN_MAX])
        return found

    async def _give_up(self, pointer: Pointer) -> None:
        """Whoever builds next begins anew; what is kept for a rollback stays."""
        await self._point(pointer, msgspec.structs.replace(pointer, building=None))
        await self.prune()

    async def roll_back(self) -> Generation:
        """Takes the generation that was live before to the head, beside the live one, and makes it the live one again.

        So no reader goes back in time. What was live is kept: rolling back twice changes nothing.

        Raises:
            PausedError: nothing may move.
            NothingKept: there is none, or not one that can go on.
        """
        await self.require_not_paused()
        if self._model.personal:
            raise NothingKept(_PERSONAL.format(name=self._model.name))
        pointer = await self.read_pointer()
        kept, flaw = await self._examine(pointer.previous, live=False)
        if kept is None or flaw:
            hint = ": deploy the code of that version and roll back with it" if "version" in flaw else ""
            raise NothingKept(f"{self._model.name} has no generation to go back to ({flaw}){hint}")
        await self.sink.reopen(kept.generation)
        await self._point(pointer, msgspec.structs.replace(pointer, building=kept.generation.number))
        await self.finish(self.copy(kept))
        return kept.generation

    async def drop_kept(self) -> set[int]:
        """Also the generation that is kept for a rollback. The numbers of what was dropped."""
        pointer = await self.read_pointer()
        if pointer.previous is not None and pointer.previous != pointer.building:
            await self._point(pointer, msgspec.structs.replace(pointer, previous=None))
        return await self.prune()

    async def prune(self) -> set[int]:
        """Drops every generation that no pointer names; their numbers."""
        numbers = await self.sink.numbers(self._model, self.feed.ledger_id)
        # Asked for last: a generation that was begun meanwhile is not among the numbers.
        pointer = await self.read_pointer()
        dropped = numbers - pointer.numbers
        for number in sorted(dropped):
            await self.sink.drop(Generation(self._model, self.feed.ledger_id, number))
        return {*dropped}


class Copy:
    """One generation on its way through the log."""

    def __init__(
        self,
        projection: Projection[Any],
        sink: Sink[Any],
        feed: Feed,
        opened: Opened,
        attempts: Attempts | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.generation = opened.generation
        self._stopwatch = stopwatch or Stopwatch()
        self._log_hash = opened.log_hash
        self._projection = projection
        self._sink = sink
        self._feed = feed
        self._attempts = attempts or Attempts()
        self._parking = None if opened.has_letters else Parking(skips=opened.skips)
        self._skips = opened.skips
        self._suspect = 0
        """Up to here stands an event that cannot be applied."""

    @property
    def letters(self) -> int:
        """How many events it has put aside because they could not be applied, as far as it knows."""
        return len(self._parking.letters) if self._parking else 0

    async def advance_far(self, events_max: int = BUILD_EVENTS_MAX) -> int:
        """The same for a generation that nobody reads yet, in batches that write each document as rarely as memory allows."""
        changes_max = CHANGES_MAX if self._projection.write_once else BUILD_CHANGES_MAX
        return await self.advance(min(events_max, BUILD_EVENTS_MAX), changes_max)

    async def advance(self, events_max: int, changes_max: int = CHANGES_MAX) -> int:
        """Folds a batch and writes it. The number of its events; 0 at the end of the log.

        A batch that is refused is halved until the event is alone that cannot be applied, so that all before it are in.

        Raises:
            OvertakenError: somebody else is writing this generation, or it is no longer to be written.
            UnknownEvent, LogDamaged: all events before this one are in.
            EventRefused: the next event is to be tried again.
        """
        if self._parking is None:
            letters = await self._sink.read_letters(self.generation)
            parked = await self._sink.read_parked(self.generation)
            self._parking = Parking((letter.position for letter in letters), parked, self._skips)
        while True:
            position = self.generation.position
            if self._attempts.position == position + 1:
                self._suspect = self._attempts.position
            suspects = self._suspect - position
            try:
                return await self._advance(max(suspects // 2, 1) if suspects > 0 else events_max, changes_max, self._parking)
            except RefusedError as refused:
                self._suspect = refused.up_to.position
                if self._suspect == position + 1:
                    await self._put_aside(refused, self._parking)
                    return 1

    async def _advance(self, events_max: int, changes_max: int, parking: Parking) -> int:
        changes, aside = self._projection.new_changes(), PutAside()
        before = after = self.generation.position
        log_hash = self._log_hash
        last = None
        while after - before < events_max and len(changes) < changes_max:
            page = await self._next_page(after, log_hash)
            del page[events_max - (after - before) :]
            if not page:
                break
            last = page[-1]
            after, log_hash = last.position, last.hash
            try:
                with self._stopwatch.measured("folding"):
                    self._projection.fold(changes, parking.sift(self._projection, page, aside))
            # Whatever it is: the function is pure, so it is the event's or the code's fault.
            except Exception as error:
                raise RefusedError(last) from error
            if after == self._feed.head:
                break  # as far as is known; whether there is more is asked when this is written
        if last:
            await self._write(last, aside, changes)
            parking.settle(aside)
        return after - before

    async def _write(self, last: RecordedEvent, aside: PutAside, changes: Any) -> None:
        step = Step(self.generation.position, last.position, last.hash.hex(), aside)
        try:
            with self._stopwatch.measured("writing"):
                if self._attempts.careful:
                    await self._sink.check(self.generation, step, changes)
                applied = await self._sink.apply(self.generation, step, changes)
        except (*STORE_ERRORS, PyMongoError):
            raise  # an outage is nobody's fault, and ends
        except Exception as error:
            self._attempts.careful = True
            raise RefusedError(last) from error
        if not applied:
            raise OvertakenError
        self._stopwatch.count(step.after - step.before)
        self.generation = msgspec.structs.replace(self.generation, position=last.position)
        self._log_hash = last.hash

    async def _put_aside(self, refused: RefusedError, parking: Parking) -> None:
        """Raises:
        EventRefused: not yet.
        """
        event, error = refused.up_to, refused.__cause__
        letter = self._attempts.refused(event, error if isinstance(error, Exception) else refused, len(parking.letters))
        aside = PutAside(letters=[letter])
        parking.park(event, aside)
        await self._write(event, aside, self._projection.new_changes())
        parking.settle(aside)
        about = {"ledger_id": event.ledger_id, "projection": self._projection.name, "position": event.position}
        log.error("event put aside", **about, cause=letter.cause, streams=letter.streams)

    async def _next_page(self, after: int, log_hash: bytes) -> list[RecordedEvent]:
        """What was folded already is written before an error is raised."""
        try:
            with self._stopwatch.measured("reading"):
                return await self._feed.page(after, log_hash, self)
        except LogChangedError:
            raise OvertakenError from None
        except (UnknownEvent, LogDamaged):
            if after == self.generation.position:
                raise
            return []


def pause(attempts: int, bounds: tuple[float, float]) -> float:
    """Seconds to wait: doubles with each attempt; a little random, so that two workers do not keep step."""
    shortest, longest = bounds
    return min(math.ldexp(shortest, min(attempts - 1, 20)), longest) * random.uniform(0.5, 1.0)  # noqa: S311 # not a secret
