"""Computes how long to wait before the next attempt."""

import math
import random


def backoff_seconds(attempts: int, bounds: tuple[float, float]) -> float:
    """Returns a wait in seconds that doubles with each attempt, from the first of `bounds` up to the second.

    A random factor between 0.5 and 1 keeps workers from retrying at the same moment.
    """
    shortest, longest = bounds
    return min(math.ldexp(shortest, min(attempts - 1, 20)), longest) * random.uniform(0.5, 1.0)  # noqa: S311 # not a secret
