"""`daybook replay`: builds read models anew from event 1, beside those that are being read."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final

import typer
from pymongo.errors import PyMongoError

from cli.progress import Progress
from projector.feed import Feed
from projector.generations import BUILD_EVENTS_MAX, Copy, Generations, OvertakenError
from projector.projections import PROJECTIONS, Projection
from projector.sinks import digest, make_sinks
from shared.connections import STORE_ERRORS, Stores, open_stores
from shared.errors import NotFound, StoreUnavailable
from shared.read_models import Generation
from shared.settings import Settings, read_settings

TICK_SECONDS: Final = 0.25
INTERRUPTED: Final = 130

NAMES: Final = {projection.name: projection for projection in PROJECTIONS}


def replay(
    projections: Annotated[
        list[str] | None, typer.Argument(help=f"Read models to rebuild: {', '.join(NAMES)}. Default: all.")
    ] = None,
    ledger: Annotated[str, typer.Option(help="The ledger whose read models are rebuilt.")] = "main",
) -> None:
    """Rebuild read models from the first event, beside those that are being read, and switch when they are complete.

    Interrupted, it leaves what it has built; started again, it goes on from there. It may run beside the projector.
    At the end stands a digest for each read model: the same log always gives the same digests.

    Example: daybook replay users accounts
    """
    wanted = [_projection(name) for name in projections] if projections else list(PROJECTIONS)
    settings = read_settings()
    try:
        asyncio.run(_replay(settings, wanted, ledger))
    except KeyboardInterrupt:
        typer.echo("interrupted: what was built stays, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None


def _projection(name: str) -> Projection[Any]:
    if name not in NAMES:
        raise typer.BadParameter(f"there is no read model {name!r}; there are {', '.join(NAMES)}")
    return NAMES[name]


async def _replay(settings: Settings, projections: list[Projection[Any]], ledger_id: str) -> None:
    try:
        async with open_stores(settings, "daybook_projector") as stores:
            feed = Feed(stores.engine, ledger_id)
            with Progress("replay", await feed.refresh(), "events") as progress:
                rebuilds = [Rebuild(stores, projection, feed) for projection in projections]
                async with _shown(progress, feed, rebuilds):
                    async with asyncio.TaskGroup() as tasks:
                        for rebuild in rebuilds:
                            tasks.create_task(rebuild.run())
    except* (*STORE_ERRORS, PyMongoError) as errors:
        raise StoreUnavailable(f"a store does not answer: {errors.exceptions[0]!r}") from None
    for rebuild in rebuilds:
        typer.echo(f"{rebuild.name:<12} {rebuild.copy.generation.position:>10} {rebuild.digest}")


class Rebuild:
    """Takes one read model from event 1, or from where it was left, to the head, and makes it the live one."""

    def __init__(self, stores: Stores, projection: Projection[Any], feed: Feed) -> None:
        self.name = projection.name
        self.position = 0
        self.digest = ""
        self._sink = make_sinks(stores.mongo, stores.redis)[projection.model.store]
        self._generations = Generations(projection, self._sink, feed)

    async def run(self) -> None:
        generation = await self._generations.open_new()
        
