"""Builds a read model anew, from event 1, beside the one that is being read; then switches."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
from pymongo.errors import PyMongoError

from projector.comparison import Comparison
from projector.generations import OVERTAKEN_SECONDS, Check, Generations, Opened, OvertakenError, PausedError, pause
from projector.sinks import digest
from shared.connections import STORE_ERRORS
from shared.errors import EventRefused, ProjectionPaused
from shared.read_models import Generation

DIGESTS_MAX: Final = 5
FAILURES_MAX: Final = 5
FAILURE_SECONDS: Final = (0.1, 2.0)


class Rebuilt(msgspec.Struct, frozen=True):
    """`digest` is that of the content as of `position`; empty where it would not stand still for one."""

    position: int
    digest: str
    comparison: Comparison | None = None
    """With the log and the generation before; None where somebody else has switched, or nobody was to."""


async def rebuild(
    generations: Generations, moved: Callable[[int], None], to: int | None = None, check: Check | None = None
) -> Rebuilt:
    """Goes on with a generation that was left unfinished, so that it can be interrupted at any point and called again.

    With `to`, what is built is a copy as of that position, which never becomes live.

    `moved` is called with each position that is reached. What a store raises that is away or slow is raised when it has been
    tried `FAILURES_MAX` times.

    Raises:
        ProjectionPaused, or what `Generations.finish` raises.
        EventRefused: an event cannot be applied, and nothing, or nothing more, may be put aside.
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
            # A worker builds the same generation: each takes the batches that it comes to first.
            await asyncio.sleep(pause(attempt, OVERTAKEN_SECONDS))
        except EventRefused as refused:
            if refused.extra["is_final"]:
                raise
            await asyncio.sleep(pause(attempt, FAILURE_SECONDS))
        except (*STORE_ERRORS, PyMongoError):
            failures += 1
            if failures == FAILURES_MAX:
                raise
            await asyncio.sleep(pause(failures, FAILURE_SECONDS))
    raise AssertionError


async def _build(generations: Generations, opened: Opened, moved: Callable[[int], None], check: Check | None) -> Rebuilt:
    copy = generations.copy(opened)
    moved(copy.generation.position)
    while await copy.advance_far():
        moved(copy.generation.position)
    position = copy.generation.position
    await generations.sink.index(copy.generation)
    found = await _digest(generations, copy.generation)
    return Rebuilt(position, found, await generations.finish(copy, check))


async def _build_copy(generations: Generations, opened: Opened, moved: Callable[[int], None], to: int) -> Rebuilt:
    copy = generations.copy(opened)
    while (left := to - copy.generation.position) > 0 and await copy.advance_far(left):
        moved(copy.generation.position)
    await generations.sink.index(copy.generation)
    return Rebuilt(copy.generation.position, await _digest(generations, copy.generation))


async def _digest(generations: Generations, generation: Generation) -> str:
    """Raises:
    OvertakenError: it moved meanwhile.
    """
    found = await digest(generations.sink, generation)
    checkpoint = await generations.sink.read_checkpoint(generation)
    if checkpoint is None or checkpoint.position != generation.position:
        raise OvertakenError
    return found


async def _digest_of_live(generations: Generations, number: int) -> Rebuilt:
    """Somebody else finished it, and now it moves with the log."""
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
