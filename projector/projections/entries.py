"""The read model `entries`: one document per account and movement of money, written once."""

from typing import Final, get_args

import msgspec

from projector.projections.changes import DocumentChanges
from projector.projections.money_movements import movement_of, postings
from projector.projections.projection import Projection
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
from shared.read_models.shapes import ENTRIES, Entry, entry_id, entry_position
from shared.timestamps import timestamp


def project_entries(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    kind, recorded_at, position = movement_of(event).kind, timestamp(recorded.recorded_at), recorded.position
    for account_id, currency, amount, balance, counterparty_account_id in postings(event):
        entry = Entry(
            account_id=account_id,
            transfer_id=event.transfer_id,
            kind=kind,
            amount=amount,
            balance=balance,
            currency=currency,
            counterparty_account_id=counterparty_account_id,
            occurred_at=event.occurred_at or recorded_at,
            recorded_at=recorded_at,
            reference=event.reference,
            position=position,
        )
        item = msgspec.json.encode(entry).decode()  # the query API returns exactly this text
        fields = {
            "account_id": account_id,
            "amount": amount,
            "occurred_at": entry.occurred_at,
            "reference": event.reference,
            "recorded_at": recorded_at,
            "position": position,
            "item": item,
        }
        changes.insert(entry_id(account_id, position), fields)


def _count_entries(event: MoneyEvent) -> int:
    """Counts the entries that an event must make from what the log says, and not by making them."""
    return sum(posting.account_id is not None for posting in event.postings())


ENTRIES_PROJECTION: Final = Projection(
    ENTRIES,
    DocumentChanges,
    handles=frozenset(get_args(MoneyEvent)),
    project=project_entries,
    write_once=True,
    makes={
        FundsTransferred: 2,
        FundsDeposited: 1,
        FundsWithdrawn: 1,
        HoldCaptured: _count_entries,
        TransferReversed: _count_entries,
        FundsMoved: _count_entries,
        FundsExchanged: _count_entries,
    },
    origin=entry_position,
)
