"""The read model `transfers`: one document per movement of money, written once."""

from typing import Final, get_args

from projector.projections.changes import DocumentChanges
from projector.projections.money_movements import transfer_fields
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import FundsExchanged, FundsMoved, FundsTransferred, HoldCaptured, MoneyEvent, TransferReversed
from shared.log.streams import transfer_stream
from shared.read_models.shapes import TRANSFERS, found_by


def project_transfers(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    fields = transfer_fields(recorded, event)
    hold_id = event.hold_id if isinstance(event, HoldCaptured) else None
    reverses = event.reverses if isinstance(event, TransferReversed) else None
    ends = [fields["from_account_id"], fields["to_account_id"], transfer_stream(reverses) if reverses else None]
    legs = None
    if isinstance(event, FundsMoved):
        legs = [{"account_id": leg.account_id, "amount": leg.amount, "currency": leg.currency} for leg in event.legs]
        ends = [leg.account_id for leg in event.legs]
    terms = None
    if isinstance(event, FundsExchanged):
        terms = {"to_amount": event.to_amount, "to_currency": event.to_currency, "rate": event.rate}
        terms |= {"remainder_account_id": event.remainder_account_id, "remainder": event.remainder}
    texts = found_by(ends, kind=fields["kind"], reference=event.reference, metadata=event.metadata)
    more = {"found_by": texts, "metadata": event.metadata, "hold_id": hold_id, "reverses": reverses, "postings": legs}
    if isinstance(event, FundsTransferred) and event.run:
        more["schedule_id"] = event.run.schedule_id
    changes.insert(event.transfer_id, fields | more | ({"exchange": terms} if terms else {}))


TRANSFERS_PROJECTION: Final = Projection(
    TRANSFERS,
    DocumentChanges,
    handles=frozenset(get_args(MoneyEvent)),
    project=project_transfers,
    write_once=True,
    makes=dict.fromkeys(get_args(MoneyEvent), 1),
    origin=transfer_stream,
)
