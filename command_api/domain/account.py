"""The decider for accounts. An account has one currency, one owner, an overdraft limit, and limits of what it may spend.

No withdrawal or transfer can take the balance further below zero than the overdraft limit allows. The stream of an account is
`account-<account_id>`. It contains the events about the account itself and all money events that change its balance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final, Literal, assert_never

import msgspec
from pydantic import ConfigDict, Field

from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, OverdraftLimit, StrictFields
from command_api.domain.spending import NO_LIMITS, SpendingLimits, spend
from shared import errors
from shared.ids import new_id
from shared.input_types import Currency, Id
from shared.log.account_events import (
    AccountClosed,
    AccountEvent,
    AccountFrozen,
    AccountLimitsChanged,
    AccountMetadataChanged,
    AccountOpened,
    AccountUnfrozen,
    OverdraftLimitChanged,
)
from shared.log.event_struct import Spent
from shared.log.events import Event
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import (
    FundsDeposited,
    FundsExchanged,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    TransferReversed,
)
from shared.log.stream_fold import StreamFold
from shared.log.streams import account_stream, user_stream
from shared.money import AMOUNT_MAX

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class HeldAmount(msgspec.Struct, frozen=True):
    """What one hold on an account still holds, in minor units, and when that ends."""

    amount: int
    expires_at: str | None


class AccountState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of an account. Amounts are in minor units. `available` is never negative."""

    account_id: str = ""
    owner_id: str = ""
    currency: str = ""
    status: Literal["missing", "open", "frozen", "closed"] = "missing"
    overdraft_limit: int = 0
    posted: int = 0
    holds: Mapping[str, HeldAmount] = {}
    """The holds that have not ended in the log, by their ids. Some of them may have expired: their ends are recorded later."""
    now: str = ""
    """The moment that `held` is as of: see `stream_folds.at_moment`. It is empty, and every hold counts, in a fold of events."""
    limits: SpendingLimits | None = None
    spent: Spent | None = None
    """The amounts that were spent on the day, and in the month, of the last spending. None if the account has no such limit."""
    carried: str = ""
    """What of the remainders of exchanges is the account's and is no whole minor unit, as a decimal number of minor units.

    It is empty for 0: msgspec leaves out only defaults that are the same object, and all empty texts are.
    """
    metadata_digest: str = ""
    """See `digest_of`. The state has no metadata, because every transfer writes a snapshot of the state."""

    @property
    def held(self) -> int:
        """The amount that is reserved for holds now, in minor units."""
        return sum(hold.amount for hold in self.holds.values() if hold.expires_at is None or self.now < hold.expires_at)

    @property
    def available(self) -> int:
        """The amount that can be spent from the account now, in minor units."""
        return self.posted + self.overdraft_limit - (self.held if self.holds else 0)

    def until_all_expire(self) -> Iterator["AccountState"]:
        """Yields the state as of `now`, and as of each later moment at which some of the holds expire."""
        yield self
        for moment in sorted({hold.expires_at for hold in self.holds.values() if hold.expires_at and self.now < hold.expires_at}):
            yield msgspec.structs.replace(self, now=moment)


def evolve_account(state: AccountState, event: AccountEvent) -> AccountState:
    match event:
        case AccountOpened():
            state = AccountState(event.account_id, event.owner_id, event.currency, "open", event.overdraft_limit)
            return msgspec.structs.replace(state, metadata_digest=digest_of(event.metadata)) if event.metadata else state
        case AccountMetadataChanged():
            return msgspec.structs.replace(state, metadata_digest=digest_of(event.metadata))
        case AccountFrozen():
            return msgspec.structs.replace(state, status="frozen")
        case AccountUnfrozen():
            return msgspec.structs.replace(state, status="open")
        case AccountClosed():
            return msgspec.structs.replace(state, status="closed")
        case OverdraftLimitChanged():
            return msgspec.structs.replace(state, overdraft_limit=event.overdraft_limit)
        case AccountLimitsChanged():
            limits = limits_of(event)
            return msgspec.structs.replace(state, limits=None if limits == NO_LIMITS else limits, spent=event.spent)
        case FundsDeposited():
            return msgspec.structs.replace(state, posted=event.balance)
        case FundsWithdrawn():
            return msgspec.structs.replace(state, posted=event.balance, spent=event.spent)
        case FundsTransferred():
            if event.from_account_id == state.account_id:
                return msgspec.structs.replace(state, posted=event.from_balance, spent=event.spent)
            return msgspec.structs.replace(state, posted=event.to_balance)
        case TransferReversed():
            is_payer = event.from_account_id == state.account_id
            return msgspec.structs.replace(state, posted=event.from_balance if is_payer else event.to_balance)
        case FundsMoved():
            return _after_move(state, event)
        case HoldCaptured():
            return _after_capture(state, event)
        case HoldPlaced() | HoldReleased() | HoldExpired():
            held = HeldAmount(event.amount, event.expires_at) if isinstance(event, HoldPlaced) else None
            return msgspec.structs.replace(state, holds=_holds_with(state, event.hold_id, held))
        case _:
            assert_never(event)


