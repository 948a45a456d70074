"""A histogram of observed values. It has no lock, so use each histogram in one thread only."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Histogram:
    """Counts how many observed values are at or below each bound. `total` is the sum of all observed values."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Yields the buckets as Prometheus expects them: each bound and the number of values up to it. The last is "+Inf"."""
        count = 0
        for bound, more in zip([*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True):
            count += more
            yield bound, float(count)
