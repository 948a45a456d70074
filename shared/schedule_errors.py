"""The rejections about schedules: see `shared.errors`."""

from shared.errors import Rejection


class TimeZoneUnknown(Rejection):
    """The time zone is not in the IANA database of this machine."""

    code = "time-zone-unknown"


class ScheduleNeverDue(Rejection):
    """The schedule would have no run that is due from now on."""

    code = "schedule-never-due"
    message = "The schedule would have no run after now: it is {now}."


class ScheduleNotActive(Rejection):
    """The schedule has ended."""

    code = "schedule-not-active"
    message = "The schedule has ended: it is {schedule_status}."


class ScheduleRunDue(Rejection):
    """A run of the schedule is due and not recorded yet."""

    code = "schedule-run-due"
    retryable = True
    message = "A run that was due at {due_at} is not recorded yet. Change when the schedule runs after that, or cancel it."
