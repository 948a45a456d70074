"""The read model `schedules`: one document per schedule."""

from typing import Any, Final, assert_never, get_args

import msgspec

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from shared.log.events import RecordedEvent
from shared.log.money_events import FundsTransferred
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged, ScheduleCreated, ScheduleEvent, ScheduleRunRefused
from shared.log.streams import schedule_stream
from shared.read_models.shapes import SCHEDULES, found_by
from shared.schedule_rules import PlannedRun
from shared.timestamps import timestamp


def project_schedules(changes: DocumentChanges, recorded: RecordedEvent, event: ScheduleEvent | FundsTransferred) -> None:
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    match event:
        case ScheduleCreated():
            names = ("owner_id", "from_account_id", "to_account_id", "amount", "currency", "reference", "metadata")
            fields = {name: getattr(event, name) for name in names} | {
                "found_by": found_by((event.from_account_id, event.owner_id)),
                "rule": msgspec.to_builtins(event.rule),
                "status": "active",
                "next_run": msgspec.to_builtins(event.next_run),
                "run_count": 0,
                "refused_count": 0,
                "created_at": changed["changed_at"],
                "version": 1,
            }
            changes.insert(event.schedule_id, fields | changed)
        case ScheduleChanged():
            fields = {name: msgspec.to_builtins(getattr(event, name)) for name in ("to_account_id", "amount", "rule", "next_run")}
            changes.change(event.schedule_id, fields | changed, {"version": 1})
        case ScheduleCancelled():
            changes.change(event.schedule_id, {"status": "cancelled", "next_run": None} | changed, {"version": 1})
        case ScheduleRunRefused():
            counts = {"version": 1, "run_count": 1, "refused_count": 1}
            changes.change(event.schedule_id, _after_run(event.next_run) | changed, counts)
        case FundsTransferred():
            if event.run:
                fields = _after_run(event.run.next_run) | changed
                changes.change(event.run.schedule_id, fields, {"version": 1, "run_count": 1})
        case _:
            assert_never(event)


def _after_run(next_run: PlannedRun | None) -> dict[str, Any]:
    return {"status": "active" if next_run else "ended", "next_run": msgspec.to_builtins(next_run)}


SCHEDULES_PROJECTION: Final = Projection(
    SCHEDULES,
    DocumentChanges,
    handles=frozenset((*get_args(ScheduleEvent), FundsTransferred)),
    project=project_schedules,
    makes={ScheduleCreated: 1},
    origin=schedule_stream,
)
