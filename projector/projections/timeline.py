"""The read model `timeline`: the entries of each account by month, and its closing balance on each day.

A row is written whole and with the position of its event, so a store without transactions may be given it twice. The day of an
entry is that on which it was recorded, so that a closing balance is that after the last entry of its day.
"""

from typing import Final, get_args

from projector.projections.changes import DocumentChanges
from projector.projections.money_movements import movement_of, postings
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.log.streams import account_stream
from shared.read_models.shapes import TIMELINE, timeline_day_id, timeline_entry_id
from shared.timestamps import timestamp

_DAY: Final = 10


def project_timeline(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    kind, recorded_at, position = movement_of(event).kind, timestamp(recorded.recorded_at), recorded.position
    for account_id, currency, amount, balance, counterparty_account_id in postings(event):
        entry = {
            "transfer_id": event.transfer_id,
            "kind": kind,
            "amount": amount,
            "balance": balance,
            "currency": currency,
            "counterparty_account_id": counterparty_account_id,
            "occurred_at": event.occurred_at or recorded_at,
            "reference": event.reference,
            "position": position,
        }
        changes.insert(timeline_entry_id(account_id, recorded_at, position), entry)
        closing = {"currency": currency, "balance": balance, "position": position}
        changes.put(timeline_day_id(account_id, recorded_at[:_DAY], position), closing)


def _origin(name: str) -> str:
    return account_stream(name.split("/")[1])


TIMELINE_PROJECTION: Final = Projection(
    TIMELINE,
    DocumentChanges,
    handles=frozenset(get_args(MoneyEvent)),
    project=project_timeline,
    origin=_origin,
)
