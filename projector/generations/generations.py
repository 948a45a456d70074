"""Creates generations of a read model, makes them live, rolls back, and drops them.

Any number of workers and rebuilds may do this for the same read model at the same time, without a lock. Each reads the pointer
and the checkpoint first. If another worker was faster, the sink changes nothing, and the slower worker reads both again. A
generation that is being built has no owner: any worker can continue it.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from projector.dead_letters import ApplyAttempts
from projector.feed import Feed
from projector.generations.batch_size import BatchSize
from projector.generations.build import GenerationBuild, OpenedGeneration, OvertakenError
from projector.generations.comparison import Comparison, GenerationComparer
from projector.projections.projection import Projection
from projector.sinks.protocols import Sink
from projector.stopwatch import Stopwatch
from shared.errors import GenerationMismatch, NothingKept
from shared.read_models.generations import Generation
from shared.read_models.stored_state import Checkpoint, LogPlace, Pointer
from shared.tracing import Traces

log = structlog.get_logger()

OVERTAKEN_SECONDS: Final = (0.005, 0.5)
"""The wait in seconds after another worker was faster for the first time, and the longest wait."""

SHOWN_MAX: Final = 10
"""The most differences that are shown."""

_PERSONAL_NOT_KEPT: Final = (
    "{name} has no generation to roll back to: it holds personal data, so old generations are deleted, because an erasure would "
    "not reach them. Run `daybook projections rebuild {name}`. To get the earlier version back, run it with the earlier code"
)

GenerationCheck = Callable[[Generation, Comparison], Awaitable[None]]
"""An additional check of a generation before it becomes live. It raises `GenerationMismatch` if the generation is wrong."""


class PausedError(Exception):
    """An operator paused the projection, so it takes no events until it is resumed. The argument is the time of the pause."""


class Flaw(msgspec.Struct, frozen=True):
    """The reason why a generation can no longer follow the log."""

    cause: str
    is_other_version: bool = False
    """True if the generation has another model version. Code with that version can continue it."""


class Generations:
    """The generations of one read model of one ledger."""

    def __init__(
        self,
        projection: Projection[Any],
        sink: Sink[Any],
        feed: Feed,
        attempts: ApplyAttempts | None = None,
        traces: Traces | None = None,
    ) -> None:
        """With `traces`, what is applied to the live generation has spans."""
        self.projection = projection
        self.sink = sink
        self.feed = feed
        self.attempts = attempts or ApplyAttempts()
        self._batch_size = BatchSize()
        self.stopwatch = Stopwatch()
        self._traces = traces
        self._model = projection.model

    async def read_pointer(self) -> Pointer:
        return await self.sink.read_pointer(self._model, self.feed.ledger_id)

    async def require_not_paused(self) -> None:
        """Raises an error if the projection is paused.

        Raises:
            PausedError: the projection is paused. The argument is the time of the pause.
        """
        if since := (await self.sink.read_notes(self._model, self.feed.ledger_id)).get("paused"):
            raise PausedError(since)

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> OpenedGeneration:
        """Returns the generation that a worker has to keep up with the log.

        This is the live one, if it exists, has this model version and was made from this log. Otherwise it is the one that is
        being built, or a new one; until it is complete, readers keep a live generation of another model version. A live
        generation that was made from another log is removed from the pointer immediately.

        Raises:
            PausedError: the projection is paused. A live generation from another log was removed from the pointer before.
        """
        while True:
            pointer = await self.read_pointer()
            live, flaw = await self._examine(pointer.live, live=True)
            if live and not flaw:
                await self.require_not_paused()
                return live
            if pointer.live is not None and not live:
                cause = flaw.cause if flaw else ""
                log.warning("read model lost", ledger_id=self.feed.ledger_id, projection=self._model.name, cause=cause)
                pointer = await self._point(pointer, msgspec.structs.replace(pointer, live=None))
            await self.require_not_paused()
            building, flaw = await self._examine(pointer.building, live=False)
            if building and not flaw:
                return building
            await self._begin(pointer)

    async def open_new(self) -> OpenedGeneration:
        """Returns the generation that is being built beside the live one, or begins a new one.

        An interrupted rebuild is continued in this way.

        Raises:
            PausedError: the projection is paused.
        """
        while True:
            await self.require_not_paused()
            pointer = await self.read_pointer()
            building, flaw = await self._examine(pointer.building, live=False)
            # If the number is lower than the live one's, an interrupted rollback has left this generation in the pointer.
            if building and not flaw and (pointer.live or 0) < building.generation.number and self._may_go_on(building):
                return building
            await self._begin(pointer)

    def resume(self, opened: OpenedGeneration) -> GenerationBuild:
        """Returns a `GenerationBuild` that applies the events after the generation's position."""
        traces = self._traces if opened.live else None
        return GenerationBuild(
            *(self.projection, self.sink, self.feed, opened),
            attempts=self.attempts,
            stopwatch=self.stopwatch,
            traces=traces,
            size=self._batch_size,
        )

    def _may_go_on(self, building: OpenedGeneration) -> bool:
        """Returns False if this rebuild must make no dead letters but the generation has some already."""
        return self.attempts.makes_dead_letters or not building.has_letters

    async def _begin(self, pointer: Pointer) -> None:
        """Creates an empty generation, and names it in the pointer as being built. Its number is higher than all used ones."""
        used = await self.sink.numbers(self._model, self.feed.ledger_id)
        number = max((*used, *(number or 0 for number in pointer.numbers))) + 1
        await self.sink.prepare(Generation(self._model, self.feed.ledger_id, number))
        await self._point(pointer, msgspec.structs.replace(pointer, building=number))

    async def _point(self, before: Pointer, after: Pointer) -> Pointer:
        if not await self.sink.move_pointer(self._model, self.feed.ledger_id, before, after):
            raise OvertakenError
        return after

    async def _examine(self, number: int | None, *, live: bool) -> tuple[OpenedGeneration | None, Flaw | None]:
        """Returns the generation, or None if it is lost, and its flaw, or None if it has none.

        The head is read after the checkpoint. The log only grows, so a checkpoint beyond the head was made from another log.
        """
        if number is None:
            return None, Flaw("there is none")
        generation = Generation(self._model, self.feed.ledger_id, number)
        if lost := await self.sink.find_loss(generation):
            return None, Flaw(f"the store has lost its key {lost!r}")
        checkpoint = await self.sink.read_checkpoint(generation)
        if checkpoint is None:
            return None, Flaw("its checkpoint or its data are gone")
        if checkpoint.position > await self.feed.refresh():
            return None, Flaw(f"it is at {checkpoint.position}, and the log ends at {self.feed.head}")
        if not await self._is_of_this_log(checkpoint):
            return None, Flaw(f"the log was another one up to {checkpoint.position}")
        if checkpoint.ahead and not await self._has(checkpoint.ahead):
            return None, Flaw(f"it may hold data of another log up to {checkpoint.ahead.position}")
        generation = msgspec.structs.replace(generation, position=checkpoint.position)
        skips = await self.feed.skips(self._model.name)
        log_hash, has_letters = bytes.fromhex(checkpoint.log_hash), checkpoint.aside.letters > 0
        return OpenedGeneration(generation, log_hash, live, skips, has_letters), self._flaw(checkpoint, skips)

    def _flaw(self, checkpoint: Checkpoint, skips: frozenset[int]) -> Flaw | None:
        """Returns the flaw of a generation that was made from this log, or None."""
        if checkpoint.model_version != self._model.version:
            return Flaw(f"it has model version {checkpoint.model_version}", is_other_version=True)
        if checkpoint.aside.skipped != {position for position in skips if position <= checkpoint.position}:
            return Flaw("it was made before an event was skipped")
        return None

    async def _is_of_this_log(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.position == 0 or await self._has(LogPlace(checkpoint.position, checkpoint.log_hash))

    async def _has(self, place: LogPlace) -> bool:
        return place.position <= self.feed.head and await self.feed.hash_at(place.position) == place.log_hash

    # ── switching ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def finish(self, build: GenerationBuild, check: GenerationCheck | None = None) -> Comparison | None:
        """Does the same as `make_live`, and drops the generation that was kept before."""
        compared = await self.make_live(build, check)
        await self.prune()
        return compared

    async def make_live(self, build: GenerationBuild, check: GenerationCheck | None = None) -> Comparison | None:
        """Builds a generation up to the head, compares it with the log and with the live one, and makes it live.

        The old live generation is kept for a rollback. Call `prune` afterwards. `check` may examine the new generation before
        the switch. Returns the comparison, or None if another worker has made the generation live.

        Raises:
            GenerationMismatch: the generation does not match the log. It is dropped, and nothing else changes.
        """
        await self.sink.create_indexes(build.generation)
        compared = None
        while True:
            while await build.advance_far():
                pass
            pointer = await self.read_pointer()
            if pointer.live == build.generation.number:
                break
            if pointer.building != build.generation.number:
                raise OvertakenError
            compared = compared or await self._compare(build, pointer, check)
            if await self.sink.switch(build.generation, pointer):
                log.info("read model switched", ledger_id=self.feed.ledger_id, projection=self._model.name, before=pointer.live)
                break
        return compared

    async def _compare(self, build: GenerationBuild, pointer: Pointer, check: GenerationCheck | None) -> Comparison:
        try:
            found = await GenerationComparer(self.projection, self.sink, self.feed, build.generation).compare(pointer.live)
            if check:
                await check(build.generation, found)
        except GenerationMismatch:
            await self._give_up(pointer)
            raise
        about = {"ledger_id": self.feed.ledger_id, "projection": self._model.name, "generation": build.generation.number}
        log.info("read model compared", **about, count=found.count, sampled=found.sampled)
        if found.before and found.before.differing and found.before.version == self._model.version:
            log.warning("the read model before was wrong", **about, differing=found.before.differing[:SHOWN_MAX])
        return found

    async def _give_up(self, pointer: Pointer) -> None:
        """Drops the generation that was built, so that the next build begins at event 1. Keeps the previous generation."""
        await self._point(pointer, msgspec.structs.replace(pointer, building=None))
        await self.prune()

    async def roll_back(self) -> Generation:
        """Makes the previous generation live again, and returns it.

        The previous generation is first built up to the head, so readers never see an older position. The generation that was
        live until now is kept, so that a second rollback undoes the first.

        Raises:
            PausedError: the projection is paused.
            NothingKept: no previous generation was kept, or it cannot continue.
        """
        await self.require_not_paused()
        if self._model.personal:
            raise NothingKept(_PERSONAL_NOT_KEPT.format(name=self._model.name))
        pointer = await self.read_pointer()
        kept, flaw = await self._examine(pointer.previous, live=False)
        if kept is None or flaw:
            cause = flaw.cause if flaw else ""
            hint = ": deploy the code with that version and roll back with it" if flaw and flaw.is_other_version else ""
            raise NothingKept(f"{self._model.name} has no generation to roll back to ({cause}){hint}")
        await self.sink.reopen(kept.generation)
        await self._point(pointer, msgspec.structs.replace(pointer, building=kept.generation.number))
        await self.finish(self.resume(kept))
        return kept.generation

    # ── dropping ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def drop_kept(self) -> set[int]:
        """Does the same as `prune`, and also drops the generation that is kept for a rollback."""
        pointer = await self.read_pointer()
        if pointer.previous is not None and pointer.previous != pointer.building:
            await self._point(pointer, msgspec.structs.replace(pointer, previous=None))
        return await self.prune()

    async def prune(self) -> set[int]:
        """Drops every generation that the pointer does not name. Returns the numbers of the dropped generations.

        It can be interrupted: the next call goes on.
        """
        numbers = await self.sink.numbers(self._model, self.feed.ledger_id)
        # Read the pointer after the numbers: a generation that another worker begins in between is then not dropped.
        pointer = await self.read_pointer()
        dropped = numbers - pointer.numbers
        for number in sorted(dropped):
            await self.sink.drop(Generation(self._model, self.feed.ledger_id, number))
        return {*dropped}
