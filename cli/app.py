"""The `daybook` command: each command stands in a module of its own and is added here."""

import logging
import os
import sys

import structlog
import typer

from cli import (
    berka,
    dead_letters,
    dev,
    doctor,
    events,
    keys,
    master_keys,
    migrate,
    projections,
    replay,
    seal_key,
    status,
    verify,
)
from dev.folder import stack_environment
from shared.errors import OperatorError

app = typer.Typer(
    help="Daybook, an event-sourced backend for money.", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)
app.command()(dev.dev)
app.command()(dev.down)
app.command()(dev.env)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(migrate.migrate)
app.command()(replay.replay)
app.command()(verify.verify)
app.add_typer(keys.app, name="keys")
app.command()(seal_key.seal_key)
app.add_typer(projections.app, name="projections")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(events.app, name="events")
imports = typer.Typer(help="Load data from elsewhere, through the command API.", no_args_is_help=True)
imports.command()(berka.berka)
app.add_typer(imports, name="import")
app.add_typer(master_keys.app, name="master-keys")

OF_THE_STACK = {"dev", "down", "env"}
"""These start, end and show a stack; what another stack is configured with must not reach them."""


@app.callback()
def find_stack(context: typer.Context) -> None:
    """Points the command to the running dev stack, as far as the environment does not say otherwise."""
    if context.invoked_subcommand not in OF_THE_STACK:
        for variable, value in stack_environment().items():
            os.environ.setdefault(variable, value)


def main() -> None:
    """Everything that a person must act upon is one line on stderr, and exit code 1. Results alone go to stdout."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app()
    except OperatorError as error:
        typer.echo(f"daybook: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
