"""What an operator does with the generations of one read model: see them, build one as of the past, compare, prune, pause."""

import re
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import text

from projector.comparison import Before, Comparison, refusal
from projector.dead_letters import REFUSED, Attempts
from projector.difference import DifferenceFound, difference
from projector.feed import Feed
from projector.generations import Generations, OvertakenError
from projector.projections import PROJECTIONS, Projection
from projector.sinks import digest, make_sinks
from projector.verify_read_models import Advanced, Fold, ReadModelMovedError, verify_generation
from shared.connections import Stores
from shared.dead_letters import NOTHING_ASIDE, Aside, Letter
from shared.errors import NotFound
from shared.event_store import read_head, read_recorded_at
from shared.read_models import COPY_MARK, Generation, labelled, read_troubles

BY_NAME: Final = {projection.name: projection for projection in PROJECTIONS}
LABEL: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
SAMPLED: Final = 200
RATE: Final = 5_000.0
"""Events a second, as long as no rebuild has told a better number."""


class Estimate(msgspec.Struct, frozen=True):
    """What a rebuild will take. `live_version` is the one that the live generation was made by; None where there is none."""

    events: int
    rate: float
    live_version: int | None
    version: int

    @property
    def seconds(self) -> float:
        return self.events / self.rate


class Entry(msgspec.Struct, frozen=True):
    """One generation. `role`: live, building, previous (kept for a rollback) or copy (as of a past moment)."""

    name: str
    number: int
    role: str
    position: int | None
    version: int | None
    count: int


class Difference(msgspec.Struct, frozen=True):
    """Two generations, side by side. `differing` says of some of the documents or keys where they begin to differ."""

    one: Entry
    other: Entry
    digests: tuple[str, str]
    sampled: int
    differing: list[str]

    @property
    def is_equal(self) -> bool:
        return self.digests[0] == self.digests[1]


