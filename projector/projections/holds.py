"""The read model `holds`: one document per hold."""

from typing import Final, assert_never, get_args

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import HoldCaptured
from shared.log.streams import hold_stream
from shared.read_models.shapes import HOLDS, found_by
from shared.timestamps import timestamp

HoldEvent = HoldPlaced | HoldCaptured | HoldReleased | HoldExpired


def project_holds(changes: DocumentChanges, recorded: RecordedEvent, event: HoldEvent) -> None:
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    match event:
        case HoldPlaced():
            fields = {
                "account_id": event.from_account_id,
                "to_account_id": event.to_account_id,
                "found_by": found_by(
                    (event.from_account_id, event.to_account_id), reference=event.reference, metadata=event.metadata
                ),
                "amount": event.amount,
                "captured": 0,
                "remaining": event.amount,
                "currency": event.currency,
                "status": "active",
                "expires_at": event.expires_at,
                "placed_at": changed["changed_at"],
                "reference": event.reference,
                "metadata": event.metadata,
                "version": 1,
            }
            changes.insert(event.hold_id, fields | changed)
        case HoldCaptured():
            status = "active" if event.remaining else "captured"
            fields = {"remaining": event.remaining, "status": status} | changed
            changes.change(event.hold_id, fields, {"captured": event.amount, "version": 1})
        case HoldReleased():
            changes.change(event.hold_id, {"remaining": 0, "status": "released"} | changed, {"version": 1})
        case HoldExpired():
            changes.change(event.hold_id, {"remaining": 0, "status": "expired"} | changed, {"version": 1})
        case _:
            assert_never(event)


HOLDS_PROJECTION: Final = Projection(
    HOLDS,
    DocumentChanges,
    handles=frozenset(get_args(HoldEvent)),
    project=project_holds,
    makes={HoldPlaced: 1},
    origin=hold_stream,
)
