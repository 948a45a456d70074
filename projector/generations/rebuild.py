"""Builds a new generation of a read model from event 1, beside the live one, and makes it live."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
from pymongo.errors import PyMongoError

from projector.generations.build import OpenedGeneration, OvertakenError
from projector.generations.comparison import Comparison
from projector.generations.generations import OVERTAKEN_SECONDS, GenerationCheck, Generations, PausedError
from projector.sinks.content_digest import digest
from shared.backoff import backoff_seconds
from shared.errors import EventNotApplied, ProjectionPaused
from shared.read_models.generations import Generation
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

DIGESTS_MAX: Final = 5
FAILURES_MAX: Final = 5
FAILURE_SECONDS: Final = (0.1, 2.0)


class Rebuilt(msgspec.Struct, frozen=True):
    """The result of a rebuild. `digest` is the digest at `position`, or empty if the generation moved during every attempt."""

    position: int
    digest: str
    comparison: Comparison | None = None
    """The comparison with the log and the generation before. None for a copy, or if another worker made the generation live."""


async def rebuild(
    generations: Generations, moved: Callable[[int], None], to: int | None = None, check: GenerationCheck | None = None
) -> Rebuilt:
    """Builds a generation and makes it live. Continues an unfinished generation, so an interrupted rebuild can be run again.

    If `to` is given, builds a copy as of that position, which never becomes live. `moved` is called with each position that the
    build reaches. If a store does not answer, its error is raised after `FAILURES_MAX` attempts.

    Raises:
        ProjectionPaused: an operator has paused the projection.
        GenerationMismatch: the generation does not match the log. It was dropped, and nothing else has changed.
        EventNotApplied: an event cannot be applied, and the generation may have no more dead letters.
    """
    number = failures = 0
    for attempt in count(1):
        try:
            pointer = await generations.read_pointer()
            if number and pointer.live == number:
                return await _digest_of_live(generations, number)
            opened = await generations.open_new()
            number = opened.generation.number
            if to is None:
                return await _build(generations, opened, moved, check)
            return await _build_copy(generations, opened, moved, to)
        except PausedError as paused:
            name = generations.projection.name
            raise ProjectionPaused(f"{name} is paused since {paused}: run `daybook projections resume {name}`") from None
        except OvertakenError:
            # A worker builds the same generation, and was faster with this batch. Continue from where the generation is now.
            await asyncio.sleep(backoff_seconds(attempt, OVERTAKEN_SECONDS))
        except EventNotApplied as refused:
            if refused.extra["is_final"]:
                raise
            await asyncio.sleep(backoff_seconds(attempt, FAILURE_SECONDS))
        except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            failures += 1
            if failures == FAILURES_MAX:
                raise
            await asyncio.sleep(backoff_seconds(failures, FAILURE_SECONDS))
    raise AssertionError


async def _build(
    generations: Generations, opened: OpenedGeneration, moved: Callable[[int], None], check: GenerationCheck | None
) -> Rebuilt:
    build = generations.resume(opened)
    moved(build.generation.position)
    while await build.advance_far():
        moved(build.generation.position)
    position = build.generation.position
    await generations.sink.create_indexes(build.generation)
    found = await _digest(generations, build.generation)
    return Rebuilt(position, found, await generations.finish(build, check))


async def _build_copy(generations: Generations, opened: OpenedGeneration, moved: Callable[[int], None], to: int) -> Rebuilt:
    build = generations.resume(opened)
    while (left := to - build.generation.position) > 0 and await build.advance_far(left):
        moved(build.generation.position)
    await generations.sink.create_indexes(build.generation)
    return Rebuilt(build.generation.position, await _digest(generations, build.generation))


async def _digest(generations: Generations, generation: Generation) -> str:
    """Returns the digest of a generation at its position.

    Raises:
        OvertakenError: the generation moved while the digest was computed.
    """
    found = await digest(generations.sink, generation)
    checkpoint = await generations.sink.read_checkpoint(generation)
    if checkpoint is None or checkpoint.position != generation.position:
        raise OvertakenError
    return found


async def _digest_of_live(generations: Generations, number: int) -> Rebuilt:
    """Returns the result for a generation that another worker made live, with the digest at its newest position."""
    position = 0
    for _ in range(DIGESTS_MAX):
        live = (await generations.open()).generation
        position = live.position
        if live.number != number:
            break
        try:
            return Rebuilt(position, await _digest(generations, live))
        except OvertakenError:
            continue
    return Rebuilt(position, "")
