"""Turns bank statements, of whichever format, into the content of an import.

A statement is checked against itself: its opening balance and its entries must add up to its closing balance. An entry is the
same fact as before if its statement begins with the same balance, and the bank says the same of the entry. Of equal entries of a
statement, the first, the second and so on are different facts.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from importers.book import Book, ImportedAccount, ImportedTransaction, Place, check_balances, in_major_units
from importers.faults import Faults, quoted
from importers.values import read_amount, read_currency, read_date, read_text

REFERENCE_CHARACTERS_MAX: Final = 140


class StatementBalance(NamedTuple):
    """The balance of an account on a day, as texts of the file."""

    amount: str
    date: str


class StatementEntry(NamedTuple):
    """One entry of a statement, as texts of the file. The amount has a minus sign if money went out. `bank_id` can be empty."""

    bank_id: str
    amount: str
    date: str
    reference: str


class Statement(NamedTuple):
    """A statement of one account. Balances are None if the format has none."""

    account: str
    currency: str
    opening: StatementBalance | None
    closing: StatementBalance | None
    entries: list[StatementEntry]


class StatementOptions(NamedTuple):
    """Where statements go: `accounts` maps accounts of the bank to ids of Daybook, and others are opened for `owner_id`."""

    accounts: Mapping[str, str]
    owner_id: str
    opening_balance: bool
    continues: bool


def book_of(source: str, file: str, statements: list[Statement], options: StatementOptions, faults: Faults) -> Book:
    """Returns the content of an import. The rows of messages are numbers of entries in the file, counted from 1."""
    accounts: dict[str, ImportedAccount] = {}
    transactions: list[ImportedTransaction] = []
    reader = _EntryReader(source, file, faults)
    if not statements and not faults.count:
        faults.add(file, None, None, "the file has no statement")
    for statement in statements:
        account_id = _account_id(file, statement, options, faults)
        try:
            read_currency(statement.currency)
        except ValueError as error:
            faults.add(file, None, "currency", str(error))
            continue
        is_first = account_id not in accounts
        accounts.setdefault(
            account_id, ImportedAccount(Place(file, 1), account_id, options.owner_id, statement.currency, overdraft_limit=0)
        )
        transactions += reader.transactions(account_id, statement, opening_balance=options.opening_balance and is_first)
    opened = [account for account in accounts.values() if account.id not in options.accounts.values()]
    transactions.sort(key=lambda transaction: transaction.occurred_at)
    if not faults.count and not options.continues:
        of_opened = [transaction for transaction in transactions if transaction.account_id in {account.id for account in opened}]
        check_balances(Book(source, [], opened, of_opened), faults)
    return Book(source, [], opened, transactions)


def _account_id(file: str, statement: Statement, options: StatementOptions, faults: Faults) -> str:
    """Returns the id of Daybook's account for the account of a statement.

    That is the id that `--account` names for it. With `--owner`, a new account gets its number in the statement as its id.
    """
    found = options.accounts.get(statement.account, options.accounts.get("", ""))
    if not found and not options.owner_id:
        reason = f"use --account {statement.account}=ID for an account of Daybook, or --owner to open one"
        faults.add(file, None, None, f"has a statement of account {quoted(statement.account)}: {reason}")
    return found or statement.account


class _EntryReader:
    """Reads the entries of the statements of a file, and collects faults."""

    def __init__(self, source: str, file: str, faults: Faults) -> None:
        self._source, self._file, self._faults = source, file, faults
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._row = 0

    def transactions(self, account_id: str, statement: Statement, *, opening_balance: bool) -> list[ImportedTransaction]:
        found = [self._entry(account_id, statement, entry) for entry in statement.entries]
        begins, ends = (self._units(balance, statement.currency) for balance in (statement.opening, statement.closing))
        sums = sum(change for transaction in found for _, change in transaction.changes())
        if begins is not None and ends is not None and begins + sums != ends and not self._faults.count:
            texts = [in_major_units(units, statement.currency) for units in (begins, sums, ends)]
            reason = "the opening balance {} and entries of {} do not add up to the closing balance {}".format(*texts)
            self._faults.add(self._file, None, None, f"account {quoted(statement.account)}: {reason}")
        if opening_balance and statement.opening and begins:
            entry = StatementEntry("", statement.opening.amount, statement.opening.date, "Opening balance")
            found.insert(0, self._made(account_id, statement, entry, "opening balance"))
        return found

    def _entry(self, account_id: str, statement: Statement, entry: StatementEntry) -> ImportedTransaction:
        self._row += 1
        begins = statement.opening or StatementBalance("", "")
        content = (statement.account, *begins, *entry)
        self._seen[content] += 1
        return self._made(account_id, statement, entry, "\n".join([*content, str(self._seen[content])]))

    def _made(self, account_id: str, statement: Statement, entry: StatementEntry, identity: str) -> ImportedTransaction:
        units, occurred_at, text = 1, "", _clean(entry.reference)
        try:
            units = read_amount(entry.amount, statement.currency, decimal_comma=False)
        except ValueError as error:
            self._add("amount", error)
        try:
            occurred_at = read_date(entry.date, None)
        except ValueError as error:
            self._add("date", error)
        try:
            text = text and read_text(text, "reference")
        except ValueError as error:
            self._add("reference", error)
        if units == 0:
            self._add("amount", "must not be zero")
        return ImportedTransaction(
            Place(self._file, self._row),
            f"{account_id}\n{identity}",
            account_id,
            "deposit" if units >= 0 else "withdrawal",
            abs(units),
            statement.currency,
            occurred_at,
            "",
            text,
        )

    def _units(self, balance: StatementBalance | None, currency: str) -> int | None:
        try:
            return read_amount(balance.amount, currency, decimal_comma=False) if balance else None
        except ValueError as error:
            self._faults.add(self._file, None, "balance", str(error))
            return None

    def _add(self, column: str, reason: ValueError | str) -> None:
        self._faults.add(self._file, self._row, column, str(reason))


def _clean(text: str) -> str:
    """Returns a text in one line, without what cannot be printed, and not longer than a reference may be."""
    words = "".join(character if character.isprintable() else " " for character in text).split()
    return " ".join(words)[:REFERENCE_CHARACTERS_MAX].strip()
