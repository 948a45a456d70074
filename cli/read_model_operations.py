"""Shared code of the `daybook` subcommands for read models: their arguments, how they run, and their error messages."""

import resource
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Final, TypeVar

import typer
import uvloop

from cli.exit_codes import ExitCode
from cli.terminal_progress import TerminalProgress
from projector.generations.operations import Operations, open_operations
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME, projections_of
from shared.optional_stores import configured_stores
from shared.settings import read_settings

T = TypeVar("T")

OperationsOf = Callable[[str], Operations]
"""Returns the operations on a read model, given its name."""


def require_read_model(name: str) -> str:
    if name not in ALL_PROJECTIONS_BY_NAME:
        raise typer.BadParameter(f"there is no read model {name!r}; the read models are {', '.join(ALL_PROJECTIONS_BY_NAME)}")
    return name


NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help=f"One of {', '.join(ALL_PROJECTIONS_BY_NAME)}.", callback=require_read_model),
]


def names_in_use() -> list[str]:
    """Returns the names of all read models whose store is in use."""
    return [projection.name for projection in projections_of(configured_stores(read_settings()))]


def run_operations(ledger_id: str, work: Callable[[OperationsOf], Awaitable[T]]) -> T:
    """Opens the stores, runs `work`, and returns its result. An interruption says how to continue."""

    async def run() -> T:
        async with open_operations(read_settings(), ledger_id) as operations_of:
            return await work(operations_of)

    try:
        return uvloop.run(run())
    except KeyboardInterrupt:
        raise interrupted() from None


def interrupted() -> typer.Exit:
    typer.echo("interrupted: run the same command again to continue the build", err=True)
    return typer.Exit(ExitCode.INTERRUPTED)


def _memory_mebibytes() -> int:
    """Returns the peak memory use of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


show_rebuild: Final = partial(TerminalProgress, memory=_memory_mebibytes)
"""Shows the progress of a rebuild, and the memory that it uses."""
