"""The read model `schedule-runs`: one document per run of a schedule, also if it was refused."""

from typing import Final

import msgspec

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import FundsTransferred
from shared.log.schedule_events import ScheduleRunRefused
from shared.log.streams import schedule_stream
from shared.read_models.shapes import SCHEDULE_RUNS, RecordedRun, entry_id
from shared.timestamps import timestamp


def project_schedule_runs(
    changes: DocumentChanges, recorded: RecordedEvent, event: ScheduleRunRefused | FundsTransferred
) -> None:
    recorded_at = timestamp(recorded.recorded_at)
    if isinstance(event, ScheduleRunRefused):
        schedule_id = event.schedule_id
        run = RecordedRun(event.number, event.due_at, recorded_at, recorded.position, refused=event.code)
    elif event.run:
        schedule_id = event.run.schedule_id
        due_at = event.occurred_at or recorded_at
        run = RecordedRun(event.run.number, due_at, recorded_at, recorded.position, transfer_id=event.transfer_id)
    else:
        return
    changes.insert(entry_id(schedule_id, run.number), {"item": msgspec.json.encode(run).decode()})


def _schedule_of(run_id: str) -> str:
    return schedule_stream(run_id.rpartition("/")[0])


def _runs_of(event: FundsTransferred) -> int:
    return 1 if event.run else 0


SCHEDULE_RUNS_PROJECTION: Final = Projection(
    SCHEDULE_RUNS,
    DocumentChanges,
    handles=frozenset((ScheduleRunRefused, FundsTransferred)),
    project=project_schedule_runs,
    write_once=True,
    makes={ScheduleRunRefused: 1, FundsTransferred: _runs_of},
    origin=_schedule_of,
)