def _after_capture(state: AccountState, event: HoldCaptured) -> AccountState:
    if event.from_account_id != state.account_id:
        return msgspec.structs.replace(state, posted=event.to_balance)
    held = HeldAmount(event.remaining, event.expires_at) if event.remaining else None
    holds = _holds_with(state, event.hold_id, held)
    return msgspec.structs.replace(state, posted=event.from_balance, holds=holds, spent=event.spent)


def digest_of(metadata: Mapping[str, str] | None) -> str:
    """Returns a hash by which equal metadata are known, or an empty text without metadata."""
    return sha256(msgspec.json.encode(metadata, order="sorted")).hexdigest()[:32] if metadata else ""


def limits_of(event: AccountLimitsChanged) -> SpendingLimits:
    return SpendingLimits(event.per_transfer_min, event.per_transfer_max, event.per_day, event.per_month)


def _after_move(state: AccountState, event: FundsMoved) -> AccountState:
    if isinstance(event, FundsExchanged) and event.remainder_account_id == state.account_id:
        state = msgspec.structs.replace(state, carried="" if event.carried == "0" else event.carried)
    for leg in event.legs:
        if leg.account_id == state.account_id and leg.balance is not None:
            spent = leg.spent if leg.amount < 0 else state.spent
            return msgspec.structs.replace(state, posted=leg.balance, spent=spent)
    return state


def _holds_with(state: AccountState, hold_id: str, held: HeldAmount | None) -> Mapping[str, HeldAmount]:
    """Returns the holds of the account after one of them was changed, or was ended if `held` is None."""
    others = {each: hold for each, hold in state.holds.items() if each != hold_id}
    return others if held is None else {**others, hold_id: held}


ACCOUNT_FOLD: Final = StreamFold(1, AccountState(), evolve_account)

# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def require_account(states: States, account_id: str) -> AccountState:
    account: AccountState = states[account_stream(account_id)]
    if account.status == "missing":
        raise errors.NotFound("There is no such account.", account_id=account_id)
    return account


def require_not_closed(account: AccountState) -> None:
    if account.status == "closed":
        raise errors.AccountIsClosed(account_id=account.account_id)


def require_not_frozen(account: AccountState) -> None:
    if account.status == "frozen":
        raise errors.AccountIsFrozen(account_id=account.account_id)


def require_currency(account: AccountState, currency: str) -> None:
    if account.currency != currency:
        raise errors.CurrencyMismatch(account_id=account.account_id, account_currency=account.currency)


def require_open(accounts: Iterable[AccountState]) -> None:
    """Checks that money can move between the accounts. Each rule checks the accounts in their order."""
    accounts = [*accounts]
    for account in accounts:
        require_not_closed(account)
    for account in accounts:
        require_not_frozen(account)


def require_usable(accounts: Sequence[AccountState], currency: str) -> None:
    """Checks that money of this currency can move between the accounts. Each rule checks the accounts in their order."""
    require_open(accounts)
    for account in accounts:
        require_currency(account, currency)


def require_available(account: AccountState, amount: int) -> None:
    if amount > account.available:
        raise errors.InsufficientFunds(account_id=account.account_id, available=account.available, required=amount)


def spent_with(account: AccountState, amount: int) -> Spent | None:
    """Returns what the account has spent after it spends `amount` now, or None if no limit of the account counts it.

    Raises:
        AmountOutsideLimits, LimitExceeded: a limit of the account forbids it.
    """
    return None if account.limits is None else spend(account.limits, account.spent, amount, account.now)


