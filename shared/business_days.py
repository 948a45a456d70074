"""The business days of a ledger: when a day begins and ends in a time zone."""

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from shared.timestamps import timestamp


class DayBounds(NamedTuple):
    """The first moment of a day, and the first moment after it, as RFC 3339 in UTC."""

    start: str
    end: str


def bounds_of(day: str, time_zone: str) -> DayBounds:
    """Returns when a day, such as `2026-01-31`, begins and ends in a time zone. A day can have 23 or 25 hours."""
    return DayBounds(_midnight(day, time_zone), _midnight(day_after(day), time_zone))


def day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def _midnight(day: str, time_zone: str) -> str:
    zone = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    return timestamp(datetime.combine(date.fromisoformat(day), time(), zone))
