"""The read model `activity`: the latest movements of money, newest first, as a list in Redis."""

from typing import Final, get_args

import msgspec

from projector.projections.changes import KeyChanges
from projector.projections.money_movements import transfer_fields
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.read_models.shapes import ACTIVITY, ACTIVITY_MAX


def project_activity(changes: KeyChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    item = {"id": event.transfer_id} | transfer_fields(recorded, event)
    text = msgspec.json.encode(item).decode()  # the query API returns exactly this text
    changes.push("recent", text, ACTIVITY_MAX)


ACTIVITY_PROJECTION: Final = Projection(ACTIVITY, KeyChanges, handles=frozenset(get_args(MoneyEvent)), project=project_activity)
