"""Converts points in time to text. All stores and answers use this one form."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=256)  # events of one transaction have the same time
def timestamp(moment: datetime) -> str:
    """Returns a time as RFC 3339 in UTC with microseconds, always 27 characters.

    Texts of this form sort by time, and no store rounds them.
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
