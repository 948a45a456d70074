"""The time zones that this machine has data of."""

from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_NOT_ZONES: Final = frozenset({"Factory", "localtime", "posix", "posixrules", "right"})
"""Files and folders beside those of the zones. Some have other contents on each machine, and some count leap seconds."""


def find_time_zone(name: str) -> ZoneInfo | None:
    """Returns the time zone with this name of the IANA database, or None if this machine has no data of it."""
    if name in _NOT_ZONES or name.partition("/")[0] in _NOT_ZONES:
        return None
    try:
        return _read(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(maxsize=1024)
def _read(name: str) -> ZoneInfo:
    """Reads the data of a time zone once. It is a small file."""
    return ZoneInfo(name)
