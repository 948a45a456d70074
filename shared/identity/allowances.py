"""Allowances: how often something may happen at once, and how often in the long run, for each of many names.

The clock is an argument, so that tests can turn it.
"""

from collections import OrderedDict
from typing import Final

NAMES_MAX: Final = 10_000


class Allowances:
    """Allows `at_once` uses of each name, and one more after every `seconds`.

    Remembers the `NAMES_MAX` names that were used last.
    """

    def __init__(self, at_once: int, seconds: float) -> None:
        self._seconds = seconds
        self._ahead_max = (at_once - 1) * seconds
        # When each name has all its uses again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, now: float) -> bool:
        """Uses the name once and returns True. Returns False, and uses nothing, if it was used too often."""
        full_at = max(now, self._full_at.get(name, now))
        if full_at - now > self._ahead_max:
            return False
        self._full_at[name] = full_at + self._seconds
        self._full_at.move_to_end(name)
        if len(self._full_at) > NAMES_MAX:
            self._full_at.popitem(last=False)
        return True
