"""Arguments and options that several commands have, with their checks."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from shared.input_types import LEDGER_ID
from shared.timestamps import timestamp

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


def utf8_or_none(value: str | None) -> str | None:
    return value and utf8(value)


def moment(value: str | None) -> datetime | None:
    """Reads a point in time. Without an offset, it is in UTC, and a date is its first moment."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter("give a time in RFC 3339, such as 2026-01-31T23:59:59Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise typer.BadParameter("give a time in the years 1 to 9999 of UTC") from None


def moment_text(value: str | None) -> str | None:
    """Checks a point in time as `moment` reads it, and returns it in RFC 3339."""
    found = moment(value)
    return timestamp(found) if found else None


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
