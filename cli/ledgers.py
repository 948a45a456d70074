"""`daybook ledgers`: creates, lists, shows and closes ledgers."""

import asyncio
import re
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from cli.arguments import ledger_id, utf8
from cli.tables import print_table
from command_api.domain.ledger import CloseLedger, CreateLedger, LedgerSettings
from command_api.operator_commands import run_operator_command
from shared.errors import IdTaken
from shared.input_types import LEDGER_ID
from shared.log.ledgers import Ledger, read_ledger, read_ledgers
from shared.login_name import login_name
from shared.settings import read_settings
from shared.stores.postgres import open_postgres
from shared.timestamps import timestamp

app = typer.Typer(help="Create, list, show and close ledgers.", no_args_is_help=True)

ID_LENGTH_MAX: Final = 31

LedgerArgument = Annotated[str, typer.Argument(metavar="LEDGER", help="The id of the ledger.", callback=ledger_id)]


def _id_of(name: str) -> str:
    """Makes an id from the name of a ledger: `Acme Ltd.` becomes `acme-ltd`."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:ID_LENGTH_MAX].strip("-")
    if not LEDGER_ID.fullmatch(made):
        raise typer.BadParameter("no id can be made from the name: choose one", param_hint="--id")
    return made


def _id_or_none(value: str | None) -> str | None:
    return value and ledger_id(value)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the ledger is called. It is kept for ever.", callback=utf8)],
    id_: Annotated[
        str | None, typer.Option("--id", help="The id of the ledger. Without it, made from the name.", callback=_id_or_none)
    ] = None,
    time_zone: Annotated[str, typer.Option(help="A name of the IANA database, such as Europe/Berlin.", callback=utf8)] = "UTC",
    currencies: Annotated[
        str | None,
        typer.Option(help="The currencies in which accounts can be opened, with commas: EUR,USD. Without it, all."),
    ] = None,
) -> None:
    """Create a ledger. It takes commands at once. Then make a key for it with `daybook keys create --ledger`.

    Example: daybook ledgers create "Acme" --time-zone Europe/Berlin --currencies EUR,USD
    """
    new_id = id_ or _id_of(name)
    codes = None if currencies is None else currencies.split(",")
    try:
        settings = LedgerSettings.model_validate({"time_zone": time_zone, "currencies": codes})
        command = CreateLedger(name=name, settings=settings)
    except ValidationError as invalid:
        raise typer.BadParameter("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in invalid.errors())) from None
    try:
        asyncio.run(run_operator_command(read_settings(), new_id, command, login_name()))
    except IdTaken:
        raise typer.BadParameter(f"there is a ledger {new_id} already: choose another id", param_hint="--id") from None
    typer.echo(f"{new_id}: created")


@app.command(name="list")
def list_() -> None:
    """Show all ledgers.

    Example: daybook ledgers list
    """

    async def read() -> list[Ledger]:
        async with open_postgres(read_settings(), "daybook_command") as engine, engine.connect() as connection:
            return await read_ledgers(connection)

    rows = [(each.ledger_id, each.name, each.state.status, each.state.time_zone, each.position) for each in asyncio.run(read())]
    print_table(("ledger", "name", "status", "time zone", "events"), rows)


@app.command()
def show(ledger: LedgerArgument) -> None:
    """Show a ledger with its settings.

    Example: daybook ledgers show acme
    """

    async def read() -> Ledger:
        async with open_postgres(read_settings(), "daybook_command") as engine, engine.connect() as connection:
            return await read_ledger(connection, ledger)

    found = asyncio.run(read())
    print_table(("setting", "value"), [(name, value) for name, value in _settings(found).items() if value is not None])


def _settings(found: Ledger) -> dict[str, str | int | None]:
    state = found.state
    return {
        "ledger": found.ledger_id,
        "name": found.name,
        "status": state.status,
        "time zone": state.time_zone,
        "currencies": "all" if state.currencies is None else ", ".join(state.currencies),
        "events": found.position,
        "created": timestamp(found.created_at) if found.created_at else None,
        "closed": timestamp(found.closed_at) if found.closed_at else None,
    }


@app.command()
def close(ledger: LedgerArgument) -> None:
    """Close a ledger permanently: it takes no more commands, and can still be read. Closing it again changes nothing.

    Example: daybook ledgers close acme
    """
    asyncio.run(run_operator_command(read_settings(), ledger, CloseLedger(), login_name()))
    typer.echo(f"{ledger}: closed")