class Operating:
    """One read model of one ledger."""

    def __init__(self, stores: Stores, feed: Feed, projection: Projection[Any], attempts: Attempts | None = None) -> None:
        """`attempts` bounds what a rebuild puts aside."""
        self._attempts = attempts
        self._sinks = make_sinks(stores.mongo, stores.redis)
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
        """Those of a rebuild that puts nothing aside."""
        attempts = Attempts(parks=False)
        return Generations(self.projection, self._sink, self._feed, attempts)

    async def aside(self) -> tuple[Aside, list[Letter]]:
        """What readers miss: of the live generation, or where there is none, of the one that is being built."""
        pointer = await self.generations.read_pointer()
        number = pointer.live if pointer.live is not None else pointer.building
        if number is None:
            return NOTHING_ASIDE, []
        generation = Generation(self._model, self._feed.ledger_id, number)
        return await self._aside_of(generation), await self._sink.read_letters(generation)

    async def stopped_at(self) -> int | None:
        """The event that cannot be applied and may not be put aside; None where none is in the way."""
        troubles = await read_troubles(self._stores.mongo, self._stores.redis, self._feed.ledger_id)
        trouble = troubles.get(self._model.name)
        if trouble is None or not trouble.cause.startswith(REFUSED.format(position=trouble.position + 1)):
            return None
        return trouble.position + 1

    async def _aside_of(self, generation: Generation) -> Aside:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.aside if checkpoint else NOTHING_ASIDE

    def copies(self, label: str) -> Generations:
        """Of the read model as of a past moment."""
        model = labelled(self._model, label)
        return self._generations(msgspec.structs.replace(self.projection, model=model))

    async def estimate(self) -> Estimate:
        """Raises:
        NotFound: there is no such ledger.
        """
        notes = await self._sink.read_notes(self._model, self._feed.ledger_id)
        events = await self._feed.refresh()
        live = next((entry for entry in await self.entries() if entry.role == "live"), None)
        return Estimate(events, float(notes.get("rate", RATE)), live.version if live else None, self._model.version)

    async def note_rate(self, rate: float) -> None:
        """For the next estimate."""
        await self._sink.note(self._model, self._feed.ledger_id, "rate", str(round(rate, 1)))

    async def paused_since(self) -> str | None:
        return (await self._sink.read_notes(self._model, self._feed.ledger_id)).get("paused")

    async def lag_seconds(self, position: int) -> float:
        """How long ago the first event after a position was recorded; 0 where there is none."""
        async with self.engine.connect() as connection:
            recorded_at = (await read_recorded_at(connection, self._feed.ledger_id, [position + 1])).get(position + 1)
            now = (await read_head(connection, self._feed.ledger_id)).now
        return max((now - recorded_at).total_seconds(), 0.0) if recorded_at else 0.0

    async def position_at(self, moment: datetime) -> int:
        """The position of the last event that was recorded up to this moment: they are recorded in order."""
        query = text("""
            SELECT coalesce(max(position), 0) FROM events
            WHERE ledger_id = :ledger_id AND recorded_at <= :moment
        """)
        # A scan of the whole log is what it takes: no index is worth its cost to every command for this.
        async with self.engine.connect() as connection:
            await connection.execute(text("SET statement_timeout = 0"))
            found: int = await connection.scalar(query, {"ledger_id": self._feed.ledger_id, "moment": moment})
            await connection.rollback()
        return found

    async def entries(self) -> list[Entry]:
        """All generations, and all copies, that there are."""
        found = await self._entries(self.generations)
        for label in await self._sink.labels(self._model, self._feed.ledger_id):
            found += await self._entries(self.copies(label))
        return found

    async def _entries(self, generations: Generations) -> list[Entry]:
        model, ledger_id = generations.projection.model, self._feed.ledger_id
        pointer = await generations.read_pointer()
        roles = {pointer.previous: "previous", pointer.building: "building", pointer.live: "live"}
        found = []
        for number in sorted(await self._sink.numbers(model, ledger_id)):
            generation = Generation(model, ledger_id, number)
            checkpoint = await self._sink.read_checkpoint(generation)
            role = "copy" if COPY_MARK in model.name else roles.get(number, "left over")
            position, version = (checkpoint.position, checkpoint.model_version) if checkpoint else (None, None)
            found.append(Entry(model.name, number, role, position, version, await self._sink.count(generation)))
        return found

    async def prune(self) -> list[str]:
        """Drops all that is neither live nor being built: what a rollback could go back to, and every copy. Names what went."""
        dropped = [f"{self._model.name} {number}" for number in sorted(await self.generations.drop_kept())]
        for label in await self._sink.labels(self._model, self._feed.ledger_id):
            await self.drop_copy(label)
            dropped.append(f"{self._model.name}{COPY_MARK}{label}")
        return dropped

    async def drop_copy(self, label: str) -> None:
        model = labelled(self._model, label)
        # The pointer first: whoever still writes it then finds that it has gone.
        await self._sink.forget(model, self._feed.ledger_id)
        for number in await self._sink.numbers(model, self._feed.ledger_id):
            await self._sink.drop(Generation(model, self._feed.ledger_id, number))

    async def compare(self, one: str = "", other: str = "") -> Difference:
        """Generations are named by number or label; by default, the one before is compared with the live one.

        Raises:
            NotFound: there is no such generation.
        """
        entries = await self.entries()
        first, second = _named(entries, one or "previous"), _named(entries, other or "live")
        generations = [self._generation(entry) for entry in (first, second)]
        names = await self._sink.sample(generations[1], SAMPLED)
        olds, news = [await self._sink.pick(generation, names) for generation in generations]
        differing = [found for name in names if (found := difference(name, olds.get(name), news.get(name)))]
        digests = await digest(self._sink, generations[0]), await digest(self._sink, generations[1])
        return Difference(first, second, digests, len(names), differing)

    async def inspect(self, generation: Generation, comparison: Comparison, advanced: Advanced, *, whole: bool) -> bool | None:
        """Whether a generation that is not live yet has the very content of the one before; None where that cannot be said.

        Nor can it while the log moves, or where the two have not put the same aside. All of it is compared with the log where
        `whole` is wished, where the same code gave something else before, and where a sample tells nothing; `advanced` is called
        with numbers of events that this has read.

        Raises:
            GenerationRefused: something in it is not what the log says.
        """
        equal = await self._is_equal(generation, comparison.before) if comparison.before else None
        was_same_code = comparison.before is not None and comparison.before.version == self._model.version
        if whole or self.projection.origin is None or (was_same_code and equal is False):
            await self._verify(generation, advanced)
        return equal

    async def _is_equal(self, generation: Generation, before: Before) -> bool | None:
        both = generation, msgspec.structs.replace(generation, number=before.number)
        if await self._aside_of(both[0]) != await self._aside_of(both[1]):
            return None
        positions = {await self._position(each) for each in both}
        digests = {await digest(self._sink, each) for each in both}
        stands_still = len(positions) == 1 and positions == {await self._position(each) for each in both}
        return len(digests) == 1 if stands_still else None

    async def _verify(self, generation: Generation, advanced: Advanced) -> None:
        try:
            await verify_generation(self._stores, generation, Fold(self.projection, self._feed, advanced), self.projection)
        except DifferenceFound as found:
            raise refusal(generation, found) from None
        except ReadModelMovedError:
            raise OvertakenError from None

    async def _position(self, generation: Generation) -> int | None:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.position if checkpoint else None

    def _generation(self, entry: Entry) -> Generation:
        model = msgspec.structs.replace(self._model, name=entry.name)
        return Generation(model, self._feed.ledger_id, entry.number, entry.position or 0)


def _named(entries: list[Entry], name: str) -> Entry:
    for entry in entries:
        label = entry.name.partition(COPY_MARK)[2]
        if (name == str(entry.number) and not label) or name in {label, entry.role} - {""}:
            return entry
    there = ", ".join(f"{entry.number} ({entry.role})" for entry in entries) or "none"
    raise NotFound(f"there is no generation {name!r}; there are: {there}")
