"""`daybook ledgers`: creates, changes, lists, shows and closes ledgers."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from cli.arguments import ledger_id, utf8
from cli.tables import print_table
from command_api.domain.ledger import ChangeLedger, CloseLedger, CreateLedger, LedgerRules, LedgerSettings
from command_api.operator_commands import run_operator_command
from shared.errors import IdTaken
from shared.input_types import LEDGER_ID
from shared.log.ledgers import Ledger, read_ledger, read_ledgers
from shared.login_name import login_name
from shared.settings import read_settings
from shared.stores.postgres import open_postgres
from shared.timestamps import timestamp

app = typer.Typer(help="Create, change, list, show and close ledgers.", no_args_is_help=True)

ID_LENGTH_MAX: Final = 31
ALL: Final = "all"
NONE: Final = "none"
TRANSFER_MAX_HELP: Final = "The largest amount of a transfer in minor units, such as EUR=1000000."


def utf8_each(values: list[str] | None) -> list[str] | None:
    return values and [utf8(value) for value in values]


LedgerArgument = Annotated[str, typer.Argument(metavar="LEDGER", help="The id of the ledger.", callback=ledger_id)]


def _id_of(name: str) -> str:
    """Makes an id from the name of a ledger: `Acme Ltd.` becomes `acme-ltd`."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:ID_LENGTH_MAX].strip("-")
    if not LEDGER_ID.fullmatch(made):
        raise typer.BadParameter("no id can be made from the name: choose one", param_hint="--id")
    return made


def _utf8_or_none(value: str | None) -> str | None:
    return value and utf8(value)


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
        str, typer.Option(help="The currencies in which accounts can be opened, with commas: EUR,USD. Or all.")
    ] = ALL,
    transfer_max: Annotated[
        list[str] | None, typer.Option(help=f"{TRANSFER_MAX_HELP} Repeat the option for more.", callback=utf8_each)
    ] = None,
) -> None:
    """Create a ledger. It takes commands at once. Then make a key for it with `daybook keys create --ledger`.

    Example: daybook ledgers create "Acme" --time-zone Europe/Berlin --currencies EUR,USD
    """
    new_id = id_ or _id_of(name)
    with _wrong_values_shown():
        settings = LedgerSettings(time_zone=time_zone, **_rules(currencies, transfer_max or []))
        command = CreateLedger(name=name, settings=settings)
    try:
        asyncio.run(run_operator_command(read_settings(), new_id, command, login_name()))
    except IdTaken:
        raise typer.BadParameter(f"there is a ledger {new_id} already: choose another id", param_hint="--id") from None
    typer.echo(f"{new_id}: created")


def _rules(currencies: str, transfer_max: Sequence[str]) -> dict[str, Any]:
    """Returns the members of `LedgerRules` that the options say."""
    largest: dict[str, Any] = {}
    for each in transfer_max:
        currency, _, amount = each.partition("=")
        if not amount.isascii() or not amount.isdigit():
            raise typer.BadParameter("give a currency and minor units, such as EUR=1000000", param_hint="--transfer-max")
        largest[currency] = int(amount)
    return {"currencies": None if currencies == ALL else tuple(currencies.split(",")), "transfer_max": largest or None}


@contextmanager
def _wrong_values_shown() -> Iterator[None]:
    try:
        yield
    except ValidationError as invalid:
        raise typer.BadParameter("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in invalid.errors())) from None


@app.command()
def change(
    ledger: LedgerArgument,
    name: Annotated[str | None, typer.Option(help="What the ledger is called from now on.", callback=_utf8_or_none)] = None,
    currencies: Annotated[str | None, typer.Option(help="The currencies of new accounts, with commas: EUR,USD. Or all.")] = None,
    transfer_max: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{TRANSFER_MAX_HELP} Repeat the option for more. They replace all limits. Or none.", callback=utf8_each
        ),
    ] = None,
) -> None:
    """Change the settings of a ledger. An option that is left out changes nothing. The time zone cannot be changed.

    Example: daybook ledgers change acme --transfer-max EUR=1000000
    """
    found = asyncio.run(_read(ledger))
    state = found.state
    with _wrong_values_shown():
        kept = {"currencies": state.currencies, "transfer_max": dict(state.transfer_max) if state.transfer_max else None}
        given = _rules(currencies or ALL, [each for each in transfer_max or [] if each != NONE])
        changed = {"currencies"} if currencies else set()
        changed |= {"transfer_max"} if transfer_max else set()
        rules = LedgerRules(**kept | {option: given[option] for option in changed})
        command = ChangeLedger(name=name or found.name, rules=rules)
    asyncio.run(run_operator_command(read_settings(), ledger, command, login_name()))
    typer.echo(f"{ledger}: changed")


async def _read(ledger_id: str) -> Ledger:
    async with open_postgres(read_settings(), "daybook_command") as engine, engine.connect() as connection:
        return await read_ledger(connection, ledger_id)


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
    found = asyncio.run(_read(ledger))
    print_table(("setting", "value"), [(name, value) for name, value in _settings(found).items() if value is not None])


def _settings(found: Ledger) -> dict[str, str | int | None]:
    state = found.state
    return {
        "ledger": found.ledger_id,
        "name": found.name,
        "status": state.status,
        "time zone": state.time_zone,
        "currencies": "all" if state.currencies is None else ", ".join(state.currencies),
        "transfer max": ", ".join(f"{currency}={most}" for currency, most in sorted((state.transfer_max or {}).items())) or None,
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
