"""Checks the money: every balance is the one before it plus the amount, and all balances of a currency sum to zero.

Each event says how it changes accounts (`EventStruct.postings`), so an event that moves no money needs no code here. The check
keeps all accounts in memory, but no events.
"""

from collections import Counter
from typing import NamedTuple

from projector.verify.difference import DifferenceFound, require_equal
from shared.log.account_events import AccountOpened, OverdraftLimitChanged
from shared.log.event_struct import Posting
from shared.log.events import Event
from shared.log.user_events import UserCreated, UserErased


class _OpenedAccount(NamedTuple):
    currency: str
    balance_min: int


class AccountBooks:
    """Adds up the amounts of the events to the balance of every account, and compares them with the balances in the events."""

    def __init__(self) -> None:
        self._accounts: dict[str, _OpenedAccount] = {}
        self._balances: dict[str, int] = {}
        self._outside: Counter[str] = Counter()
        """Currency → balance of the outside world."""

    @property
    def accounts(self) -> int:
        return len(self._accounts)

    def enter(self, position: int, event: Event) -> None:
        """Adds the amounts of an event to the balances, and checks the balances in the event.

        Raises:
            DifferenceFound: a balance is not the one before plus the amount, or is below the account's limit; or the amounts of
                the event do not sum to zero.
        """
        if isinstance(event, AccountOpened):
            self._accounts[event.account_id] = _OpenedAccount(event.currency, -event.overdraft_limit)
            self._balances[event.account_id] = 0
        elif isinstance(event, OverdraftLimitChanged):
            self._accounts[event.account_id] = _OpenedAccount(event.currency, -event.overdraft_limit)
        postings = event.postings()
        for posting in postings:
            self._post(f"position {position} of the log", posting)
        sums = Counter[str]()
        for posting in postings:
            sums[posting.currency] += posting.amount
        for currency, total in sums.items():
            require_equal(f"position {position} of the log, sum of the postings in {currency}", 0, total)

    def _post(self, where: str, posting: Posting) -> None:
        if posting.account_id is None:
            self._outside[posting.currency] += posting.amount
            return
        where = f"{where}, account {posting.account_id}"
        account = self._accounts.get(posting.account_id)
        require_equal(f"{where}, currency", account and account.currency, posting.currency)
        balance = self._balances[posting.account_id] + posting.amount
        require_equal(f"{where}, balance", balance, posting.balance)
        if account and posting.amount < 0 and balance < account.balance_min:
            raise DifferenceFound(f"{where}, balance", f"{account.balance_min} or more", balance)
        self._balances[posting.account_id] = balance

    def close(self) -> None:
        """Checks that all balances of each currency sum to zero, with the balance of the outside world.

        Raises:
            DifferenceFound: the balances of a currency do not sum to zero.
        """
        sums = Counter(self._outside)
        for account_id, balance in self._balances.items():
            sums[self._accounts[account_id].currency] += balance
        for currency, total in sums.items():
            require_equal(f"sum of all balances in {currency} and of the outside world", 0, total)


class FoldedLog:
    """Totals of the events of a log, for later checks to compare with the stored data."""

    def __init__(self) -> None:
        self.books = AccountBooks()
        self.stream_events = 0
        """The number of rows that the table `stream_events` must have: one for each stream of each event."""
        self.people: set[str] = set()
        """The ids of the people who must have a person key."""
        self.erased: set[str] = set()
        """The ids of the people who must have no person key, because they were erased."""

    def enter(self, position: int, event: Event) -> None:
        """Adds an event to the totals.

        Raises:
            DifferenceFound: the amounts and balances of the event do not agree with the events before it.
        """
        self.stream_events += len(event.streams())
        self.books.enter(position, event)
        if isinstance(event, UserCreated):
            self.people.add(event.user_id)
        elif isinstance(event, UserErased):
            self.people.discard(event.user_id)
            self.erased.add(event.user_id)
