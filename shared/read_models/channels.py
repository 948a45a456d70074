"""The Redis channels over which processes notify each other of new events and new positions.

A message only saves time: nothing depends on it, because every reader also checks by itself at an interval.
"""

from typing import Final

import msgspec

WAKE_CHANNEL: Final = "daybook:wake"
"""After a commit, the command API publishes the ledger's id here, and the projector reads it."""

LOST_CHANNEL: Final = "daybook:lost"
"""The query API publishes a ledger's id here when a read model has lost a key, so that the worker builds it again at once."""

MOVED_CHANNEL: Final = "daybook:moved"
"""The projector publishes the new positions of read models here, as JSON: `{"main/users": 812}`."""

DUE_HOLDS_CHANNEL: Final = "daybook:due-holds"
"""The worker publishes holds that have expired here, as `DueHolds` in JSON, and the command APIs record their expiry."""


class DueHolds(msgspec.Struct, frozen=True):
    """Some holds of a ledger that have expired, although no event says so yet."""

    ledger_id: str
    hold_ids: list[str]


DUE_RUNS_CHANNEL: Final = "daybook:due-runs"
"""The worker publishes runs of schedules that are due here, as `DueRuns` in JSON, and the command APIs make them."""


class DueRun(msgspec.Struct, frozen=True, order=True):
    """A run of a schedule that is due. Runs are ordered by the moments when they are due."""

    due_at: str
    schedule_id: str
    number: int


class DueRuns(msgspec.Struct, frozen=True):
    """The next runs of some schedules of a ledger, those that were due first at the beginning."""

    ledger_id: str
    runs: list[DueRun]


SKIPS_CHANNEL: Final = "daybook:skips"
"""The worker publishes skips here that an operator asked for, as `RequestedSkip` in JSON, and a command API records them."""


class RequestedSkip(msgspec.Struct, frozen=True):
    """An operation of the kind `skip`, whose event the worker has found among the dead letters."""

    ledger_id: str
    operation_id: str
