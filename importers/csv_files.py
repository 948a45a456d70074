"""Reads CSV files strictly: their encoding, their header, and each row with its number. Faults are collected and not raised."""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from importers.faults import Faults, quoted

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The marks of UTF-32 stand first, because one of them begins with a mark of UTF-16."""
FORBIDDEN_DELIMITERS: Final = '"\r\n\0 '


class TableRow(NamedTuple):
    """A row of a file. The header is row 1, and a row that spans several lines has the number of its first line."""

    number: int
    cells: dict[str, str]


class TableFile(NamedTuple):
    """A CSV file: its name for messages, the columns of its header, and its rows."""

    name: str
    columns: list[str]
    rows: list[TableRow]


def require_encoding(name: str) -> None:
    """Raises ValueError if Python does not know this encoding of texts."""
    try:
        "".encode(name)
        b"".decode(name)
    except (LookupError, ValueError):
        raise ValueError(f"{quoted(name)} is not an encoding of texts, such as utf-8 or latin-1") from None


def require_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or delimiter in FORBIDDEN_DELIMITERS:
        raise ValueError(f"{quoted(delimiter)} is not a delimiter: give one character, such as a semicolon")


def read_file_text(path: Path, encoding: str | None, faults: Faults) -> str | None:
    """Returns the text of a file, or None after it has collected a fault.

    A byte order mark decides the encoding. Without one, it is `encoding`, or UTF-8.
    """
    if not path.is_file():
        faults.add(path.name, None, None, f"there is no such file in {path.parent}" if not path.exists() else "is not a file")
        return None
    content = path.read_bytes()
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    name = marked or encoding or "utf-8"
    try:
        text = content.decode(name)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        row = content.count(b"\n", 0, start) + 1
        faults.add(path.name, row, None, f"is not {name}: use --encoding, for example latin-1")
        return None
    lines = text.split("\n")
    with_nul = [number for number, line in enumerate(lines, 1) if "\0" in line] if "\0" in text else []
    for number in with_nul:
        faults.add(path.name, number, None, "has a NUL character: if the file is UTF-16, use --encoding utf-16-le")
    return None if with_nul else text


def read_table(path: Path, encoding: str | None, delimiter: str, faults: Faults) -> TableFile:
    """Reads a CSV file with a header. Rows with faults are left out."""
    text = read_file_text(path, encoding, faults)
    empty = TableFile(path.name, [], [])
    if text is None:
        return empty
    records = _records(path.name, text, delimiter, faults)
    _, header = next(records, (1, []))
    columns = [name.strip() for name in header]
    if not columns:
        faults.add(path.name, 1, None, "the file is empty: its first row must name the columns")
        return empty
    for name in dict.fromkeys(column for column in columns if columns.count(column) > 1):
        faults.add(path.name, 1, name, "the column is named twice")
    rows = []
    for number, cells in records:
        if len(cells) != len(columns):
            faults.add(path.name, number, None, f"has {len(cells)} cells, and the header has {len(columns)}")
            continue
        rows.append(TableRow(number, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}))
    return TableFile(path.name, columns, rows)


def _records(file: str, text: str, delimiter: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = "a quote is not closed" if "end of data" in str(error) else str(error)
            faults.add(file, number, None, f"is not CSV: {reason}")
            continue
        if cells:
            yield number, cells
