"""Compares a new generation with the log and with the live generation, before readers see it.

The comparison takes much less time than the build. It counts the documents, and folds a sample of them again, each from its own
stream, which the build did not read. The log and the generations may change during the comparison,
because each document contains the position of the event that changed it last. To fold the whole log and compare every document,
see `projector.verify.read_models`.
"""

import random
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from projector.dead_letters import DeadLetterFilter
from projector.feed import Feed
from projector.projections.projection import Projection
from projector.sinks.protocols import ContentReader
from projector.verify.difference import DifferenceFound, difference, require_equal
from shared.errors import GenerationMismatch
from shared.log.events import RecordedEvent
from shared.privacy.encryption import ERASED
from shared.read_models.dead_letters import NO_DEAD_LETTERS
from shared.read_models.generations import Generation

SAMPLE_SIZE: Final = 100
EVENTS_MAX: Final = 20_000
"""The most events that are folded for one sample. Documents that need more are left out of the sample."""
_PERSONAL_FIELDS: Final = ("name", "email", "metadata", "metadata_values", "search", "found_by")


class ComparedGeneration(msgspec.Struct, frozen=True):
    """The live generation in a comparison: its number, its model version, and how many documents or keys were compared.

    A document is compared only if no event changed it between the positions of the two generations. `differing` has one text for
    each document that differs, which names the first difference.
    """

    number: int
    version: int
    compared: int
    differing: list[str]


class Comparison(msgspec.Struct, frozen=True):
    """The result of a comparison without a difference.

    `count` is the number of documents or keys. `sampled` is how many of them were folded again. `before` is None if there was no
    live generation.
    """

    count: int
    sampled: int
    before: ComparedGeneration | None


