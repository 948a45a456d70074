"""What an import brings: users, accounts and transactions, checked as a whole. Every format of files is read into this form."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from importers.faults import Faults, quoted
from shared.money import AMOUNT_MAX, exponent

Kind = Literal["deposit", "withdrawal", "transfer"]
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
KINDS: Final[tuple[Kind, ...]] = ("deposit", "withdrawal", "transfer")


class Place(NamedTuple):
    """Where something stands in the files, for messages."""

    file: str
    row: int


class ImportedUser(NamedTuple):
    """A user, with the id that the other system has for it."""

    place: Place
    id: str
    name: str
    email: str


class ImportedAccount(NamedTuple):
    """An account. `overdraft_limit` is in minor units."""

    place: Place
    id: str
    owner_id: str
    currency: str
    overdraft_limit: int


class ImportedTransaction(NamedTuple):
    """A movement of money. `amount` is in minor units and positive. `to_account_id` is set if it is a transfer.

    `id` is empty if the other system has no ids of transactions.
    """

    place: Place
    id: str
    account_id: str
    kind: Kind
    amount: int
    currency: str
    occurred_at: str
    to_account_id: str
    reference: str

    def changes(self) -> Iterator[tuple[str, int]]:
        """Yields the accounts that it changes, and by how much. What it takes comes first."""
        yield self.account_id, self.amount if self.kind == "deposit" else -self.amount
        if self.kind == "transfer":
            yield self.to_account_id, self.amount


class Book(NamedTuple):
    """The content of an import. `source` names the system that the ids are of. Transactions are in the order of their dates."""

    source: str
    users: list[ImportedUser]
    accounts: list[ImportedAccount]
    transactions: list[ImportedTransaction]

    def first(self, count: int) -> "Book":
        """Returns the first `count` transactions, with the accounts and owners that they need."""
        transactions = self.transactions[:count]
        used = {account_id for transaction in transactions for account_id, _ in transaction.changes()}
        accounts = [account for account in self.accounts if account.id in used]
        owners = {account.owner_id for account in accounts}
        return Book(self.source, [user for user in self.users if user.id in owners], accounts, transactions)

    def posted(self) -> dict[str, int]:
        """Returns the sum of all balances that the transactions make, by currency."""
        sums: Counter[str] = Counter()
        for transaction in self.transactions:
            sums[transaction.currency] += sum(change for _, change in transaction.changes())
        return dict(sums)


def in_order(transactions: list[ImportedTransaction]) -> list[ImportedTransaction]:
    """Sorts transactions by time. Equal times keep the order of the file, whose newest row may stand first."""
    newest_first = bool(transactions) and transactions[0].occurred_at > transactions[-1].occurred_at
    return sorted(reversed(transactions) if newest_first else transactions, key=lambda transaction: transaction.occurred_at)


def check_balances(book: Book, faults: Faults) -> None:
    """Collects each transaction that the command API would reject, because too little or too much money is in an account."""
    limits = {account.id: account.overdraft_limit for account in book.accounts}
    balances: Counter[str] = Counter()
    for transaction in book.transactions:
        for account_id, change in transaction.changes():
            balance = balances[account_id] = balances[account_id] + change
            if change < 0 and balance < -limits[account_id]:
                would_be, limit = (in_major_units(units, transaction.currency) for units in (balance, limits[account_id]))
                reason = f"would be {would_be}, and the overdraft limit is {limit} (--continues, if earlier files were imported)"
            elif change > 0 and balance > AMOUNT_MAX:
                reason = f"would be larger than {AMOUNT_MAX} minor units"
            else:
                continue
            faults.add(*transaction.place, "amount", f"the balance of account {quoted(account_id)} {reason}")


def in_major_units(amount: int, currency: str) -> str:
    """Returns an amount of minor units as text: 123450 in EUR is "1,234.50 EUR"."""
    places = exponent(currency)
    whole, fraction = divmod(abs(amount), 10**places)
    return f"{'-' * (amount < 0)}{whole:,}{f'.{fraction:0{places}d}' if places else ''} {currency}"
