"""`daybook status`: shows whether the processes are ready, and the position of each read model."""

import asyncio
from typing import Final

import typer

from cli.publish import PUBLISHED_COLUMNS, published_rows
from cli.tables import print_table
from shared.errors import SettingsInvalid
from shared.settings import read_settings
from shared.web.stack_status import look_at_stack

COLUMNS: Final = ("name", "generation", "state", "position", "lag_events", "lag_seconds", "dead_letters", "cause")


def status() -> None:
    """Show whether each process is ready, how far each read model is behind the log, and why.

    If events are published, it also shows how far each ledger is.

    Causes are a paused or failing read model, dead letters, a missing worker, a slow store or projection, and a PostgreSQL
    connection that holds a lock. The exit code is 1 if a process is not ready.

    Example: daybook status
    """
    try:
        settings = read_settings()
    except SettingsInvalid as invalid:
        raise SettingsInvalid([*invalid.problems, "no development stack runs (`daybook dev` starts one)"]) from None
    found = asyncio.run(look_at_stack(settings))
    print_table(("process", "state", "where"), [(process.name, process.state, process.where) for process in found.processes])
    if found.projections:
        print_table(COLUMNS, [[each.get(column) for column in COLUMNS] for each in found.projections])
    if found.published:
        print_table(PUBLISHED_COLUMNS, published_rows(found.published))
    for holder in found.lock_holders:
        waiting = f"{holder.waiting} waits: " if holder.waiting else ""
        typer.echo(f"{waiting}{holder}")
    if not all(process.is_ready for process in found.processes):
        raise typer.Exit(1)
