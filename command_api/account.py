"""Accounts: opened in one currency for one owner, with a limit that no withdrawal or transfer passes."""

from typing import Annotated, Final, Literal, assert_never

import msgspec
from pydantic import ConfigDict, Field

from command_api.command import Command, OverdraftLimit, States
from command_api.fold import Fold
from shared import errors
from shared.events import (
    AccountClosed,
    AccountEvent,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    Event,
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    account_stream,
    user_stream,
)
from shared.fields import Currency, Id
from shared.ids import new_id
from shared.money import AMOUNT_MAX

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class AccountState(msgspec.Struct, frozen=True):
    """`posted` in minor units; at least `-overdraft_limit`, always."""

    account_id: str = ""
    owner_id: str = ""
    currency: str = ""
    status: Literal["missing", "open", "frozen", "closed"] = "missing"
    overdraft_limit: int = 0
    posted: int = 0

    @property
    def available(self) -> int:
        """What can be taken from the account now."""
        return self.posted + self.overdraft_limit


def evolve_account(state: AccountState, event: AccountEvent) -> AccountState:
    match event:
        case AccountOpened():
            return AccountState(event.account_id, event.owner_id, event.currency, "open", event.overdraft_limit)
        case AccountFrozen():
            return msgspec.structs.replace(state, status="frozen")
        case AccountUnfrozen():
            return msgspec.structs.replace(state, status="open")
        case AccountClosed():
            return msgspec.structs.replace(state, status="closed")
        case FundsDeposited() | FundsWithdrawn():
            return msgspec.structs.replace(state, posted=event.balance)
        case FundsTransferred():
            paying = event.from_account_id == state.account_id
            return msgspec.structs.replace(state, posted=event.from_balance if paying else event.to_balance)
        case _:
            assert_never(event)


ACCOUNT: Final = Fold(1, AccountState(), evolve_account)

# ── rules that several commands share ────────────────────────────────────────────────────────────────────────────────


def existing(states: States, account_id: str) -> AccountState:
    account: AccountState = states[account_stream(account_id)]
    if account.status == "missing":
        raise errors.NotFound("There is no such account.", account_id=account_id)
    return account


def require_not_closed(account: AccountState) -> None:
    if account.status == "closed":
        raise errors.AccountClosed(account_id=account.account_id)


def require_not_frozen(account: AccountState) -> None:
    if account.status == "frozen":
        raise errors.AccountFrozen(account_id=account.account_id)


def require_currency(account: AccountState, currency: str) -> None:
    if account.currency != currency:
        raise errors.CurrencyMismatch(account_id=account.account_id, account_currency=account.currency)


def debited(account: AccountState, amount: int) -> int:
    """The balance after taking `amount`."""
    if amount > account.available:
        raise errors.InsufficientFunds(account_id=account.account_id, available=account.available, required=amount)
    return account.posted - amount


def credited(account: AccountState, amount: int) -> int:
    """The balance after adding `amount`."""
    balance = account.posted + amount
    if balance > AMOUNT_MAX:
        raise errors.BalanceOutOfRange(account_id=account.account_id)
    return balance


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class OpenAccount(Command):
    """Refused, in this order: id-taken, not-found (the owner), user-erased, user-inactive."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"owner_id": "0198c5a0-0000-7000-8000-00000000ada0", "currency": "EUR", "overdraft_limit": 0}
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    owner_id: Id
    currency: Currency
    overdraft_limit: OverdraftLimit = 0

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
            )
        ]


class AccountCommand(Command):
    """A command on one account that exists and is not closed."""

    account_id: Id

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class FreezeAccount(AccountCommand):
    """Stops all money in and out. Refused, in this order: not-found, account-closed."""

    def decide(self, states: States) -> list[Event]:
        account = existing(states, self.account_id)
        require_not_closed(account)
        if account.status == "frozen":
            return []
        return [AccountFrozen(account_id=self.account_id, currency=account.currency)]


class UnfreezeAccount(AccountCommand):
    """Refused, in this order: not-found, account-closed."""

    def decide(self, states: States) -> list[Event]:
        account = existing(states, self.account_id)
        require_not_closed(account)
        if account.status == "open":
            return []
        return [AccountUnfrozen(account_id=self.account_id, currency=account.currency)]


class CloseAccount(AccountCommand):
    """For good, and only when nothing is in it. Refused, in this order: not-found, account-frozen, account-not-empty."""

    def decide(self, states: States) -> list[Event]:
        account = existing(states, self.account_id)
        if account.status == "closed":
            return []
        require_not_frozen(account)
        if account.posted != 0:
            raise errors.AccountNotEmpty(account_id=self.account_id, posted=account.posted)
        return [AccountClosed(account_id=self.account_id, currency=account.currency)]
