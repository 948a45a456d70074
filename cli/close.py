"""`daybook close`: closes a business day."""

import asyncio
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from cli.arguments import LedgerOption, utf8
from command_api.day_closing import close_command
from command_api.domain.day import CloseDay
from command_api.operator_commands import run_operator_command
from shared.input_types import Day
from shared.login_name import login_name
from shared.settings import read_settings
from shared.stores.postgres import open_postgres


def close(
    day: Annotated[str, typer.Argument(metavar="DAY", help="The day, such as 2026-01-31.", callback=utf8)],
    ledger: LedgerOption = "main",
) -> None:
    """Close a business day: record its totals and the Merkle root of its events. Days are closed in order.

    Entries can still be back-dated into a closed day, and are marked. Closing the last closed day again changes nothing.

    Example: daybook close 2026-01-31
    """
    try:
        TypeAdapter(Day).validate_python(day)
    except ValidationError:
        raise typer.BadParameter("give a day such as 2026-01-31", param_hint="DAY") from None
    closed = asyncio.run(_close(ledger, day))
    typer.echo(f"{day}: {closed.events} events up to position {closed.up_to}, root {closed.root}")
    for each in closed.totals:
        moved = f"{each.moved} moved, {each.paid_in} paid in, {each.paid_out} paid out (minor units)"
        typer.echo(f"{each.currency}: {each.entries} entries, {moved}")


async def _close(ledger_id: str, day: str) -> CloseDay:
    settings = read_settings()
    async with open_postgres(settings, "daybook_command") as engine:
        command = await close_command(engine, ledger_id, day)
    await run_operator_command(settings, ledger_id, command, login_name())
    return command
