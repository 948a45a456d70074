"""Rebuilds for an operator: of one read model, of several at once, or into a copy as of a past moment."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

from projector.feed import Feed
from projector.generations.build import OvertakenError
from projector.generations.comparison import Comparison
from projector.generations.generations import GenerationCheck, Generations
from projector.generations.operations import Operations
from projector.generations.rebuild import Rebuilt, rebuild
from projector.projections.projection import Projection
from projector.projections.registry import require_in_use
from projector.sinks.registry import make_sinks
from shared.errors import StackError
from shared.garbage_collection import calm_collector
from shared.privacy.person_keys import PersonKeys
from shared.progress import Progress, ShowProgress
from shared.read_models.generations import Generation
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores
from shared.supervision import end_tasks

T = TypeVar("T")

SHOW_SECONDS: Final = 0.25
"""The time between two updates of the progress of several rebuilds."""

ATTEMPTS_MAX: Final = 20
ATTEMPT_SECONDS: Final = 0.1


class LiveRebuild(NamedTuple):
    """The result of a rebuild that became live.

    `equal` is True if the content equals that of the generation before, and None if they could not be compared. `letters` is the
    number of dead letters.
    """

    rebuilt: Rebuilt
    equal: bool | None
    letters: int


async def rebuild_live(one: Operations, events: int, show_progress: ShowProgress, *, whole: bool) -> LiveRebuild:
    """Builds a new generation, compares it with the log and the live one, and makes it live.

    `events` is about the number of events in the log, for the progress. If `whole` is True, every document or key is compared
    with the log instead of a sample. Raises the same errors as `rebuild`.
    """
    started = time.monotonic()
    equal: bool | None = None

    def checking(progress: Progress) -> GenerationCheck:
        async def check(generation: Generation, comparison: Comparison) -> None:
            nonlocal equal

            def count_done(count: int) -> None:
                progress.extend(2 * generation.position)
                progress.advance(count)

            equal = await one.inspect(generation, comparison, count_done, whole=whole)

        return check

    built = await rebuild_showing(one.generations, events, show_progress, checking=checking)
    await one.note_rate(max(built.position, 1) / max(time.monotonic() - started, 1e-3))
    aside, _ = await one.aside()
    return LiveRebuild(built, equal, aside.letters)


async def rebuild_copy(one: Operations, label: str, to: int, show_progress: ShowProgress) -> Rebuilt:
    """Builds a copy named `label` as of position `to`. Raises the same errors as `rebuild`.

    Continues an unfinished copy of this name, unless its position is beyond `to`. Then the copy is dropped and built again.
    """
    copies = one.copies(label)
    name = copies.projection.model.name
    is_beyond = any(each.name == name and (each.position or 0) > to for each in await one.summaries())
    if is_beyond and (await copies.read_pointer()).building:
        await one.drop_copy(label)
    return await rebuild_showing(one.copies(label), to, show_progress, to)


async def rebuild_showing(
    generations: Generations,
    events: int,
    show_progress: ShowProgress,
    to: int | None = None,
    checking: Callable[[Progress], GenerationCheck] | None = None,
) -> Rebuilt:
    """Runs `rebuild` and shows its progress. If `to` is given, builds a copy. Raises the same errors as `rebuild`.

    `checking` returns the check that runs before the switch. It gets the progress, so that the check can show its own.
    """
    with show_progress("rebuild", events, "events") as progress:
        shown = 0

        def moved(position: int) -> None:
            nonlocal shown
            progress.extend(max(events, position))
            progress.advance(position - shown)
            shown = position

        return await rebuild(generations, moved, to, checking(progress) if checking else None)


async def retry_while_overtaken(work: Callable[[], Awaitable[T]]) -> T:
    """Runs `work`, and runs it again if a worker changed the same generations first. Returns its result.

    Raises:
        StackError: other workers were faster in all attempts.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            return await work()
        except OvertakenError:
            await asyncio.sleep(ATTEMPT_SECONDS)
    raise StackError("other processes keep moving this read model; run the same command again")


# ── several at once ──────────────────────────────────────────────────────────────────────────────────────────────────


async def replay(
    settings: Settings, projections: Sequence[Projection[Any]], ledger_id: str, show_progress: ShowProgress
) -> list[Rebuilt]:
    """Rebuilds several read models at once, so that the log is read only once. Raises the same errors as `rebuild`."""
    calm_collector()
    async with open_stores(settings, "daybook_projector") as stores:
        return await _rebuild_all(stores, projections, Feed(stores.engine, ledger_id, PersonKeys(settings)), show_progress)


async def _rebuild_all(
    stores: Stores, projections: Sequence[Projection[Any]], feed: Feed, show_progress: ShowProgress
) -> list[Rebuilt]:
    for projection in projections:
        require_in_use(projection, stores.optional)
    sinks = make_sinks(stores)
    positions = dict.fromkeys((projection.name for projection in projections), 0)

    def moving(name: str) -> Callable[[int], None]:
        return lambda position: positions.__setitem__(name, position)

    with show_progress("replay", await feed.refresh(), "events") as progress:
        async with _mean_shown(feed, positions, progress):
            rebuilds = [
                asyncio.create_task(
                    rebuild(Generations(projection, sinks[projection.model.store], feed), moving(projection.name))
                )
                for projection in projections
            ]
            try:
                return await asyncio.gather(*rebuilds)
            finally:
                await end_tasks(*rebuilds)


@asynccontextmanager
async def _mean_shown(feed: Feed, positions: dict[str, int], progress: Progress) -> AsyncIterator[None]:
    """Shows the mean of all positions as progress, at regular intervals while the body runs and once at the end."""
    shown = 0

    def show() -> None:
        nonlocal shown
        mean = sum(positions.values()) // len(positions)
        progress.extend(feed.head)
        progress.advance(mean - shown)
        shown = mean

    async def keep_showing() -> None:
        while True:
            await asyncio.sleep(SHOW_SECONDS)
            show()

    showing = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        showing.cancel()
        show()
