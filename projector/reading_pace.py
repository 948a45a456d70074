"""Decides how long a worker waits for more events before it reads a log again. Uses no I/O, and the time is an argument.

A batch costs the worker and the stores nearly the same with one event as with a hundred. A worker that reads after each wake-up
writes a batch for every few events. When hundreds of events come in a second, these batches take the processor time that the
commands need. So the more events come, the longer the worker waits, and the larger a batch is. While few events come, it does not
wait.
"""

import math
from typing import Final

CALM: Final = 300
"""Up to this many events a second, the worker does not wait."""
BUSY: Final = 900
"""From this many events a second on, it waits as long as it may. In between, the wait grows in proportion."""
FADING_SECONDS: Final = 1.0
"""The rate of events is that of about the last second."""


class ReadingPace:
    """The wait between two reads of a log, by the rate of events in all logs of one worker. Times are in seconds of one clock."""

    def __init__(self, wait_seconds_max: float) -> None:
        self._wait_seconds_max = wait_seconds_max
        self._recent = 0.0
        """The number of events, each counted less the longer ago it came."""
        self._counted_at = -math.inf

    def wait_seconds(self, events: int, now: float) -> float:
        """Counts the events that a read has found, and returns how long to wait before the next one."""
        faded = math.exp((self._counted_at - now) / FADING_SECONDS)
        self._recent, self._counted_at = self._recent * faded + events, now
        share = (self._recent / FADING_SECONDS - CALM) / (BUSY - CALM)
        return self._wait_seconds_max * min(max(share, 0.0), 1.0)
