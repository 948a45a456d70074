"""PostgreSQL's clock, as a writer knows it between its questions to PostgreSQL.

The times in the log come from PostgreSQL's clock only. The clocks of the machines of several command APIs differ, and one that
is a day ahead would give all events of a day the same time, because times in a log never go back. So a writer remembers the time
that PostgreSQL told with each append, and adds the time that has passed since then.
"""

from collections.abc import Callable
from datetime import datetime, timedelta


class DatabaseClock:
    """Tells the time by PostgreSQL's clock. `monotonic` gives seconds that pass evenly, whatever the time of day is set to."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: datetime | None = None
        self._told_at = 0.0

    def set(self, database_time: datetime) -> None:
        """Takes over the time that PostgreSQL has just told."""
        self._told, self._told_at = database_time, self._monotonic()

    def now(self) -> datetime | None:
        """Returns the time, a moment behind PostgreSQL's and never ahead of it, or None if PostgreSQL has not told it yet."""
        if self._told is None:
            return None
        return self._told + timedelta(seconds=self._monotonic() - self._told_at)
