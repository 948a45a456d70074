"""Prints tables. No cell is ever shortened.

On a terminal that is too narrow for a table, each row becomes a record of lines. Elsewhere, lines are as long as they must be.
"""

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table

from shared.logs import escaped

COLUMNS_MAX: Final = 10_000
"""The width of a table that is not printed on a terminal, and the greatest width of a terminal that is believed."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows of cells. A cell that is None is empty."""
    texts = [["" if cell is None else "\n".join(map(escaped, str(cell).splitlines())) for cell in row] for row in rows]
    table = Table(*columns)
    for row in texts:
        table.add_row(*row, style=None)
    console = Console(width=terminal_columns(), highlight=False, markup=False, emoji=False)
    if console.measure(table, options=console.options.update(width=COLUMNS_MAX)).maximum <= console.width:
        console.print(table)
        return
    for row in texts:
        for column, text in zip(columns, row, strict=True):
            typer.echo(f"{column}: {text}")
        typer.echo()


def terminal_columns() -> int:
    """Returns the width of the terminal, or `COLUMNS_MAX` if stdout is not a terminal."""
    if not sys.stdout.isatty():
        return COLUMNS_MAX
    return min(shutil.get_terminal_size().columns, COLUMNS_MAX)
