"""The decider for transfers: money moves between two accounts, or between an account and the outside world.

The stream of a transfer is `transfer-<transfer_id>`. Its first event is the transfer, so no two transfers can have the same id.
All further ones are its reversals: see `reversal`.

The outside world has no limit. So it needs no stream and no lock, and deposits to different accounts never wait for each other.
In each currency, the balance of the outside world is minus the sum of all account balances.
"""

from typing import Annotated, Any, Final, assert_never

import msgspec
from pydantic import ConfigDict, Field

from command_api.domain.account import (
    AccountState,
    balance_after_credit,
    balance_after_debit,
    require_account,
    require_usable,
    spent_with,
)
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, PositiveAmount
from shared.errors import IdTaken, SameAccount
from shared.ids import new_id
from shared.input_types import Currency, Id, Moment
from shared.log.events import Event
from shared.log.money_events import (
    FundsDeposited,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    MoneyEvent,
    TransferReversed,
)
from shared.log.stream_fold import StreamFold
from shared.log.streams import account_stream, transfer_stream
from shared.text_types import Reference

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class TransferState(msgspec.Struct, frozen=True, array_like=True):
    """The state of a transfer: what a reversal moves back. An account of None is the outside world. Amounts are in minor units.

    A ledger has more transfers than anything else, so a snapshot is a list without the names of the fields.
    """

    from_account_id: str | None = None
    to_account_id: str | None = None
    amount: int = 0
    currency: str = ""
    reversed: int = 0
    """The amount that has moved back."""
    reversals: int = 0
    """In how many parts it has moved back."""
    is_reversible: bool = True

    @property
    def recorded(self) -> bool:
        return self.amount > 0

    @property
    def remaining(self) -> int:
        """The amount that can still move back, in minor units."""
        return self.amount - self.reversed


def evolve_transfer(state: TransferState, event: MoneyEvent) -> TransferState:
    match event:
        case FundsTransferred() | HoldCaptured():
            return TransferState(event.from_account_id, event.to_account_id, event.amount, event.currency)
        case FundsDeposited():
            return TransferState(None, event.account_id, event.amount, event.currency)
        case FundsWithdrawn():
            return TransferState(event.account_id, None, event.amount, event.currency)
        case TransferReversed() if state.recorded:
            return msgspec.structs.replace(state, reversed=event.reversed, reversals=state.reversals + 1)
        case TransferReversed():  # the stream of the reversal itself, which is a transfer too
            ends = event.from_account_id, event.to_account_id
            return TransferState(*ends, event.amount, event.currency, is_reversible=False)
        case FundsMoved():
            return TransferState(None, None, event.amount, event.currency, is_reversible=False)
        case _:
            assert_never(event)


TRANSFER_FOLD: Final = StreamFold(3, TransferState(), evolve_transfer, has_first_snapshot=False)

# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class MoneyCommand(Command):
    """The fields that all transfers have. `occurred_at` is for a transfer that happened at another time than it is recorded."""

    id: Annotated[Id, Field(default_factory=new_id)]
    amount: PositiveAmount
    currency: Currency
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.id),)

    def require_new_id(self, states: States) -> None:
        if states[transfer_stream(self.id)].recorded:
            raise IdTaken

    def event_fields(self) -> dict[str, Any]:
        """Returns the fields that the command's event copies unchanged."""
        return {
            "transfer_id": self.id,
            "amount": self.amount,
            "currency": self.currency,
            "occurred_at": self.occurred_at,
            "reference": self.reference,
            "metadata": self.metadata,
        }


class OutsideTransfer(MoneyCommand):
    """The base of deposits and withdrawals, which move money between an account and the outside world."""

    account_id: Id

    def streams(self) -> tuple[str, ...]:
        return account_stream(self.account_id), transfer_stream(self.id)

    def owned_streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)

    def require_usable_account(self, states: States) -> AccountState:
        self.require_new_id(states)
        account = require_account(states, self.account_id)
        require_usable((account,), self.currency)
        return account


class Deposit(OutsideTransfer):
    """Moves money from the outside world into an account.

    Rejections, in this order: id-taken, not-found, account-closed, account-frozen, currency-mismatch, balance-out-of-range.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": 1250, "currency": "EUR"}}
    )

    def decide(self, states: States) -> list[Event]:
        balance = balance_after_credit(self.require_usable_account(states), self.amount)
        return [FundsDeposited(account_id=self.account_id, balance=balance, **self.event_fields())]


class Withdraw(OutsideTransfer):
    """Moves money from an account to the outside world.

    Rejections, in this order: id-taken, not-found, account-closed, account-frozen, currency-mismatch, amount-outside-limits,
    limit-exceeded (of the day, then of the month), insufficient-funds.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": 1250, "currency": "EUR"}}
    )

    def decide(self, states: States) -> list[Event]:
        account = self.require_usable_account(states)
        spent = spent_with(account, self.amount)
        balance = balance_after_debit(account, self.amount)
        return [FundsWithdrawn(account_id=self.account_id, balance=balance, spent=spent, **self.event_fields())]


class TransferFunds(MoneyCommand):
    """Moves money from one account to another of the same currency.

    Rejections, in this order: same-account, id-taken, not-found, account-closed, account-frozen, currency-mismatch,
    amount-outside-limits, limit-exceeded, insufficient-funds, balance-out-of-range. Each rule checks the payer's account first.
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
        """Returns only the payer's account, because customers may pay into the accounts of others."""
        return (account_stream(self.from_account_id),)

    def decide(self, states: States) -> list[Event]:
        if self.from_account_id == self.to_account_id:
            raise SameAccount
        self.require_new_id(states)
        payer, payee = require_account(states, self.from_account_id), require_account(states, self.to_account_id)
        require_usable((payer, payee), self.currency)
        spent = spent_with(payer, self.amount)
        return [
            FundsTransferred(
                from_account_id=self.from_account_id,
                to_account_id=self.to_account_id,
                from_balance=balance_after_debit(payer, self.amount),
                to_balance=balance_after_credit(payee, self.amount),
                spent=spent,
                **self.event_fields(),
            )
        ]
