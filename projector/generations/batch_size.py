"""Says how large a batch may be. After a store has failed to take a batch, the next one is half as large."""

from typing import Final

HALVINGS_MAX: Final = 16
BATCHES_BETWEEN: Final = 10
"""After so many batches that a store took, the next ones may be twice as large."""


class BatchSize:
    """The size of the batches of one read model. It becomes smaller with each failure of a store, and grows back slowly.

    A store that is slow may need longer for a batch than a driver waits. The same batch would then fail again and again.
    """

    def __init__(self) -> None:
        self._halvings = 0
        self._taken = 0

    def at_most(self, limit: int) -> int:
        """Returns how many of something that may be `limit` at other times a batch may have now. It is at least 1."""
        return max(1, limit >> self._halvings)

    def failed(self) -> None:
        """Call this when a store did not take a batch."""
        self._halvings = min(self._halvings + 1, HALVINGS_MAX)
        self._taken = 0

    def taken(self) -> None:
        """Call this when a store has taken a batch."""
        self._taken += 1
        if self._taken >= BATCHES_BETWEEN:
            self._halvings, self._taken = max(self._halvings - 1, 0), 0
