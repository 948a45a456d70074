"""Lists, compares, pauses and prunes the generations of one read model, for an operator."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import text

from projector.dead_letters import ApplyAttempts
from projector.feed import Feed
from projector.generations.build import OvertakenError
from projector.generations.comparison import ComparedGeneration, Comparison, generation_differs
from projector.generations.generations import Generations
from projector.projections.projection import Projection
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME, require_in_use
from projector.sinks.content_digest import digest
from projector.sinks.registry import make_sinks
from projector.verify.difference import DifferenceFound, difference
from projector.verify.read_models import FoldedReadModel, ReadModelMovedError, verify_generation
from shared.errors import NotFound
from shared.garbage_collection import calm_collector
from shared.log.heads import read_head
from shared.log.read import read_recorded_at
from shared.privacy.person_keys import PersonKeys
from shared.progress import CountDone
from shared.read_models.dead_letters import NO_DEAD_LETTERS, DeadLetter, DeadLetterSummary
from shared.read_models.failures import read_failures
from shared.read_models.generations import Generation
from shared.read_models.shapes import COPY_MARK, labelled
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores
from shared.timestamps import timestamp

LABEL: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
DIFF_SAMPLE_SIZE: Final = 200
RATE_ASSUMED: Final = 5_000.0
"""The rate in events per second that an estimate uses until a rebuild has measured the real one."""


class RebuildEstimate(msgspec.Struct, frozen=True):
    """An estimate of a rebuild. `rate` is in events per second. `live_version` is the model version of the live generation."""

    events: int
    rate: float
    live_version: int | None
    version: int

    @property
    def seconds(self) -> float:
        return self.events / self.rate


class GenerationSummary(msgspec.Struct, frozen=True):
    """One generation. `role` is live, building, previous (kept for a rollback), copy (as of a past moment) or left over."""

    name: str
    number: int
    role: str
    position: int | None
    version: int | None
    count: int


class GenerationDiff(msgspec.Struct, frozen=True):
    """A comparison of two generations. `differing` has, for each sampled document or key that differs, its first difference."""

    one: GenerationSummary
    other: GenerationSummary
    digests: tuple[str, str]
    sampled: int
    differing: list[str]

    @property
    def is_equal(self) -> bool:
        return self.digests[0] == self.digests[1]


class ReadModelStatus(msgspec.Struct, frozen=True):
    """The status of a read model. `live` and `building` are None if there is no such generation."""

    live: GenerationSummary | None
    building: GenerationSummary | None
    head: int
    lag_events: int
    lag_seconds: float
    paused_since: str | None


class Operations:
    """The operations on one read model of one ledger."""

    def __init__(self, stores: Stores, feed: Feed, projection: Projection[Any], attempts: ApplyAttempts | None = None) -> None:
        """Creates the operations. `attempts` sets how many attempts an event and how many dead letters a rebuild may have."""
        self._attempts = attempts
        self._sinks = make_sinks(stores)
        self._stores = stores
        self.engine = stores.engine
        self._feed = feed
        self.projection = projection
        self.generations = self._generations(projection)
        self._sink = self.generations.sink
        self._model = projection.model

    def _generations(self, projection: Projection[Any]) -> Generations:
        return Generations(projection, self._sinks[projection.model.store], self._feed, self._attempts)

    def strict_generations(self) -> Generations:
        """Returns the generations for a rebuild that makes no dead letters."""
        attempts = ApplyAttempts(makes_dead_letters=False)
        return Generations(self.projection, self._sink, self._feed, attempts)

    async def aside(self) -> tuple[DeadLetterSummary, list[DeadLetter]]:
        """Returns the dead letters of the live generation, or else of the one that is being built, and their summary."""
        pointer = await self.generations.read_pointer()
        number = pointer.live if pointer.live is not None else pointer.building
        if number is None:
            return NO_DEAD_LETTERS, []
        generation = Generation(self._model, self._feed.ledger_id, number)
        return await self._aside_of(generation), await self._sink.read_letters(generation)

    async def stopped_at(self) -> int | None:
        """Returns the position of the event that blocks the whole read model, or None if no event does.

        An event that cannot be applied blocks the read model while no dead letter may be made for it, for example because the
        read model has the maximum number of them.
        """
        failures = await read_failures(self._stores.mongo, self._stores.redis, self._feed.ledger_id)
        failure = failures.get(self._model.name)
        return failure.event_position if failure else None

    async def _aside_of(self, generation: Generation) -> DeadLetterSummary:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.aside if checkpoint else NO_DEAD_LETTERS

    def copies(self, label: str) -> Generations:
        """Returns the generations of a copy of the read model as of a past moment."""
        model = labelled(self._model, label)
        return self._generations(msgspec.structs.replace(self.projection, model=model))

    async def estimate(self) -> RebuildEstimate:
        """Returns an estimate of a rebuild, from the size of the log and the rate of the last rebuild.

        Raises:
            NotFound: the ledger does not exist.
        """
        notes = await self._sink.read_notes(self._model, self._feed.ledger_id)
        events = await self._feed.refresh()
        live = next((each for each in await self.summaries() if each.role == "live"), None)
        return RebuildEstimate(
            events, float(notes.get("rate", RATE_ASSUMED)), live.version if live else None, self._model.version
        )

    async def note_rate(self, rate: float) -> None:
        """Stores the rate of a rebuild for the next estimate."""
        await self._sink.note(self._model, self._feed.ledger_id, "rate", str(round(rate, 1)))

    async def status(self) -> ReadModelStatus:
        by_role = {each.role: each for each in await self.summaries()}
        live = by_role.get("live")
        position = (live.position if live else None) or 0
        head = await self._feed.refresh()
        lag_seconds = await self.lag_seconds(position)
        lag_events = max(head - position, 0)
        return ReadModelStatus(live, by_role.get("building"), head, lag_events, lag_seconds, await self.paused_since())

    async def pause(self, now: datetime) -> str:
        """Stops workers and rebuilds until `resume`. Returns the time of the pause. A pause that exists keeps its time."""
        since = await self.paused_since() or timestamp(now)
        await self._sink.pause(self._model, self._feed.ledger_id, since)
        return since

    async def resume(self) -> None:
        await self._sink.resume(self._model, self._feed.ledger_id)

    async def paused_since(self) -> str | None:
        return (await self._sink.read_notes(self._model, self._feed.ledger_id)).get("paused")

    async def lag_seconds(self, position: int) -> float:
        """Returns how many seconds ago the first event after a position was recorded, or 0 if there is no such event."""
        async with self.engine.connect() as connection:
            recorded_at = (await read_recorded_at(connection, self._feed.ledger_id, [position + 1])).get(position + 1)
            now = (await read_head(connection, self._feed.ledger_id)).now
        return max((now - recorded_at).total_seconds(), 0.0) if recorded_at else 0.0

    async def position_at(self, moment: datetime) -> int:
        """Returns the position of the last event that was recorded at or before a moment, or 0 if there is none."""
        query = text("""
            SELECT coalesce(max(position), 0) FROM events
            WHERE ledger_id = :ledger_id AND recorded_at <= :moment
        """)
        # This reads the whole log. An index would avoid that, but would make every command slower.
        async with self.engine.connect() as connection:
            await connection.execute(text("SET statement_timeout = 0"))
            found: int = await connection.scalar(query, {"ledger_id": self._feed.ledger_id, "moment": moment})
            await connection.rollback()
        return found

    async def summaries(self) -> list[GenerationSummary]:
        """Returns all generations and all copies that exist."""
        found = await self._summaries(self.generations)
        for label in await self._sink.copy_labels(self._model, self._feed.ledger_id):
            found += await self._summaries(self.copies(label))
        return found

    async def _summaries(self, generations: Generations) -> list[GenerationSummary]:
        model, ledger_id = generations.projection.model, self._feed.ledger_id
        pointer = await generations.read_pointer()
        roles = {pointer.previous: "previous", pointer.building: "building", pointer.live: "live"}
        found = []
        for number in sorted(await self._sink.numbers(model, ledger_id)):
            generation = Generation(model, ledger_id, number)
            checkpoint = await self._sink.read_checkpoint(generation)
            role = "copy" if COPY_MARK in model.name else roles.get(number, "left over")
            position, version = (checkpoint.position, checkpoint.model_version) if checkpoint else (None, None)
            found.append(GenerationSummary(model.name, number, role, position, version, await self._sink.count(generation)))
        return found

    async def prune(self) -> list[str]:
        """Drops every copy, and every generation that is neither live nor being built. Returns the names of what was dropped.

        The generation that is kept for a rollback is dropped too.
        """
        dropped = [f"{self._model.name} {number}" for number in sorted(await self.generations.drop_kept())]
        for label in await self._sink.copy_labels(self._model, self._feed.ledger_id):
            await self.drop_copy(label)
            dropped.append(f"{self._model.name}{COPY_MARK}{label}")
        return dropped

    async def drop_copy(self, label: str) -> None:
        model = labelled(self._model, label)
        # Delete the pointer first, so that a rebuild that still writes the copy finds no pointer and stops.
        await self._sink.delete_pointer(model, self._feed.ledger_id)
        for number in await self._sink.numbers(model, self._feed.ledger_id):
            await self._sink.drop(Generation(model, self._feed.ledger_id, number))

    async def compare(self, one: str = "", other: str = "") -> GenerationDiff:
        """Compares two generations, each named by number, label or role. The default is to compare `previous` with `live`.

        Raises:
            NotFound: one of the generations does not exist.
        """
        summaries = await self.summaries()
        first, second = _named(summaries, one or "previous"), _named(summaries, other or "live")
        generations = [self._generation(summary) for summary in (first, second)]
        names = await self._sink.sample(generations[1], DIFF_SAMPLE_SIZE)
        olds, news = [await self._sink.pick(generation, names) for generation in generations]
        differing = [found for name in names if (found := difference(name, olds.get(name), news.get(name)))]
        digests = await digest(self._sink, generations[0]), await digest(self._sink, generations[1])
        return GenerationDiff(first, second, digests, len(names), differing)

    async def inspect(self, generation: Generation, comparison: Comparison, advanced: CountDone, *, whole: bool) -> bool | None:
        """Returns True if a new generation has the same content as the live one.

        Returns None if there is no live one, if the log moves meanwhile, or if the two leave out different events. The whole
        new generation is compared with the log in three cases: `whole` is True, the live one has other content and the same model
        version, or the read model cannot be sampled. `advanced` is called with the number of events read for that comparison.

        Raises:
            GenerationMismatch: the new generation does not match the log.
        """
        equal = await self._is_equal(generation, comparison.before) if comparison.before else None
        was_same_code = comparison.before is not None and comparison.before.version == self._model.version
        if whole or self.projection.origin is None or (was_same_code and equal is False):
            await self._verify(generation, advanced)
        return equal

    async def _is_equal(self, generation: Generation, before: ComparedGeneration) -> bool | None:
        both = generation, msgspec.structs.replace(generation, number=before.number)
        if await self._aside_of(both[0]) != await self._aside_of(both[1]):
            return None
        positions = {await self._position(each) for each in both}
        digests = {await digest(self._sink, each) for each in both}
        stands_still = len(positions) == 1 and positions == {await self._position(each) for each in both}
        return len(digests) == 1 if stands_still else None

    async def _verify(self, generation: Generation, advanced: CountDone) -> None:
        try:
            await verify_generation(
                self._stores, generation, FoldedReadModel(self.projection, self._feed, advanced), self.projection
            )
        except DifferenceFound as found:
            raise generation_differs(generation, found) from None
        except ReadModelMovedError:
            raise OvertakenError from None

    async def _position(self, generation: Generation) -> int | None:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.position if checkpoint else None

    def _generation(self, summary: GenerationSummary) -> Generation:
        model = msgspec.structs.replace(self._model, name=summary.name)
        return Generation(model, self._feed.ledger_id, summary.number, summary.position or 0)


@asynccontextmanager
async def open_operations(settings: Settings, ledger_id: str) -> AsyncIterator[Callable[[str], Operations]]:
    """Opens the stores. Gives a function that returns the operations on a read model of the ledger, by the read model's name.

    Raises:
        NotFound: the ledger does not exist.
    """
    calm_collector()
    async with open_stores(settings, "daybook_projector") as stores:
        feed = Feed(stores.engine, ledger_id, PersonKeys(settings))
        await feed.refresh()

        def operations(name: str) -> Operations:
            attempts = ApplyAttempts(settings.projector_attempts_max, settings.projector_dead_letters_max)
            return Operations(stores, feed, require_in_use(ALL_PROJECTIONS_BY_NAME[name], stores.optional), attempts)

        yield operations


def _named(summaries: list[GenerationSummary], name: str) -> GenerationSummary:
    for summary in summaries:
        label = summary.name.partition(COPY_MARK)[2]
        if (name == str(summary.number) and not label) or name in {label, summary.role} - {""}:
            return summary
    there = ", ".join(f"{each.number} ({each.role})" for each in summaries) or "none"
    raise NotFound(f"there is no generation {name!r}; there are: {there}")
