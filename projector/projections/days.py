"""The read model `days`: a document for each business day that was closed."""

from typing import Final

import msgspec

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from shared.business_days import bounds_of
from shared.log.day_events import DayClosed
from shared.log.events import RecordedEvent
from shared.log.streams import DAYS_STREAM
from shared.read_models.shapes import DAYS
from shared.timestamps import timestamp


def project_days(changes: DocumentChanges, recorded: RecordedEvent, event: DayClosed) -> None:
    bounds = bounds_of(event.day, event.time_zone)
    told = msgspec.structs.asdict(event) | {"totals": [msgspec.to_builtins(each) for each in event.totals]}
    del told["day"]
    when = {"start": bounds.start, "end": bounds.end, "closed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    changes.insert(event.day, told | when)


DAYS_PROJECTION: Final = Projection(
    DAYS,
    DocumentChanges,
    frozenset({DayClosed}),
    project_days,
    write_once=True,
    makes={DayClosed: 1},
    origin=lambda _: DAYS_STREAM,
)
