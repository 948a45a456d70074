"""Arguments and options that several commands have, with their checks."""

from typing import Annotated, Final

import typer

from shared.input_types import LEDGER_ID

POSITION_MAX: Final = 2**63 - 1
"""The greatest position that PostgreSQL can hold."""


def ledger_id(value: str) -> str:
    if not LEDGER_ID.fullmatch(value):
        raise typer.BadParameter("give at most 31 lower-case letters, digits and hyphens, beginning with a letter")
    return value


def utf8(value: str) -> str:
    """Checks that a text was given in UTF-8. Python keeps other bytes as characters that no store can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("give a text in UTF-8") from None
    return value


LedgerOption = Annotated[str, typer.Option(help="The ledger.", callback=ledger_id)]
PositionArgument = Annotated[
    int,
    typer.Argument(
        metavar="POSITION",
        min=1,
        max=POSITION_MAX,
        help="The event's position in the log, as `daybook dead-letters list` shows it.",
    ),
]
