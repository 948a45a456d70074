"""The interface through which long-running work reports its progress. The caller decides whether and where to show it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

CountDone = Callable[[int], None]
"""A function that the work calls with the number of units done since the previous call."""


class Progress(Protocol):
    """Shows the progress of one piece of work."""

    def extend(self, total: int) -> None:
        """Sets a new total number of units, when the work turns out to be larger."""

    def advance(self, count: int = 1) -> None:
        """Adds `count` units that were done since the previous call."""


ShowProgress = Callable[[str, int, str], AbstractContextManager[Progress]]
"""A function that starts a progress display. Its arguments are a label, the total, and the name of the unit counted."""
