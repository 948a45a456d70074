"""The mapping of an import: which file, column and value of another system is which of ours. Users write it as TOML."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from importers.csv_files import require_delimiter, require_encoding
from importers.faults import ImportFileInvalid, quoted
from importers.values import require_date_format

COLUMNS: Final[Mapping[str, Mapping[str, bool]]] = {
    "users": {"id": True, "name": True, "email": True},
    "accounts": {"id": True, "owner_id": True, "currency": True, "overdraft_limit": False},
    "transactions": {
        "id": False,
        "account_id": True,
        "type": False,
        "amount": True,
        "currency": False,
        "date": True,
        "to_account_id": False,
        "reference": False,
    },
}
"""By table and column, whether each row must have a value."""

_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_SOURCE: Final = re.compile(r"[A-Za-z0-9._-]{1,60}")


class TableMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the rows of one file become rows of one of our tables.

    `columns` maps our column to a template: `{name}` stands for the value of their column `name`, and other text for itself.
    `values` maps a value of our column to another value. `only` names the rows to read, by the value of their columns.
    """

    file: str
    columns: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    only: dict[str, str] = {}


class CsvMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a folder of CSV files is read.

    `source` names the system that the files come from. The same id of two sources is two things. `dates` is a form of dates as of
    `datetime.strptime`.
    """

    source: str = "csv"
    delimiter: str = ","
    encoding: str | None = None
    decimal_comma: bool = False
    dates: str | None = None
    users: TableMapping = TableMapping("users.csv")
    accounts: TableMapping = TableMapping("accounts.csv")
    transactions: TableMapping = TableMapping("transactions.csv")

    def tables(self) -> dict[str, TableMapping]:
        return {"users": self.users, "accounts": self.accounts, "transactions": self.transactions}

    def require_valid(self) -> None:
        """Checks what the types do not say.

        Raises:
            ValueError: the text is a reason for the user.
        """
        require_delimiter(self.delimiter)
        if self.encoding is not None:
            require_encoding(self.encoding)
        if self.dates is not None:
            require_date_format(self.dates)
        if not _SOURCE.fullmatch(self.source):
            raise ValueError(f"{quoted(self.source)} is not a source: give letters, digits, points and hyphens, at most 60")
        for table, mapping in self.tables().items():
            for column in [*mapping.columns, *mapping.values]:
                if column not in COLUMNS[table]:
                    raise ValueError(f"{table} has no column {quoted(column)}, but: {', '.join(COLUMNS[table])}")


def read_mapping(path: Path) -> CsvMapping:
    """Reads a mapping file.

    Raises:
        ImportFileInvalid: the file is not such a mapping.
    """
    try:
        mapping = msgspec.convert(tomllib.loads(path.read_text("utf-8")), CsvMapping)
        mapping.require_valid()
    except (ValueError, RecursionError) as error:  # wrong UTF-8, wrong TOML, wrong types and wrong values are ValueErrors
        raise ImportFileInvalid(f"{path}: {error}") from None
    return mapping


def their_columns(template: str) -> list[str]:
    """Returns the columns of the file that a template names."""
    return _PLACE.findall(template)


def fill(template: str, cells: Mapping[str, str]) -> str:
    """Returns the value of a template in a row. It is empty if all columns that the template names are."""
    names = their_columns(template)
    if names and not any(cells[name] for name in names):
        return ""
    return _PLACE.sub(lambda place: cells[place[1]], template).strip()
