"""Reads a folder of CSV files with users, accounts and transactions, as a mapping describes them, and checks all of it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from importers.book import (
    KINDS,
    UUID,
    Book,
    ImportedAccount,
    ImportedTransaction,
    ImportedUser,
    Kind,
    Place,
    check_balances,
    in_order,
)
from importers.csv_files import TableFile, TableRow, read_table
from importers.faults import Faults, quoted
from importers.mapping import COLUMNS, CsvMapping, TableMapping, fill, their_columns
from importers.values import read_amount, read_currency, read_date, read_text

ID_CHARACTERS_MAX: Final = 200


class MappedRow:
    """A row of a file, with the values of our columns. Its readers collect a fault and return a value that fits instead."""

    def __init__(self, place: Place, values: Mapping[str, str], names: Mapping[str, str], faults: Faults) -> None:
        """`names` maps our columns to those of the file, for messages."""
        self.place, self.values, self._names, self._faults = place, values, names, faults

    def add_fault(self, column: str, reason: str) -> None:
        self._faults.add(*self.place, self._names.get(column, column), reason)

    def read(self, column: str, reader: Callable[[str], str]) -> str:
        """Returns what `reader` makes of a value, or an empty text for an empty value."""
        text = self.values[column]
        if not text:
            return ""
        try:
            return reader(text)
        except ValueError as error:
            self.add_fault(column, str(error))
            return ""

    def amount(self, column: str, currency: str, *, decimal_comma: bool) -> int | None:
        try:
            return read_amount(self.values[column], currency, decimal_comma=decimal_comma)
        except ValueError as error:
            self.add_fault(column, str(error))
            return None


def read_folder(
    folder: Path, mapping: CsvMapping, faults: Faults, count_done: Callable[[int], None], *, continues: bool = False
) -> Book:
    """Reads the files and checks each value, each reference between them, and each balance, if nothing else is wrong.

    `continues` says that the ledger has more transactions of these accounts than the files, so balances cannot be checked.
    """
    users = _users(_rows(folder, "users", mapping, faults, count_done))
    # If a file cannot be read at all, each reference to it would be one more fault.
    known_users = users if users or not faults.count else None
    accounts = _accounts(_rows(folder, "accounts", mapping, faults, count_done), known_users, mapping)
    known_accounts = accounts if accounts or not faults.count else None
    transactions = _transactions(_rows(folder, "transactions", mapping, faults, count_done), known_accounts, mapping)
    book = Book(mapping.source, [*users.values()], [*accounts.values()], in_order(transactions))
    if not faults.count and not continues:
        check_balances(book, faults)
    return book


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _users(rows: Iterator[MappedRow]) -> dict[str, ImportedUser]:
    users: dict[str, ImportedUser] = {}
    addresses: dict[str, int] = {}
    for row in rows:
        user_id = row.read("id", _id)
        name = row.read("name", lambda text: read_text(text, "name"))
        email = row.read("email", lambda text: read_text(text, "email"))
        _require_new(row, users, user_id)
        if email and addresses.setdefault(email.lower(), row.place.row) != row.place.row:
            row.add_fault("email", f"{quoted(email)} is also in row {addresses[email.lower()]}")
        users.setdefault(user_id, ImportedUser(row.place, user_id, name, email))
    return users


def _accounts(
    rows: Iterator[MappedRow], users: Mapping[str, ImportedUser] | None, mapping: CsvMapping
) -> dict[str, ImportedAccount]:
    accounts: dict[str, ImportedAccount] = {}
    for row in rows:
        account_id = row.read("id", _id)
        owner_id = row.read("owner_id", _id)
        currency = row.read("currency", read_currency)
        limit: int | None = 0
        if row.values["overdraft_limit"]:
            limit = row.amount("overdraft_limit", currency, decimal_comma=mapping.decimal_comma)
            if limit is not None and limit < 0:
                row.add_fault("overdraft_limit", "must not be negative: it says how far below zero the balance may go")
        _require_new(row, accounts, account_id)
        if users is not None and owner_id and owner_id not in users:
            row.add_fault("owner_id", f"{mapping.users.file} has no user {quoted(owner_id)}")
        accounts.setdefault(account_id, ImportedAccount(row.place, account_id, owner_id, currency, limit or 0))
    return accounts


def _transactions(
    rows: Iterator[MappedRow], accounts: Mapping[str, ImportedAccount] | None, mapping: CsvMapping
) -> list[ImportedTransaction]:
    transactions: list[ImportedTransaction] = []
    with_id: dict[str, ImportedTransaction] = {}
    for row in rows:
        transaction = _transaction(row, accounts, mapping)
        if transaction.id:
            _require_new(row, with_id, transaction.id)
            with_id.setdefault(transaction.id, transaction)
        transactions.append(transaction)
    return transactions


def _transaction(row: MappedRow, accounts: Mapping[str, ImportedAccount] | None, mapping: CsvMapping) -> ImportedTransaction:
    account = _known_account(row, "account_id", accounts, mapping)
    occurred_at = row.read("date", lambda text: read_date(text, mapping.dates))
    reference = row.read("reference", lambda text: read_text(text, "reference"))
    currency = row.read("currency", read_currency) or (account.currency if account else "")
    if account and account.currency and currency and currency != account.currency:
        row.add_fault("currency", f"is {currency}, and account {quoted(account.id)} is kept in {account.currency}")
    units = row.amount("amount", currency, decimal_comma=mapping.decimal_comma) if row.values["amount"] else None
    kind = _kind(row, units)
    other = _other_account(row, kind, account, accounts, mapping)
    return ImportedTransaction(
        row.place,
        row.read("id", _id),
        account.id if account else "",
        kind,
        abs(units or 0),
        currency,
        occurred_at,
        other.id if other else "",
        reference,
    )


def _kind(row: MappedRow, units: int | None) -> Kind:
    """Returns what a transaction does. Without a type, a negative amount is a withdrawal. With one, no amount is negative."""
    text = row.values["type"]
    kind = next((kind for kind in KINDS if kind == text), None)
    if text and kind is None:
        row.add_fault("type", f"{quoted(text)} is not a type: use {', '.join(KINDS)}, or map the value in the mapping file")
    if units == 0:
        row.add_fault("amount", "must not be zero")
    elif units is not None and units < 0 and text:
        row.add_fault("amount", "must not be negative, because the type says where the money goes")
    return kind or ("withdrawal" if units is not None and units < 0 else "deposit")


def _other_account(
    row: MappedRow,
    kind: Kind,
    account: ImportedAccount | None,
    accounts: Mapping[str, ImportedAccount] | None,
    mapping: CsvMapping,
) -> ImportedAccount | None:
    if kind != "transfer":
        if row.values["to_account_id"]:
            row.add_fault("to_account_id", f"must be empty for a {kind}")
        return None
    if not row.values["to_account_id"]:
        row.add_fault("to_account_id", "is empty: a transfer needs the account that receives it")
        return None
    other = _known_account(row, "to_account_id", accounts, mapping)
    if account and other and account.id == other.id:
        row.add_fault("to_account_id", "an account cannot pay itself")
    elif account and other and account.currency != other.currency:
        row.add_fault(
            "to_account_id", f"account {quoted(other.id)} is kept in {other.currency}, and the payer in {account.currency}"
        )
    return other


def _known_account(
    row: MappedRow, column: str, accounts: Mapping[str, ImportedAccount] | None, mapping: CsvMapping
) -> ImportedAccount | None:
    account_id = row.read(column, _id)
    if not account_id or accounts is None:
        return None
    if account_id not in accounts:
        row.add_fault(column, f"{mapping.accounts.file} has no account {quoted(account_id)}")
    return accounts.get(account_id)


def _require_new(row: MappedRow, before: Mapping[str, ImportedUser | ImportedAccount | ImportedTransaction], value: str) -> None:
    if value and value in before:
        row.add_fault("id", f"{quoted(value)} is also the id of row {before[value].place.row}")


def _id(text: str) -> str:
    if len(text) > ID_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"{quoted(text)} is not an id: give at most {ID_CHARACTERS_MAX} printable characters")
    return text.lower() if UUID.fullmatch(text) else text


# ── rows of any table ────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(
    folder: Path, table: str, mapping: CsvMapping, faults: Faults, count_done: Callable[[int], None]
) -> Iterator[MappedRow]:
    """Yields the rows of a file with values for all our columns. The values that must not be empty are checked."""
    wanted = mapping.tables()[table]
    file = read_table(folder / wanted.file, mapping.encoding, mapping.delimiter, faults)
    if not file.columns:
        return
    templates = _templates(file, table, wanted, faults)
    if templates is None:
        return
    names = {column: ", ".join(their_columns(template)) or column for column, template in templates.items()}
    bytes_per_row = (folder / wanted.file).stat().st_size // (len(file.rows) or 1)
    for row in file.rows:
        count_done(bytes_per_row)
        if any(row.cells[column] != value for column, value in wanted.only.items()):
            continue
        values = {column: _value(row, column, templates, wanted) for column in COLUMNS[table]}
        mapped = MappedRow(Place(file.name, row.number), values, names, faults)
        for column, required in COLUMNS[table].items():
            if required and not values[column]:
                mapped.add_fault(column, "is empty")
        yield mapped


def _value(row: TableRow, column: str, templates: Mapping[str, str], wanted: TableMapping) -> str:
    text = fill(templates.get(column, ""), row.cells)
    return wanted.values.get(column, {}).get(text, text)


def _templates(file: TableFile, table: str, wanted: TableMapping, faults: Faults) -> dict[str, str] | None:
    """Returns the template of each of our columns, or None after it has collected the columns that the file lacks."""
    same_name = {column: f"{{{column}}}" for column in COLUMNS[table] if column in file.columns}
    templates = same_name | wanted.columns
    missing = {column for column, required in COLUMNS[table].items() if required and column not in templates}
    for template in templates.values():
        missing.update(name for name in their_columns(template) if name not in file.columns)
    missing.update(name for name in wanted.only if name not in file.columns)
    for name in sorted(missing):
        faults.add(file.name, 1, name, f"the column is missing; the file has {', '.join(map(quoted, file.columns))}")
    return None if missing else templates
