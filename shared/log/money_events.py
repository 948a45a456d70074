"""Events that move money. Class names and field names are the storage format: never rename one.

Each event contains the balances that result from it, so a reader need not know the earlier state. Amounts and balances are in
minor units. `occurred_at` is RFC 3339 in UTC, or None if the money moved at the time of recording. `spent` is what the payer has
spent after the event, or None if no limit of the payer counts it.
"""

import msgspec

from shared.log.event_struct import EventStruct, Posting, ScheduledRun, Spent
from shared.log.streams import account_stream, hold_stream, schedule_stream, transfer_stream


class FundsDeposited(EventStruct, frozen=True):
    """Money came into an account from the outside world. `balance` is the account's balance after the deposit."""

    transfer_id: str
    account_id: str
    amount: int
    currency: str
    balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), account_stream(self.account_id)

    def postings(self) -> tuple[Posting, ...]:
        return (
            Posting(None, self.currency, -self.amount, None),
            Posting(self.account_id, self.currency, self.amount, self.balance),
        )


class FundsWithdrawn(EventStruct, frozen=True):
    """Money went from an account to the outside world. `balance` is the account's balance after the withdrawal."""

    transfer_id: str
    account_id: str
    amount: int
    currency: str
    balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None
    spent: Spent | None = None

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), account_stream(self.account_id)

    def postings(self) -> tuple[Posting, ...]:
        return (
            Posting(self.account_id, self.currency, -self.amount, self.balance),
            Posting(None, self.currency, self.amount, None),
        )


class FundsTransferred(EventStruct, frozen=True):
    """Money moved from one account to another. `from_balance` and `to_balance` are their balances after the transfer.

    `run` says which run of a schedule it was. Then `occurred_at` is when the run was due.
    """

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: int
    currency: str
    from_balance: int
    to_balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None
    spent: Spent | None = None
    run: ScheduledRun | None = None

    def streams(self) -> tuple[str, ...]:
        return (
            transfer_stream(self.transfer_id),
            account_stream(self.from_account_id),
            account_stream(self.to_account_id),
            *((schedule_stream(self.run.schedule_id),) if self.run else ()),
        )

    def postings(self) -> tuple[Posting, ...]:
        return (
            Posting(self.from_account_id, self.currency, -self.amount, self.from_balance),
            Posting(self.to_account_id, self.currency, self.amount, self.to_balance),
        )


class HoldCaptured(EventStruct, frozen=True):
    """Held money moved to another account, or to the outside world if `to_account_id` is None.

    `remaining` is what the hold still holds afterwards. `released` is what a final capture no longer holds without moving it.
    `expires_at` is that of the hold.
    """

    transfer_id: str
    hold_id: str
    from_account_id: str
    amount: int
    currency: str
    from_balance: int
    remaining: int
    to_account_id: str | None = None
    to_balance: int | None = None
    released: int = 0
    expires_at: str | None = None
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None
    spent: Spent | None = None

    def streams(self) -> tuple[str, ...]:
        ends = (self.from_account_id, *((self.to_account_id,) if self.to_account_id else ()))
        return transfer_stream(self.transfer_id), *map(account_stream, ends), hold_stream(self.hold_id)

    def postings(self) -> tuple[Posting, ...]:
        return (
            Posting(self.from_account_id, self.currency, -self.amount, self.from_balance),
            Posting(self.to_account_id, self.currency, self.amount, self.to_balance),
        )


class TransferReversed(EventStruct, frozen=True):
    """Money of the transfer `reverses` moved back, all of it or a part. An account of None is the outside world.

    `reversed` is what of that transfer has moved back so far, with this part. `remaining` is what can still move back.
    """

    transfer_id: str
    reverses: str
    amount: int
    currency: str
    reversed: int
    remaining: int
    from_account_id: str | None = None
    to_account_id: str | None = None
    from_balance: int | None = None
    to_balance: int | None = None
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        ends = (each for each in (self.from_account_id, self.to_account_id) if each)
        return transfer_stream(self.transfer_id), *map(account_stream, ends), transfer_stream(self.reverses)

    def postings(self) -> tuple[Posting, ...]:
        return (
            Posting(self.from_account_id, self.currency, -self.amount, self.from_balance),
            Posting(self.to_account_id, self.currency, self.amount, self.to_balance),
        )


class Leg(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What `FundsMoved` changes at one account, or at the outside world, for which `account_id` and `balance` are None."""

    account_id: str | None
    currency: str
    amount: int
    balance: int | None
    spent: Spent | None = None


class FundsMoved(EventStruct, frozen=True):
    """Money moved between many accounts at once. In each currency the amounts of the legs sum to zero."""

    transfer_id: str
    legs: tuple[Leg, ...]
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def currency(self) -> str:
        """The currency of the first leg. The others may have others. It is empty in a forged event without legs."""
        return self.legs[0].currency if self.legs else ""

    @property
    def amount(self) -> int:
        """What moved in the currency of the first leg."""
        return sum(leg.amount for leg in self.legs if leg.currency == self.currency and leg.amount > 0)

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), *(account_stream(leg.account_id) for leg in self.legs if leg.account_id)

    def postings(self) -> tuple[Posting, ...]:
        return tuple(Posting(leg.account_id, leg.currency, leg.amount, leg.balance) for leg in self.legs)


class FundsExchanged(FundsMoved, frozen=True, kw_only=True):
    """Money was changed from one currency into another, through two accounts of the house.

    The legs are, in this order, those of the payer, of the house's account that takes, of the house's account that gives, of the
    payee, and of the remainder account if it gave or got a whole minor unit. `rate` says how many units of the payee's currency
    one unit of the payer's currency gives. `remainder` is what rounding took from the payee, and is below 0 if it gave something.
    `carried` is what the remainder account has of all remainders, and has not got as whole minor units. Both are decimal numbers
    of minor units of the payee's currency.
    """

    rate: str
    remainder_account_id: str
    remainder: str
    carried: str

    @property
    def to_account_id(self) -> str | None:
        """The payee."""
        return self.legs[3].account_id

    @property
    def to_amount(self) -> int:
        """What the payee got."""
        return self.legs[3].amount

    @property
    def to_currency(self) -> str:
        return self.legs[3].currency

    def streams(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*FundsMoved.streams(self), account_stream(self.remainder_account_id))))


MoneyEvent = (
    FundsDeposited  # one to a line, so that two people can add one each
    | FundsWithdrawn
    | FundsTransferred
    | HoldCaptured
    | TransferReversed
    | FundsMoved
    | FundsExchanged
)
