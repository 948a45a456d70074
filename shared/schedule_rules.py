"""When the runs of a schedule are due: the dates of a rule, and the moment of each date in a time zone.

The dates follow from the rule alone. Their moments need the time zone data of this machine, which governments change. So an event
holds the moment of the next run as it was planned, and whoever decides the event again gives that moment: `recorded`. A recorded
moment is believed if some time zone could have it at that date and time.

- A day that a month does not have is the month's last day.
- A rule can move runs from a Saturday or Sunday to the Friday before or the Monday after. The other dates of the rule stay.
- A time that clocks skip counts from the clock before the change: 02:30 is then 03:30. A time that comes twice is the first one.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from shared.schedule_errors import TimeZoneUnknown
from shared.time_zones import find_time_zone
from shared.timestamps import timestamp

FIRST_DATE: Final = date(1900, 1, 1)
LAST_DATE: Final = date(2199, 12, 30)
"""The last date that a run can have. So its moment is in a year that Daybook can store, in every time zone."""

_OFFSET_MAX: Final = timedelta(hours=15, minutes=30)
"""More than any time zone ever differed from UTC, with an hour for a skipped time."""

_FRIDAY: Final = 4
_WEEKEND_DAYS_MAX: Final = 2
_DECEMBER: Final = 12


class ScheduleRule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a schedule runs. `day` is 1 (Monday) to 7 of a week, or 1 to 31 of a month. `until` is the last date of the rule."""

    every: Literal["day", "week", "month"]
    time: str
    time_zone: str
    day: int | None = None
    weekend: Literal["same", "before", "after"] = "same"
    starts_on: str | None = None
    until: str | None = None


class PlannedRun(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A run that is to come: the moment when it is due, and its date in the rule. A run without a rule has no date."""

    due_at: str
    date: str | None = None


def first_run(rule: ScheduleRule, now: str, recorded: PlannedRun | None = None) -> PlannedRun | None:
    """Returns the first run of a rule that is due after a moment, or None if there is none.

    Raises:
        TimeZoneUnknown: this machine has no data of the time zone.
    """
    if recorded and _could_be_first(rule, now, recorded):
        return recorded
    near = datetime.fromisoformat(now).date() - timedelta(days=_WEEKEND_DAYS_MAX + 2)
    runs = (PlannedRun(_due_at(rule, day), day.isoformat()) for day in _dates_after(rule, near))
    return next((run for run in runs if run.due_at > now), None)


def run_after(rule: ScheduleRule, run: PlannedRun, recorded: PlannedRun | None = None) -> PlannedRun | None:
    """Returns the run of a rule that follows another of its runs, or None if that was the last one.

    Raises:
        TimeZoneUnknown: this machine has no data of the time zone.
    """
    day = next(_dates_after(rule, date.fromisoformat(run.date or "")), None)
    if day is None:
        return None
    if recorded and recorded.date == day.isoformat() and _is_possible(rule, day, recorded.due_at):
        return recorded
    return PlannedRun(_due_at(rule, day), day.isoformat())


def _could_be_first(rule: ScheduleRule, now: str, run: PlannedRun) -> bool:
    """Returns True if the run is due after `now`, and no date of the rule before it was certainly due after `now`."""
    if run.date is None or run.due_at <= now:
        return False
    day = date.fromisoformat(run.date)
    if next(_dates_after(rule, day - timedelta(days=1)), None) != day or not _is_possible(rule, day, run.due_at):
        return False
    moment = datetime.fromisoformat(now)
    earlier = takewhile(day.__gt__, _dates_after(rule, moment.date() - timedelta(days=_WEEKEND_DAYS_MAX + 2)))
    return all(_wall(rule, each) - _OFFSET_MAX <= moment for each in earlier)


def _is_possible(rule: ScheduleRule, day: date, due_at: str) -> bool:
    return abs(datetime.fromisoformat(due_at) - _wall(rule, day)) <= _OFFSET_MAX


def _dates_after(rule: ScheduleRule, day: date) -> Iterator[date]:
    """Yields the dates of a rule after a day, before weekends are considered, until the last date of the rule."""
    start = date.fromisoformat(rule.starts_on) if rule.starts_on else FIRST_DATE
    last = min(date.fromisoformat(rule.until) if rule.until else LAST_DATE, LAST_DATE)
    day = max(day, start - timedelta(days=1))
    while (day := _next_date(rule, day)) <= last:
        yield day


def _next_date(rule: ScheduleRule, day: date) -> date:
    if rule.every == "day":
        return day + timedelta(days=1)
    wanted = rule.day or 1
    if rule.every == "week":
        return day + timedelta(days=(wanted - day.isoweekday() - 1) % 7 + 1)
    in_month = _day_of_month(day.year, day.month, wanted)
    if in_month > day:
        return in_month
    return _day_of_month(day.year + day.month // _DECEMBER, day.month % _DECEMBER + 1, wanted)


def _day_of_month(year: int, month: int, day: int) -> date:
    """Returns this day of a month, or the last day of the month if it has fewer days."""
    after = date(year + month // _DECEMBER, month % _DECEMBER + 1, 1)
    return min(date(year, month, 1) + timedelta(days=day - 1), after - timedelta(days=1))


def _off_weekend(rule: ScheduleRule, day: date) -> date:
    days_after_friday = day.weekday() - _FRIDAY
    if rule.weekend == "same" or days_after_friday <= 0:
        return day
    return day - timedelta(days=days_after_friday) if rule.weekend == "before" else day + timedelta(days=3 - days_after_friday)


def _wall(rule: ScheduleRule, day: date) -> datetime:
    """Returns the date and time of a run as if its clock showed UTC."""
    return datetime.combine(_off_weekend(rule, day), time.fromisoformat(rule.time), UTC)


def _due_at(rule: ScheduleRule, day: date) -> str:
    # Without `fold`, a skipped time has the offset before the change, and the first of two equal times is taken.
    return timestamp(_wall(rule, day).replace(tzinfo=_zone(rule.time_zone)))


def _zone(name: str) -> ZoneInfo:
    zone = find_time_zone(name)
    if zone is None:
        raise TimeZoneUnknown
    return zone


def rule_members(rule: ScheduleRule | None) -> dict[str, Any] | None:
    """Returns a rule as the members of an answer, all of them."""
    return msgspec.structs.asdict(rule) if rule else None


def rule_from(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the members of an answer for a rule that was stored without its defaults."""
    return rule_members(msgspec.convert(fields, ScheduleRule)) if fields else None
