"""A small model of what Daybook does with money, in plain Python. It shares no code with the product.

Each method takes the fields of one command. It changes the model, or raises `Rejected` with the code of the first rule that is
broken, in the order that the command documents.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

LARGEST = 2**53 - 1

Posting = tuple[str | None, int, str]
"""An account or the outside world, what it gets (below 0: gives), and the currency."""


class Rejected(Exception):  # a rejection is an answer, no error
    """The ledger must answer with the problem of this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Limits:
    smallest: int | None = None
    largest: int | None = None
    per_day: int | None = None
    per_month: int | None = None


@dataclass
class Account:
    currency: str
    limit: int = 0
    posted: int = 0
    held: int = 0
    status: str = "open"
    limits: Limits = Limits()
    spent: Counter[str] = field(default_factory=Counter)
    """Day, and month → what was spent in it. It counts from when the account got the limit of a day, or of a month."""

    @property
    def available(self) -> int:
        return self.posted + self.limit - self.held


@dataclass
class Hold:
    payer: str
    payee: str | None
    currency: str
    remaining: int
    status: str = "active"


@dataclass
class Transfer:
    payer: str | None
    payee: str | None
    amount: int
    reversed: int = 0
    is_reversible: bool = True


@dataclass
class Model:
    accounts: dict[str, Account] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    outside: Counter[str] = field(default_factory=Counter)
    """Currency → what the outside world has, negative if it gave more than it got."""
    day: str = ""
    """The day on which the next command is decided, such as 2026-01-31."""

    # ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, account_id: str, currency: str, limit: int) -> None:
        if account_id in self.accounts:
            raise Rejected("id-taken")
        self.accounts[account_id] = Account(currency, limit)

    def freeze(self, account_id: str) -> None:
        self._account(account_id)
        self._not_closed(account_id)
        self.accounts[account_id].status = "frozen"

    def unfreeze(self, account_id: str) -> None:
        self._account(account_id)
        self._not_closed(account_id)
        self.accounts[account_id].status = "open"

    def close(self, account_id: str) -> None:
        account = self._account(account_id)
        if account.status == "frozen":
            raise Rejected("account-frozen")
        if account.posted or account.held:
            raise Rejected("account-not-empty")
        account.status = "closed"

    def change_limit(self, account_id: str, limit: int) -> None:
        account = self._account(account_id)
        self._not_closed(account_id)
        if account.limit - limit > max(account.available, 0):
            raise Rejected("insufficient-funds")
        if limit > account.limit and account.posted + limit > LARGEST:
            raise Rejected("balance-out-of-range")
        account.limit = limit

    def change_limits(self, account_id: str, limits: Limits) -> None:
        account = self._account(account_id)
        self._not_closed(account_id)
        for period, had, has in (
            (self.day, account.limits.per_day, limits.per_day),
            (self.day[:7], account.limits.per_month, limits.per_month),
        ):
            if had is None or has is None:
                account.spent[period] = 0
        account.limits = limits

    # ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def transfer(self, transfer_id: str, payer: str | None, payee: str | None, amount: int, currency: str) -> None:
        """Moves money between two accounts, or between one and the outside world."""
        if payer == payee:
            raise Rejected("same-account")
        self._new(transfer_id)
        self._usable((payer, payee), currency)
        spent = self._spendable(payer, amount)
        self._pay(payer, payee, amount, currency)
        self._count(payer, spent)
        self.transfers[transfer_id] = Transfer(payer, payee, amount)

    def move(self, transfer_id: str, postings: Sequence[Posting]) -> None:
        """Moves money between many accounts and the outside world, all of it or nothing."""
        if len({(end, currency) for end, _, currency in postings}) < len(postings):
            raise Rejected("same-account")
        for each in {currency for _, _, currency in postings}:
            if sum(amount for _, amount, currency in postings if currency == each):
                raise Rejected("postings-unbalanced")
        self._new(transfer_id)
        self._open_accounts([end for end, _, _ in postings])
        if any(end and self.accounts[end].currency != currency for end, _, currency in postings):
            raise Rejected("currency-mismatch")
        payers = [(end, -amount) for end, amount, _ in postings if end and amount < 0]
        spent = [self._spendable(payer, amount) for payer, amount in payers]
        if any(amount > self.accounts[payer].available for payer, amount in payers):
            raise Rejected("insufficient-funds")
        for end, amount, _ in postings:
            self._in_range(end, max(amount, 0))
        for (payer, _), amount in zip(payers, spent, strict=True):
            self._count(payer, amount)
        for end, amount, currency in postings:
            self._change(end, amount, currency)
        self.transfers[transfer_id] = Transfer(None, None, 0, is_reversible=False)

    def reverse(self, reversal_id: str, transfer_id: str, amount: int | None) -> None:
        self._new(reversal_id)
        transfer = self.transfers.get(transfer_id)
        if transfer is None:
            raise Rejected("not-found")
        if not transfer.is_reversible:
            raise Rejected("transfer-not-reversible")
        ends = transfer.payee, transfer.payer
        currency = next(self.accounts[each].currency for each in ends if each)
        self._usable(ends, currency)
        left = transfer.amount - transfer.reversed
        if not left:
            raise Rejected("transfer-already-reversed")
        amount = amount or left
        if amount > left:
            raise Rejected("reversal-amount-exceeded")
        self._pay(*ends, amount, currency)
        transfer.reversed += amount
        self.transfers[reversal_id] = Transfer(*ends, amount, is_reversible=False)

    # ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, hold_id: str, payer: str, payee: str | None, amount: int, currency: str) -> None:
        if payer == payee:
            raise Rejected("same-account")
        if hold_id in self.holds:
            raise Rejected("id-taken")
        self._usable((payer, payee) if payee else (payer,), currency)
        if amount > self.accounts[payer].available:
            raise Rejected("insufficient-funds")
        self.accounts[payer].held += amount
        self.holds[hold_id] = Hold(payer, payee, currency, amount)

    def capture(self, transfer_id: str, hold_id: str, amount: int | None, *, final: bool) -> None:
        self._new(transfer_id)
        hold = self.holds.get(hold_id)
        if hold is None:
            raise Rejected("not-found")
        self._usable((hold.payer, hold.payee) if hold.payee else (hold.payer,), hold.currency)
        if hold.status != "active":
            raise Rejected("hold-not-active")
        amount = amount or hold.remaining
        if amount > hold.remaining:
            raise Rejected("hold-amount-exceeded")
        spent = self._spendable(hold.payer, amount)
        self._in_range(hold.payee, amount)
        self._count(hold.payer, spent)
        taken = hold.remaining if final else amount
        self.accounts[hold.payer].held -= taken
        self._move(hold.payer, hold.payee, amount, hold.currency)
        hold.remaining -= taken
        hold.status = "active" if hold.remaining else "captured"
        self.transfers[transfer_id] = Transfer(hold.payer, hold.payee, amount)

    def release(self, hold_id: str) -> None:
        hold = self.holds.get(hold_id)
        if hold is None:
            raise Rejected("not-found")
        if hold.status != "active":
            raise Rejected("hold-not-active")
        self.accounts[hold.payer].held -= hold.remaining
        hold.remaining, hold.status = 0, "released"

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new(self, transfer_id: str) -> None:
        if transfer_id in self.transfers:
            raise Rejected("id-taken")

    def _account(self, account_id: str) -> Account:
        if account_id not in self.accounts:
            raise Rejected("not-found")
        return self.accounts[account_id]

    def _not_closed(self, account_id: str) -> None:
        if self.accounts[account_id].status == "closed":
            raise Rejected("account-closed")

    def _usable(self, ends: tuple[str | None, ...], currency: str) -> None:
        if {account.currency for account in self._open_accounts(ends)} != {currency}:
            raise Rejected("currency-mismatch")

    def _open_accounts(self, ends: Sequence[str | None]) -> list[Account]:
        accounts = [self._account(each) for each in ends if each]
        for code, status in (("account-closed", "closed"), ("account-frozen", "frozen")):
            if status in {account.status for account in accounts}:
                raise Rejected(code)
        return accounts

    def _spendable(self, payer: str | None, amount: int) -> int:
        """Checks the limits of an account, and returns what counts as spent."""
        if payer is None:
            return 0
        account = self.accounts[payer]
        limits = account.limits
        if amount < (limits.smallest or 0) or (limits.largest is not None and amount > limits.largest):
            raise Rejected("amount-outside-limits")
        for period, limit in ((self.day, limits.per_day), (self.day[:7], limits.per_month)):
            if limit is not None and account.spent[period] + amount > limit:
                raise Rejected("limit-exceeded")
        return amount

    def _count(self, payer: str | None, spent: int) -> None:
        if payer:
            self.accounts[payer].spent.update({self.day: spent, self.day[:7]: spent})

    def _in_range(self, payee: str | None, amount: int) -> None:
        if payee and self.accounts[payee].posted + amount + self.accounts[payee].limit > LARGEST:
            raise Rejected("balance-out-of-range")

    def _pay(self, payer: str | None, payee: str | None, amount: int, currency: str) -> None:
        if payer and amount > self.accounts[payer].available:
            raise Rejected("insufficient-funds")
        self._in_range(payee, amount)
        self._move(payer, payee, amount, currency)

    def _move(self, payer: str | None, payee: str | None, amount: int, currency: str) -> None:
        self._change(payer, -amount, currency)
        self._change(payee, amount, currency)

    def _change(self, end: str | None, amount: int, currency: str) -> None:
        if end:
            self.accounts[end].posted += amount
        else:
            self.outside[currency] += amount
