"""Counts what a writer does, for the metrics of the command API. A command costs some additions in memory."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from command_api.writer.command_request import CommandRequest, Reply
from shared.errors import DaybookError, StoreUnavailable
from shared.histogram import SECONDS, SIZES, Histogram

ACCEPTED: Final = "accepted"
REPEATED: Final = "repeated"
REHEARSED: Final = "rehearsed"
REJECTED: Final = "rejected"
UNAVAILABLE: Final = "unavailable"
FAILED: Final = "failed"
OVERLOADED: Final = "overloaded"
LATE: Final = "late"
OUTCOMES: Final = (ACCEPTED, REPEATED, REHEARSED, REJECTED, UNAVAILABLE, FAILED, OVERLOADED, LATE)
"""How a command can end. A `late` one got a 503 at its deadline. If it was being written then, it has another outcome too."""

CONFLICT: Final = "conflict"
CONNECTION: Final = "connection"
UNKNOWN_COMMIT: Final = "unknown_commit"
RETRY_CAUSES: Final = (CONFLICT, CONNECTION, UNKNOWN_COMMIT)
"""Why a batch was begun anew: another writer won, the connection was lost, or the reply to COMMIT was lost."""


class WriterMeasurements:
    """What one writer has done since its process started. Use it in one thread only."""

    def __init__(self) -> None:
        self.batch_commands = Histogram(SIZES)
        self.commit_seconds = Histogram(SECONDS)
        self.retries: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How many commands ended how, by (name of the command, outcome)."""

    def count(self, requests: Sequence[CommandRequest], outcome: str) -> None:
        """Counts requests that all end in the same way."""
        for request in requests:
            self.outcomes[_name_of(request), outcome] += 1

    def count_verdicts(self, requests: Sequence[CommandRequest], verdicts: Sequence[Reply | Exception]) -> None:
        """Counts the requests of a batch by their verdicts, which are in the same order."""
        for request, verdict in zip(requests, verdicts, strict=True):
            self.outcomes[_name_of(request), _outcome_of(request, verdict)] += 1


def _name_of(request: CommandRequest) -> str:
    return "CommandBatch" if request.together else type(request.command).__name__


def _outcome_of(request: CommandRequest, verdict: Reply | Exception) -> str:
    if isinstance(verdict, StoreUnavailable):
        return UNAVAILABLE
    if isinstance(verdict, Exception):
        return REJECTED if isinstance(verdict, DaybookError) else FAILED
    if request.rehearsed:
        return REHEARSED
    if verdict.replayed:
        return REPEATED
    return REJECTED if verdict.position is None else ACCEPTED