def require_in_range(account: AccountState, posted: int, overdraft_limit: int) -> None:
    """Keeps `available` exact in every JSON parser: without holds, at most `AMOUNT_MAX` can be spent."""
    if posted + overdraft_limit > AMOUNT_MAX:
        raise errors.BalanceOutOfRange(account_id=account.account_id)


def balance_after_debit(account: AccountState, amount: int) -> int:
    """Returns the posted balance after `amount` is taken from the account, both in minor units.

    Raises:
        InsufficientFunds: `amount` is more than is available.
    """
    require_available(account, amount)
    return account.posted - amount


def balance_after_credit(account: AccountState, amount: int) -> int:
    """Returns the posted balance after `amount` is added to the account, both in minor units.

    Raises:
        BalanceOutOfRange: the balance plus the overdraft limit would be larger than `AMOUNT_MAX`.
    """
    require_in_range(account, account.posted + amount, account.overdraft_limit)
    return account.posted + amount


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class OpenAccount(Command):
    """Opens an account. Rejections, in this order: id-taken, not-found (the owner), user-erased, user-inactive."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"owner_id": "0198c5a0-0000-7000-8000-00000000ada0", "currency": "EUR", "overdraft_limit": 0}
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    owner_id: Id
    currency: Currency
    overdraft_limit: OverdraftLimit = 0
    metadata: Metadata | None = None

    def streams(self) -> tuple[str, ...]:
        return account_stream(self.id), user_stream(self.owner_id)

    def decide(self, states: States) -> list[Event]:
        account, owner = (states[stream] for stream in self.streams())
        if account.status != "missing":
            raise errors.IdTaken
        if owner.status == "missing":
            raise errors.NotFound("There is no such owner.", user_id=self.owner_id)
        if owner.status == "erased":
            raise errors.UserIsErased(user_id=self.owner_id)
        if owner.status == "inactive":
            raise errors.UserInactive(user_id=self.owner_id)
        return [
            AccountOpened(
                account_id=self.id,
                owner_id=self.owner_id,
                currency=self.currency,
                overdraft_limit=self.overdraft_limit,
                metadata=self.metadata or None,
            )
        ]


class AccountCommand(Command):
    """The base of the commands on an existing account."""

    account_id: Id

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class FreezeAccount(AccountCommand):
    """Freezes an account: no money can move into it or out of it. Rejections, in this order: not-found, account-closed."""

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        require_not_closed(account)
        if account.status == "frozen":
            return []
        return [AccountFrozen(account_id=self.account_id, currency=account.currency)]


class UnfreezeAccount(AccountCommand):
    """Unfreezes an account: money can move again. Rejections, in this order: not-found, account-closed."""

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        require_not_closed(account)
        if account.status == "open":
            return []
        return [AccountUnfrozen(account_id=self.account_id, currency=account.currency)]


class CloseAccount(AccountCommand):
    """Closes an account without money and without holds permanently.

    Rejections, in this order: not-found, account-frozen, account-not-empty.
    """

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        if account.status == "closed":
            return []
        require_not_frozen(account)
        if account.posted != 0 or account.held != 0:
            raise errors.AccountNotEmpty(account_id=self.account_id, posted=account.posted, held=account.held)
        return [AccountClosed(account_id=self.account_id, currency=account.currency)]


class NewOverdraftLimit(StrictFields):
    """The body of a request that changes the overdraft limit of an account."""

    model_config = ConfigDict(json_schema_extra={"example": {"overdraft_limit": 5000}})

    overdraft_limit: OverdraftLimit


class ChangeOverdraftLimit(AccountCommand):
    """Changes how far below zero the balance of an account may go, also if the account is frozen.

    Rejections, in this order: not-found, account-closed, insufficient-funds (less is available than the limit is lowered by),
    balance-out-of-range (the balance plus the limit would be larger than 2^53 − 1).
    """

    overdraft_limit: OverdraftLimit

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        require_not_closed(account)
        lowered_by = account.overdraft_limit - self.overdraft_limit
        if lowered_by == 0:
            return []
        if lowered_by > 0:
            require_available(account, lowered_by)
        require_in_range(account, account.posted, self.overdraft_limit)
        return [
            OverdraftLimitChanged(
                account_id=self.account_id,
                currency=account.currency,
                overdraft_limit=self.overdraft_limit,
                overdraft_limit_before=account.overdraft_limit,
            )
        ]
