"""How a worker's time goes, for one read model: see `shared.pace`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.pace import Pace, Phase

FADING: Final = 0.8
"""What is left of the past each time that the pace is told: it speaks of the last seconds."""


class Stopwatch:
    """Measures the phases of one follower, which are one after another."""

    def __init__(self) -> None:
        self._seconds: dict[Phase, float] = {"reading": 0.0, "folding": 0.0, "writing": 0.0}
        self._events = 0.0
        self._phase: Phase = "waiting"
        self._since = time.monotonic()

    @contextmanager
    def measured(self, phase: Phase) -> Iterator[None]:
        self._phase, self._since = phase, time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self._seconds[phase] += now - self._since
            self._phase, self._since = "waiting", now

    def count(self, events: int) -> None:
        """So many events are in."""
        self._events += events

    def pace(self) -> Pace:
        """The last seconds; what is told now counts for less the next time."""
        now = time.monotonic() - self._since
        seconds = {phase: total + (now if phase == self._phase else 0.0) for phase, total in self._seconds.items()}
        told = Pace(self._phase, now, seconds["reading"], seconds["folding"], seconds["writing"], self._events)
        self._seconds = {phase: total * FADING for phase, total in self._seconds.items()}
        self._events *= FADING
        return told