class GenerationComparer:
    """Compares a new generation with the log and with the live generation."""

    def __init__(self, projection: Projection[Any], sink: ContentReader, feed: Feed, generation: Generation) -> None:
        self._projection = projection
        self._sink = sink
        self._feed = feed
        self._generation = generation
        self._dead_letters = DeadLetterFilter()

    async def compare(self, before: int | None) -> Comparison:
        """Compares the generation with the log, then with the live generation, whose number is `before`.

        Raises:
            GenerationMismatch: the generation does not match the log.
        """
        self._dead_letters = await self._read_dead_letters()
        try:
            count = await self._compare_count()
            names = await self._sample()
            sampled = await self._compare_with_log(names)
            if before is None:
                return Comparison(count, sampled, None)
            found, differing = await self._compare_with(msgspec.structs.replace(self._generation, number=before), names)
            # If the same code made both documents, one of them is wrong. Comparing with the log shows whether it is the new one.
            sampled += await self._compare_with_log(differing)
        except DifferenceFound as found_other:
            raise generation_differs(self._generation, found_other) from None
        return Comparison(count, sampled, found)

    async def _read_dead_letters(self) -> DeadLetterFilter:
        checkpoint = await self._sink.read_checkpoint(self._generation)
        if checkpoint is None or checkpoint.aside == NO_DEAD_LETTERS:
            return DeadLetterFilter()
        letters, parked = await self._sink.read_letters(self._generation), await self._sink.read_parked(self._generation)
        return DeadLetterFilter(checkpoint.aside, letters, parked)

    async def _position(self, generation: Generation) -> int:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.position if checkpoint else 0

    async def _compare_count(self) -> int:
        """Checks the number of documents and returns it.

        The generation may move while it is counted. Documents are never deleted, so the number must lie between the expected
        numbers at the positions before and after the count.
        """
        first = await self._position(self._generation)
        count = await self._sink.count(self._generation)
        last = await self._position(self._generation)
        if self._projection.makes:
            least, largest = await self._expected_count(first)
            most, _ = await self._expected_count(last) if last > first else (least, largest)
            least -= self._dead_letters.events * largest
            if not least <= count <= most:
                raise DifferenceFound(f"{self._projection.name}, number of documents at {first}", least, count)
        return count

    async def _expected_count(self, up_to: int) -> tuple[int, int]:
        """Returns how many documents the events up to a position insert, and the most that one of them inserts."""
        numbers = await self._feed.count_types(up_to)
        total, largest = 0, 0
        for kind, made in self._projection.makes.items():
            if isinstance(made, int):
                total, largest = total + numbers[kind.__name__] * made, max(largest, made)
            elif numbers[kind.__name__]:
                async for event in self._feed.events_of_type(kind, up_to):
                    total, largest = total + made(event), max(largest, made(event))
        return total, largest

    async def _sample(self) -> list[str]:
        """Returns names of documents that the store has, and of documents that it must have according to the log."""
        names = {*await self._sink.sample(self._generation, SAMPLE_SIZE)}
        position = await self._position(self._generation)
        if self._projection.origin is not None and position:
            places = sorted({random.randint(1, position) for _ in range(SAMPLE_SIZE)})  # noqa: S311 # not a secret
            for recorded in await self._feed.events_at(places):
                names |= self._changes([recorded]).names()
        return sorted(names)

    async def _compare_with_log(self, names: list[str]) -> int:
        """Compares the named documents with the log, and returns how many could be compared."""
        position = await self._position(self._generation)
        found = await self._sink.pick(self._generation, names)
        events = await self._events_of(names)
        for name, its_events in events.items():
            # A document contains all events up to the checkpoint that was read, or up to its own position if that is higher.
            up_to = max(position, _position_of(found.get(name)))
            expected = self._changes([each for each in its_events if each.position <= up_to]).content(name)
            if self._projection.model.personal:
                expected = _without_erased(expected, found.get(name))
            require_equal(f"{self._projection.name} {name}", expected, found.get(name))
        return len(events)

    async def _events_of(self, names: list[str]) -> dict[str, list[RecordedEvent]]:
        """Returns, for each name, the events that make its document. Leaves out documents that need too many events."""
        if self._projection.origin is None:
            return {}
        origins = {name: self._projection.origin(name) for name in names}
        streams = await self._feed.read_streams([origin for origin in origins.values() if isinstance(origin, str)], EVENTS_MAX)
        places = [origin for origin in origins.values() if isinstance(origin, int)]
        events: dict[str | int, list[RecordedEvent]] = {place: [] for place in places} | streams
        for recorded in await self._feed.events_at(places):
            events[recorded.position].append(recorded)
        return {name: events[origin] for name, origin in origins.items() if origin in events}

    def _changes(self, events: Iterable[RecordedEvent]) -> Any:
        changes = self._projection.new_changes()
        self._projection.fold(changes, self._dead_letters.sift(self._projection, events))
        return changes

    async def _compare_with(self, before: Generation, names: list[str]) -> tuple[ComparedGeneration | None, list[str]]:
        """Compares with the live generation. Returns the result, or None if that was dropped, and the names that differ."""
        checkpoint = await self._sink.read_checkpoint(before)
        if checkpoint is None:
            return None, []
        if checkpoint.aside != self._dead_letters.aside:
            # The generations leave out different events, so their content may differ. The new one has been compared with the log.
            return ComparedGeneration(before.number, checkpoint.model_version, 0, []), []
        positions = checkpoint.position, await self._position(self._generation)
        names = sorted({*names, *await self._sink.sample(before, SAMPLE_SIZE)})
        olds, news = await self._sink.pick(before, names), await self._sink.pick(self._generation, names)
        stand_still = positions[0] == positions[1] == await self._position(before) == await self._position(self._generation)
        compared, differing = 0, {}
        for name in names:
            old, new = olds.get(name), news.get(name)
            last_change = max(_position_of(old), _position_of(new))
            if last_change <= min(positions) if last_change else stand_still:
                compared += 1
                if text := difference(name, old, new):
                    differing[name] = text
        found = ComparedGeneration(before.number, checkpoint.model_version, compared, list(differing.values()))
        return found, list(differing)


def generation_differs(generation: Generation, found: DifferenceFound) -> GenerationMismatch:
    what = f"generation {generation.number} of {generation.model.name}, just built, does not match the log"
    return GenerationMismatch(f"{what}, and no reader will see it: {found}")


def _position_of(content: Any) -> int:
    """Returns the position of the event that changed a document or hash last, or 0 if the content has no position."""
    return int(content.get("position", 0)) if isinstance(content, dict) else 0


def _without_erased(expected: Any, found: Any) -> Any:
    """Returns `expected` with the personal data of `found`, if they cannot be compared.

    That is so for a person who was erased after the read model's position: the personal data can no longer be read from the log.
    """
    if expected and found and expected.get("status") != "erased" and expected.get("email") == ERASED:
        return expected | {name: found.get(name) for name in _PERSONAL_FIELDS if name in expected}
    return expected
