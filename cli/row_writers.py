"""Prints rows and items on stdout: as a table, CSV, a JSON array, or JSON Lines."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any

import typer

from cli.tables import print_table
from query_api.statement_formats import FORMULA_SIGNS
from shared.reporting_errors import StatementInvalid

Cells = Mapping[str, Callable[[Any], Any]]
"""The columns of a table and of CSV, each with the function that returns its cell for an item."""


class OutputFormat(StrEnum):
    """How the answer of an API is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[
    OutputFormat,
    typer.Option(
        "--output", help="A table for people, CSV with the same cells, or JSON or JSON Lines with all that the API answers."
    ),
]


def print_items(items: Iterable[Any], cells: Cells, output: OutputFormat) -> None:
    """Prints each item of a list: all of its members as JSON, or its cells. CSV and JSON are written as the items come."""
    if output is OutputFormat.JSONL:
        for item in items:
            typer.echo(json.dumps(item))
    elif output is OutputFormat.JSON:
        array = JsonArray()
        for item in items:
            array.add(item)
        array.end()
    else:
        writer = TableWriter() if output is OutputFormat.TABLE else CsvWriter()
        rows = ([cell(item) for cell in cells.values()] for item in items)
        first = next(rows, None)  # before the header, so that a request that is refused prints nothing
        writer.begin([*cells])
        for row in chain([] if first is None else [first], rows):
            writer.rows([row])
        writer.end()


def print_item(item: Any, cells: Cells, output: OutputFormat) -> None:
    """Prints one item: as an object, as a table with a row for each cell, or as CSV with one row."""
    match output:
        case OutputFormat.JSON | OutputFormat.JSONL:
            typer.echo(json.dumps(item))
        case OutputFormat.CSV:
            print_items([item], cells, output)
        case OutputFormat.TABLE:
            found = [(name, cell(item)) for name, cell in cells.items()]
            print_table(("field", "value"), [(name, value) for name, value in found if value is not None])


class TableWriter:
    """Prints a table. Keeps all rows until the end, because the widest cell decides the width of its column."""

    def begin(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._rows: list[Sequence[Any]] = []

    def rows(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows += rows

    def end(self) -> None:
        print_table(self._columns, self._rows)


class CsvWriter:
    """Prints CSV (RFC 4180). None is an empty cell."""

    def begin(self, columns: Sequence[str]) -> None:
        self.rows([columns])

    def rows(self, rows: Sequence[Sequence[Any]]) -> None:
        written = io.StringIO()
        csv.writer(written).writerows([[_csv_cell(cell) for cell in row] for row in rows])
        typer.echo(written.getvalue(), nl=False)

    def end(self) -> None:
        """Does nothing: a file ends with its last row."""


def _csv_cell(cell: Any) -> Any:
    """Lets no spreadsheet run a text as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_SIGNS) else cell


class JsonArray:
    """Prints a JSON array, with each element in a line of its own."""

    _separator: str = "["

    def add(self, element: Any) -> None:
        typer.echo(f"{self._separator}{json.dumps(element)}", nl=False)
        self._separator = ",\n"

    def end(self) -> None:
        typer.echo("[]" if self._separator == "[" else "]")


class JsonWriter:
    """Prints a JSON array with an object for each row."""

    def begin(self, columns: Sequence[str]) -> None:
        """Remembers the columns.

        Raises:
            StatementInvalid: two columns have the same name, so an object could not have both.
        """
        if len({*columns}) != len(columns):
            raise StatementInvalid("two columns have the same name: give each its own, with AS")
        self._columns, self._array = columns, JsonArray()

    def rows(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self._array.add(dict(zip(self._columns, row, strict=True)))

    def end(self) -> None:
        self._array.end()
