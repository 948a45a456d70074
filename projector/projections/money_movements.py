"""Treats deposits, withdrawals and transfers alike, as movements of money. An account of None means the outside world."""

from collections.abc import Iterator
from typing import assert_never

import msgspec

from projector.projections.changes import StoredDocument
from shared.log.events import RecordedEvent
from shared.log.money_events import (
    FundsDeposited,
    FundsExchanged,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    MoneyEvent,
    TransferReversed,
)
from shared.timestamps import timestamp


class Movement(msgspec.Struct, frozen=True):
    """A movement of money: a transfer, a deposit, a withdrawal, a reversal or an exchange."""

    kind: str
    from_account_id: str | None
    to_account_id: str | None


def movement_of(event: MoneyEvent) -> Movement:
    # The most frequent event comes first: testing a class that does not match costs more than testing one that does.
    match event:
        case FundsTransferred():
            return Movement("transfer", event.from_account_id, event.to_account_id)
        case FundsDeposited():
            return Movement("deposit", None, event.account_id)
        case FundsWithdrawn():
            return Movement("withdrawal", event.account_id, None)
        case HoldCaptured():
            return Movement("transfer" if event.to_account_id else "withdrawal", event.from_account_id, event.to_account_id)
        case TransferReversed():
            return Movement("reversal", event.from_account_id, event.to_account_id)
        case FundsExchanged():
            return Movement("exchange", event.legs[0].account_id, event.to_account_id)
        case FundsMoved():
            return Movement("postings", None, None)
        case _:
            assert_never(event)


def volumes(event: MoneyEvent) -> dict[str, int]:
    """Returns the amount that moved in each currency."""
    if not isinstance(event, FundsMoved):
        return {event.currency: event.amount}
    moved: dict[str, int] = {}
    for leg in event.legs:
        moved[leg.currency] = moved.get(leg.currency, 0) + max(leg.amount, 0)
    return moved


def postings(event: MoneyEvent) -> Iterator[tuple[str, str, int, int, str | None]]:
    """Yields for each account of the event: its id, its currency, the signed amount, the balance after the event, and the id of
    the other account if there are two.

    Yields nothing for the outside world.
    """
    match event:
        case FundsTransferred():
            yield event.from_account_id, event.currency, -event.amount, event.from_balance, event.to_account_id
            yield event.to_account_id, event.currency, event.amount, event.to_balance, event.from_account_id
        case FundsDeposited():
            yield event.account_id, event.currency, event.amount, event.balance, None
        case FundsWithdrawn():
            yield event.account_id, event.currency, -event.amount, event.balance, None
        case HoldCaptured() | TransferReversed():
            if event.from_account_id and event.from_balance is not None:
                yield event.from_account_id, event.currency, -event.amount, event.from_balance, event.to_account_id
            if event.to_account_id and event.to_balance is not None:
                yield event.to_account_id, event.currency, event.amount, event.to_balance, event.from_account_id
        case FundsMoved():
            for leg in event.legs:
                if leg.account_id and leg.balance is not None:
                    yield leg.account_id, leg.currency, leg.amount, leg.balance, None
        case _:
            assert_never(event)


def transfer_fields(recorded: RecordedEvent, event: MoneyEvent) -> StoredDocument:
    """Returns the fields that are in both a document of `transfers` and an item of `activity`."""
    movement, recorded_at = movement_of(event), timestamp(recorded.recorded_at)
    return {
        "kind": movement.kind,
        "from_account_id": movement.from_account_id,
        "to_account_id": movement.to_account_id,
        "amount": event.amount,
        "currency": event.currency,
        "occurred_at": event.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        "reference": event.reference,
        "position": recorded.position,
    }
