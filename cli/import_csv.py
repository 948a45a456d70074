"""`daybook import csv` and `daybook import berka`: load users, accounts and transactions from CSV files."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.book_import import (
    COMMAND_URL,
    CommandUrlOption,
    ConcurrencyOption,
    ContinuesOption,
    DryRunOption,
    checked,
    read_book,
    send_book,
)
from importers.berka import BERKA
from importers.csv_folder import read_folder
from importers.mapping import CsvMapping, read_mapping


def import_csv(
    folder: Annotated[Path, typer.Argument(help="The folder with users.csv, accounts.csv and transactions.csv.", exists=True)],
    *,
    mapping: Annotated[
        Path | None,
        typer.Option(help="A TOML file that says which of their files, columns and values is which of ours.", dir_okay=False),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="The character between cells, or `tab`. The default is a comma.")] = None,
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="Amounts are written as in 1.234,50.")] = False,
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of the files, if they have no byte order mark. The default is UTF-8.")
    ] = None,
    dates: Annotated[
        str | None, typer.Option(help="The form of the dates, such as %d.%m.%Y. The default is ISO 8601, such as 2026-11-21.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="A name for the system that the files come from: equal ids of two sources are two things.")
    ] = None,
    continues: ContinuesOption = False,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = 64,
    command_url: CommandUrlOption = COMMAND_URL,
) -> None:
    """Load users, accounts and transactions from CSV files. docs/importing.md describes the columns and the mapping.

    All files are checked before anything is sent, and everything that is wrong is told at once. A second run changes nothing,
    and longer files add what is new. The API key is read from DAYBOOK_API_KEY.

    Example: daybook import csv ./export --delimiter ";" --decimal-comma --dry-run
    """
    chosen = read_mapping(mapping) if mapping else CsvMapping()
    options = {
        "delimiter": "\t" if delimiter in {"tab", "\\t"} else delimiter,
        "decimal_comma": decimal_comma or None,
        "encoding": encoding,
        "dates": dates,
        "source": source,
    }
    for name, value in options.items():
        if value is not None:
            chosen = msgspec.structs.replace(chosen, **{name: value})
            checked(f"--{name.replace('_', '-')}", chosen.require_valid)
    book = read_book(
        "import csv",
        folder_bytes(folder, chosen),
        lambda faults, count: read_folder(folder, chosen, faults, count, continues=continues),
    )
    send_book("import csv", book, dry_run=dry_run, concurrency=concurrency, command_url=command_url)


def import_berka(
    folder: Annotated[Path, typer.Argument(help="The folder with trans.asc, disp.asc and client.asc.", exists=True)],
    *,
    rows: Annotated[
        int | None,
        typer.Option(help="Import only this many transactions, from the first, with their accounts and owners.", min=1),
    ] = None,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = 64,
    command_url: CommandUrlOption = COMMAND_URL,
) -> None:
    """Load the PKDD'99 "Berka" bank transactions. A second run changes nothing. The API key is read from DAYBOOK_API_KEY.

    Example: daybook import berka ../shared/data/berka --rows 3000
    """
    book = read_book("import berka", folder_bytes(folder, BERKA), lambda faults, count: read_folder(folder, BERKA, faults, count))
    book = book.first(rows) if rows else book
    send_book("import berka", book, dry_run=dry_run, concurrency=concurrency, command_url=command_url)


def folder_bytes(folder: Path, mapping: CsvMapping) -> int:
    """Returns the size of all files of a mapping, for the progress."""
    paths = [folder / table.file for table in mapping.tables().values()]
    return sum(path.stat().st_size for path in paths if path.is_file())
