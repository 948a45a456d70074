"""`daybook replay`: rebuilds several read models from event 1 at once."""

from typing import Annotated

import typer
import uvloop

from cli.arguments import LedgerOption
from cli.read_model_operations import interrupted, require_read_model
from cli.terminal_progress import TerminalProgress
from projector.generations.operator_rebuilds import replay as replay_read_models
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME, projections_of
from shared.optional_stores import configured_stores
from shared.settings import read_settings


def replay(
    projections: Annotated[
        list[str] | None,
        typer.Argument(help=f"Read models to rebuild: {', '.join(ALL_PROJECTIONS_BY_NAME)}. Default: all of them."),
    ] = None,
    ledger: LedgerOption = "main",
) -> None:
    """Rebuild read models from the first event. Readers keep the live generations until the new ones are complete.

    The worker may keep running. If you interrupt the command, run it again to continue. At the end, it prints a digest of each
    read model: the same log always gives the same digests.

    Example: daybook replay users accounts
    """
    settings = read_settings()
    in_use = [*projections_of(configured_stores(settings))]
    wanted = [ALL_PROJECTIONS_BY_NAME[require_read_model(name)] for name in projections] if projections else in_use
    try:
        rebuilt = uvloop.run(replay_read_models(settings, wanted, ledger, TerminalProgress))
    except KeyboardInterrupt:
        raise interrupted() from None
    for projection, result in zip(wanted, rebuilt, strict=True):
        typer.echo(f"{projection.name:<12} {result.position:>12} {result.digest or '(no digest: it changed meanwhile)'}")
