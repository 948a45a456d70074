"""Counts how often values are how large. Noting one is a bisection and three additions, with no lock: for one thread."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Tally:
    """How many values were at most as large as each bound."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """As Prometheus has them: each bound with how many were not above it, and all of them at last."""
        count = 0
        for bound, more in zip([*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True):
            count += more
            yield bound, float(count)
