"""`daybook sql`: asks the tables of SQL reporting a question, and prints the answer. The database refuses every write."""

import os
import sys
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any

import typer
import uvloop

from cli.arguments import utf8
from cli.row_writers import CsvWriter, JsonWriter, TableWriter
from shared.errors import FileUnusable, SettingsInvalid
from shared.reporting_errors import StatementInvalid

VARIABLES = ("DAYBOOK_REPORTING_READ_URL", "DAYBOOK_REPORTING_URL")
"""The variables with the URL, the one that is used first."""


class AnswerFormat(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def sql(
    statement: Annotated[
        str | None, typer.Argument(help="One statement. Default: what stdin contains.", callback=lambda text: text and utf8(text))
    ] = None,
    answer_format: Annotated[
        AnswerFormat, typer.Option("--format", help="A table for people, CSV, or a JSON array of objects.")
    ] = AnswerFormat.TABLE,
    seconds: Annotated[float, typer.Option(min=0.001, max=86_400, help="The longest time that the statement may take.")] = 600,
) -> None:
    """Ask the tables of SQL reporting a question in SQL, and print the answer. The database refuses a statement that writes.

    The tables hold all ledgers and generations: docs/stores.md says how to ask for the live one.

    Uses DAYBOOK_REPORTING_READ_URL, or DAYBOOK_REPORTING_URL if that is not set, and needs no other setting. Money is in minor
    units, and whole numbers stay whole. In CSV, a text that a spreadsheet would run as a formula gets an apostrophe in front.

    Example: daybook sql "SELECT ledger_id, number, position FROM generations" --format csv
    """
    variable = next((each for each in VARIABLES if os.environ.get(each)), None)
    if variable is None:
        raise SettingsInvalid([f"{VARIABLES[0]}: is not set, so there are no tables to ask: see docs/stores.md"])
    text = _read_stdin() if statement is None else statement
    if not text.strip() or "\0" in text:
        raise StatementInvalid("there is no statement: give one as an argument, or on stdin")
    writer = WRITERS[answer_format]()
    if not uvloop.run(_ask(variable, text, seconds, writer)):
        typer.echo("the statement returned no rows and no columns", err=True)


async def _ask(variable: str, statement: str, seconds: float, writer: Any) -> bool:
    try:
        statements = import_module("shared.reporting.statements")
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[sql]'`"
        raise SettingsInvalid([f"{variable}: {problem}"]) from None
    async with statements.open_to_read(os.environ[variable], variable) as store:
        found: bool = await statements.run_statement(store, statement, seconds, writer)
    return found


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise StatementInvalid("stdin is not a text in UTF-8") from None
    except OSError as error:
        raise FileUnusable(f"stdin cannot be read: {error.strerror or error}") from None


WRITERS = {AnswerFormat.TABLE: TableWriter, AnswerFormat.CSV: CsvWriter, AnswerFormat.JSON: JsonWriter}
