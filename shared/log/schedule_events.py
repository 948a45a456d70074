"""Events about schedules that move no money. A run that moves money is a `FundsTransferred` with the field `run`.

Class names and field names are the storage format: never rename one. Amounts are in minor units. `next_run` is the run that comes
next, or None if there is none. A schedule without a rule runs once.
"""

from shared.log.event_struct import EventStruct
from shared.log.streams import schedule_stream
from shared.schedule_rules import PlannedRun, ScheduleRule


class ScheduleCreated(EventStruct, frozen=True):
    """Money is to move at a moment or by a rule. `owner_id` is the owner of the account that pays."""

    schedule_id: str
    owner_id: str
    from_account_id: str
    to_account_id: str
    amount: int
    currency: str
    next_run: PlannedRun
    rule: ScheduleRule | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)


class ScheduleChanged(EventStruct, frozen=True):
    """All runs that are to come were changed. The fields say how they are now."""

    schedule_id: str
    to_account_id: str
    amount: int
    next_run: PlannedRun
    rule: ScheduleRule | None = None

    def streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)


class ScheduleCancelled(EventStruct, frozen=True):
    """A schedule was ended. `runs` is the number of its runs, with those that were refused."""

    schedule_id: str
    runs: int

    def streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)


class ScheduleRunRefused(EventStruct, frozen=True):
    """A run was due, and a rule said no. `code` is that of the rejection. `number` counts the runs of the schedule from 1."""

    schedule_id: str
    number: int
    due_at: str
    code: str
    next_run: PlannedRun | None = None

    def streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)


ScheduleEvent = (
    ScheduleCreated  # one to a line, so that two people can add one each
    | ScheduleChanged
    | ScheduleCancelled
    | ScheduleRunRefused
)
