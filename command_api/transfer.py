"""Money that moves: between two accounts, or between an account and the outside world.

The outside world has no lower limit, so it is no stream and takes no lock: deposits never wait for one another. Its balance is
what all accounts of a currency have together, negated.
"""

from typing import Annotated, Any, Final, assert_never

import msgspec
from pydantic import ConfigDict, Field

from command_api.account import (
    AccountState,
    credited,
    debited,
    existing,
    require_currency,
    require_not_closed,
    require_not_frozen,
)
from command_api.command import Amount, Command, Metadata, Reference, States
from command_api.fold import Fold
from shared.errors import IdTaken, SameAccount
from shared.events import (
    Event,
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    MoneyEvent,
    account_stream,
    transfer_stream,
)
from shared.fields import Currency, Id, Moment
from shared.ids import new_id

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class TransferState(msgspec.Struct, frozen=True):
    """All that a later decision asks of a transfer is whether it happened."""

    recorded: bool = False


def evolve_transfer(state: TransferState, event: MoneyEvent) -> TransferState:  # noqa: ARG001
    match event:
        case FundsDeposited() | FundsWithdrawn() | FundsTransferred():
            return TransferState(recorded=True)
        case _:
            assert_never(event)


TRANSFER: Final = Fold(1, TransferState(), evolve_transfer)

# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class MoneyCommand(Command):
    """What every movement of money carries. `occurred_at` is when it happened outside, where that is not now."""

    id: Annotated[Id, Field(default_factory=new_id)]
    amount: Amount
    currency: Currency
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.id),)

    def require_new(self, states: States) -> None:
        if states[transfer_stream(self.id)].recorded:
            raise IdTaken

    def details(self) -> dict[str, Any]:
        """The fields that go into the event as they came."""
        return {
            "transfer_id": self.id,
            "amount": self.amount,
            "currency": self.currency,
            "occurred_at": self.occurred_at,
            "reference": self.reference,
            "metadata": self.metadata,
        }


class OutsideCommand(MoneyCommand):
    """Money between an account and the outside world."""

    account_id: Id

    def streams(self) -> tuple[str, ...]:
        return account_stream(self.account_id), transfer_stream(self.id)

    def owned_streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)

    def usable_account(self, states: States) -> AccountState:
        self.require_new(states)
        account = existing(states, self.account_id)
        require_not_closed(account)
        require_not_frozen(account)
        require_currency(account, self.currency)
        return account


class Deposit(OutsideCommand):
    """Refused, in this order: id-taken, not-found, account-closed, account-frozen, currency-mismatch, amount-out-of-range."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": 1250, "currency": "EUR"}}
    )

    def decide(self, states: States) -> list[Event]:
        balance = credited(self.usable_account(states), self.amount)
        return [FundsDeposited(account_id=self.account_id, balance=balance, **self.details())]


class Withdraw(OutsideCommand):
    """Refused, in this order: id-taken, not-found, account-closed, account-frozen, currency-mismatch, insufficient-funds."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": 1250, "currency": "EUR"}}
    )

    def decide(self, states: States) -> list[Event]:
        balance = debited(self.usable_account(states), self.amount)
        return [FundsWithdrawn(account_id=self.account_id, balance=balance, **self.details())]


class TransferFunds(MoneyCommand):
    """Refused, in this order: same-account, id-taken, not-found, account-closed, account-frozen, currency-mismatch,
    insufficient-funds, amount-out-of-range. Each rule looks at the paying account first.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
                "amount": 1250,
                "currency": "EUR",
                "reference": "rent",
            }
        }
    )

    from_account_id: Id
    to_account_id: Id

    def streams(self) -> tuple[str, ...]:
        return account_stream(self.from_account_id), account_stream(self.to_account_id), transfer_stream(self.id)

    def owned_streams(self) -> tuple[str, ...]:
        """Anybody may be paid."""
        return (account_stream(self.from_account_id),)

    def decide(self, states: States) -> list[Event]:
        if self.from_account_id == self.to_account_id:
            raise SameAccount
        self.require_new(states)
        payer, payee = existing(states, self.from_account_id), existing(states, self.to_account_id)
        for account in (payer, payee):
            require_not_closed(account)
        for account in (payer, payee):
            require_not_frozen(account)
        for account in (payer, payee):
            require_currency(account, self.currency)
        return [
            FundsTransferred(
                from_account_id=self.from_account_id,
                to_account_id=self.to_account_id,
                from_balance=debited(payer, self.amount),
                to_balance=credited(payee, self.amount),
                **self.details(),
            )
        ]
