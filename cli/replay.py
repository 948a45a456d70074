"""`daybook replay`: builds read models anew from event 1, beside those that are being read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import typer
import uvloop
from pymongo.errors import PyMongoError

from cli.progress import Progress
from projector.feed import Feed
from projector.generations import Generations
from projector.projections import PROJECTIONS, Projection
from projector.rebuild import Rebuilt, rebuild
from projector.sinks import make_sinks
from shared.connections import STORE_ERRORS, Stores, open_stores
from shared.errors import NotFound, StackError
from shared.garbage import calm_collector
from shared.person_keys import PersonKeys
from shared.settings import Settings, read_settings

INTERRUPTED: Final = 130
TICK_SECONDS: Final = 0.25
NAMES: Final = {projection.name: projection for projection in PROJECTIONS}


def replay(
    projections: Annotated[
        list[str] | None, typer.Argument(help=f"Read models to rebuild: {', '.join(NAMES)}. Default: all of them.")
    ] = None,
    ledger: Annotated[str, typer.Option(help="The ledger whose read models are rebuilt.")] = "main",
) -> None:
    """Rebuild read models from the first event, beside those that are being read, and switch when they are complete.

    Interrupted, it leaves what it has built; started again, it goes on from there. It may run beside the projector. At the end
    stands a digest of each read model: the same log always gives the same digests.

    Example: daybook replay users accounts
    """
    wanted = [_projection(name) for name in projections] if projections else list(PROJECTIONS)
    try:
        rebuilt = uvloop.run(_replay(read_settings(), wanted, ledger))
    except KeyboardInterrupt:
        typer.echo("interrupted: what was built stays, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for projection, result in zip(wanted, rebuilt, strict=True):
        typer.echo(f"{projection.name:<12} {result.position:>12} {result.digest or '(it moves with the log)'}")


def _projection(name: str) -> Projection[Any]:
    if name not in NAMES:
        raise typer.BadParameter(f"there is no read model {name!r}; there are {', '.join(NAMES)}")
    return NAMES[name]


async def _replay(settings: Settings, projections: Sequence[Projection[Any]], ledger_id: str) -> list[Rebuilt]:
    calm_collector()
    try:
        async with open_stores(settings, "daybook_projector") as stores:
            return await _rebuild_all(stores, projections, Feed(stores.engine, ledger_id, PersonKeys(settings)))
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None
    except (*STORE_ERRORS, PyMongoError) as error:
        raise StackError(f"a store does not answer ({type(error).__name__}); the same command goes on from here") from error


async def _rebuild_all(stores: Stores, projections: Sequence[Projection[Any]], feed: Feed) -> list[Rebuilt]:
    """All at once, so that each page of the log is read once."""
    sinks = make_sinks(stores.mongo, stores.redis)
    positions: dict[str, int] = {projection.name: 0 for projection in projections}
    async with _shown(feed, positions):
        rebuilds = [
            asyncio.create_task(
                rebuild(Generations(projection, sinks[projection.model.store], feed), _setter(positions, projection.name))
            )
            for projection in projections
        ]
        try:
            return await asyncio.gather(*rebuilds)
        finally:
            for task in rebuilds:
                task.cancel()
            await asyncio.wait(rebuilds)


def _setter(positions: dict[str, int], name: str) -> Any:
    return lambda position: positions.__setitem__(name, position)


@asynccontextmanager
async def _shown(feed: Feed, positions: dict[str, int]) -> AsyncIterator[None]:
    """Shows the mean of all positions."""
    with Progress("replay", await feed.refresh(), "events") as progress:
        shown = 0

        async def show() -> None:
            nonlocal shown
            while True:
                await asyncio.sleep(TICK_SECONDS)
                mean = sum(positions.values()) // len(positions)
                progress.extend(feed.head)
                progress.advance(mean - shown)
                shown = mean

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            progress.advance(sum(positions.values()) // len(positions) - shown)
