"""Builds the bodies of the answers to commands on schedules, with their class for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from command_api.answers import PositionMember, VersionMember
from command_api.domain.schedule import CreateSchedule, ScheduleCommand, ScheduleState
from command_api.writer.command_request import Outcome
from shared.log.streams import schedule_stream
from shared.schedule_rules import rule_members
from shared.web.members import PLANNED_TRANSFER_EXAMPLE, RULE_EXAMPLE, PlannedTransferMember, RuleMember

SCHEDULE_ID: Final = "0198c5a0-0000-7000-8000-000000000088"


class ScheduleBody(BaseModel):
    """A schedule after a command. `run_count` counts its runs, with those that were refused."""

    id: str
    version: VersionMember
    transfer: PlannedTransferMember
    rule: Annotated[RuleMember | None, Field(description="null if the schedule runs once.")]
    status: Literal["active", "cancelled", "ended"]
    next_run_at: Annotated[str | None, Field(description="When the next run is due. null if there is none.")]
    run_count: int
    position: PositionMember

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": SCHEDULE_ID,
                "version": 1,
                "transfer": PLANNED_TRANSFER_EXAMPLE,
                "rule": RULE_EXAMPLE,
                "status": "active",
                "next_run_at": "2026-11-30T08:00:00.000000Z",
                "run_count": 0,
                "position": 42,
            }
        }
    )


def schedule_body(command: CreateSchedule | ScheduleCommand, outcome: Outcome) -> dict[str, Any]:
    """Builds a `ScheduleBody`."""
    schedule_id = command.schedule.id if isinstance(command, CreateSchedule) else command.schedule_id
    schedule: ScheduleState = outcome.states[schedule_stream(schedule_id)]
    members = ("from_account_id", "to_account_id", "amount", "currency", "reference", "metadata")
    return {
        "id": schedule_id,
        "version": outcome.version,
        "transfer": {name: getattr(schedule, name) for name in members},
        "rule": rule_members(schedule.rule),
        "status": schedule.status,
        "next_run_at": schedule.next_run and schedule.next_run.due_at,
        "run_count": schedule.runs,
        "position": outcome.position,
    }
