"""Is a generation that was built what the log says it must be, and what the one before was? Asked before readers see it.

What is asked costs little however large the read model is: how many documents there are, and what a sample of them is when each
is folded anew from its own stream, which is another way through the log than the one that it was built by. Nothing has to stand
still for it: a document says itself which event changed it last. `verify_read_models` folds the whole log and compares all.
"""

import random
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from projector.dead_letters import LeftOut
from projector.difference import DifferenceFound, difference, require_equal
from projector.feed import Feed
from projector.projections import Projection
from projector.sinks import Sink
from shared.dead_letters import NOTHING_ASIDE
from shared.errors import GenerationRefused
from shared.events import RecordedEvent
from shared.read_models import Generation

SAMPLED: Final = 100
EVENTS_MAX: Final = 20_000
"""Folded for one sample. What takes more is left out of it."""


class Before(msgspec.Struct, frozen=True):
    """The generation that readers see until now: its number, the version that made it, how many documents or keys were compared.

    Only those are compared that nothing has changed in between. `differing` says of some where they begin to differ.
    """

    number: int
    version: int
    compared: int
    differing: list[str]


class Comparison(msgspec.Struct, frozen=True):
    """A generation that is as the log says: how many documents or keys it has, and how many of them were folded anew."""

    count: int
    sampled: int
    before: Before | None


class Comparing:
    """One generation, beside the log and the generation before."""

    def __init__(self, projection: Projection[Any], sink: Sink[Any], feed: Feed, generation: Generation) -> None:
        self._projection = projection
        self._sink = sink
        self._feed = feed
        self._generation = generation
        self._left_out = LeftOut()

    async def compare(self, before: int | None) -> Comparison:
        """`before` is the number of the live generation.

        Raises:
            GenerationRefused: it is not as the log says; how the one before is, does not matter then.
        """
        self._left_out = await self._read_left_out()
        try:
            count = await self._compare_count()
            names = await self._sample()
            sampled = await self._compare_with_log(names)
            if before is None:
                return Comparison(count, sampled, None)
            found, differing = await self._compare_with(msgspec.structs.replace(self._generation, number=before), names)
            # Either of the two is wrong, unless it was made by other code: the log says which.
            sampled += await self._compare_with_log(differing)
        except DifferenceFound as found_other:
            raise refusal(self._generation, found_other) from None
        return Comparison(count, sampled, found)

    async def _read_left_out(self) -> LeftOut:
        checkpoint = await self._sink.read_checkpoint(self._generation)
        if checkpoint is None or checkpoint.aside == NOTHING_ASIDE:
            return LeftOut()
        letters, parked = await self._sink.read_letters(self._generation), await self._sink.read_parked(self._generation)
        return LeftOut(checkpoint.aside, letters, parked)

    async def _position(self, generation: Generation) -> int:
        checkpoint = await self._sink.read_checkpoint(generation)
        return checkpoint.position if checkpoint else 0

    async def _compare_count(self) -> int:
        """Documents are made and never deleted: while it moves on, there are as many as at some position in between."""
        first = await self._position(self._generation)
        count = await self._sink.count(self._generation)
        last = await self._position(self._generation)
        if self._projection.makes:
            least = await self._expected_count(first)
            most = await self._expected_count(last) if last > first else least
            least -= self._left_out.events * max(self._projection.makes.values())
            if not least <= count <= most:
                raise DifferenceFound(f"{self._projection.name}, number of documents at {first}", least, count)
        return count

    async def _expected_count(self, up_to: int) -> int:
        numbers = await self._feed.count_types(up_to)
        return sum(numbers.get(event_type.__name__, 0) * made for event_type, made in self._projection.makes.items())

    async def _sample(self) -> list[str]:
        """What the store has, and what the log says it must have."""
        names = {*await self._sink.sample(self._generation, SAMPLED)}
        position = await self._position(self._generation)
        if self._projection.origin is not None and position:
            places = sorted({random.randint(1, position) for _ in range(SAMPLED)})  # noqa: S311 # not a secret
            for recorded in await self._feed.at(places):
                names |= self._changes([recorded]).names()
        return sorted(names)

    async def _compare_with_log(self, names: list[str]) -> int:
        """How many could be compared."""
        position = await self._position(self._generation)
        found = await self._sink.pick(self._generation, names)
        events = await self._events_of(names)
        for name, its_events in events.items():
            # All up to the checkpoint are in it, and where it has moved on since, all up to its own position.
            up_to = max(position, _position_of(found.get(name)))
            expected = self._changes([each for each in its_events if each.position <= up_to]).content(name)
            if self._projection.model.personal:
                expected = _without_erased(expected, found.get(name))
            require_equal(f"{self._projection.name} {name}", expected, found.get(name))
        return len(events)

    async def _events_of(self, names: list[str]) -> dict[str, list[RecordedEvent]]:
        """Name → the events that make it, none for what nothing makes; without those that would be too many."""
        if self._projection.origin is None:
            return {}
        origins = {name: self._projection.origin(name) for name in names}
        streams = await self._feed.streams([origin for origin in origins.values() if isinstance(origin, str)], EVENTS_MAX)
        places = [origin for origin in origins.values() if isinstance(origin, int)]
        events: dict[str | int, list[RecordedEvent]] = {place: [] for place in places} | streams
        for recorded in await self._feed.at(places):
            events[recorded.position].append(recorded)
        return {name: events[origin] for name, origin in origins.items() if origin in events}

    def _changes(self, events: Iterable[RecordedEvent]) -> Any:
        changes = self._projection.new_changes()
        self._projection.fold(changes, self._left_out.sift(self._projection, events))
        return changes

    async def _compare_with(self, before: Generation, names: list[str]) -> tuple[Before | None, list[str]]:
        """The generation before, and the names of what differs; None where it is gone."""
        checkpoint = await self._sink.read_checkpoint(before)
        if checkpoint is None:
            return None, []
        if checkpoint.aside != self._left_out.aside:
            # They cannot be the same; which of the two is right, the log has told.
            return Before(before.number, checkpoint.model_version, 0, []), []
        positions = checkpoint.position, await self._position(self._generation)
        names = sorted({*names, *await self._sink.sample(before, SAMPLED)})
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
        return Before(before.number, checkpoint.model_version, compared, list(differing.values())), list(differing)


def refusal(generation: Generation, found: DifferenceFound) -> GenerationRefused:
    what = f"generation {generation.number} of {generation.model.name}, just built, is not what the log says"
    return GenerationRefused(f"{what}, and no reader will see it: {found}")


def _position_of(content: Any) -> int:
    """Of the event that changed a document or a hash last; 0 where it does not say."""
    return int(content.get("position", 0)) if isinstance(content, dict) else 0


def _without_erased(expected: Any, found: Any) -> Any:
    """A person can have been erased beyond the position of the read model: then the log no longer tells what it will forget."""
    if expected and found and expected["status"] != "erased" and not expected["email"]:
        return expected | {name: found.get(name) for name in ("name", "email", "search")}
    return expected
