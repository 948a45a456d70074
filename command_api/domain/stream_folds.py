"""Finds the fold of a stream. The part of the stream id before the first hyphen is the kind of stream, and each kind has a fold.

To add a kind of stream, add a line to `STREAM_FOLDS`.
"""

from collections.abc import MutableMapping
from typing import Any, Final

import msgspec

from command_api.domain.account import ACCOUNT_FOLD, AccountState
from command_api.domain.day import DAYS_FOLD, DaysState
from command_api.domain.hold import HOLD_FOLD, HoldState
from command_api.domain.ledger import LEDGER_FOLD
from command_api.domain.projection import PROJECTION_FOLD
from command_api.domain.schedule import SCHEDULE_FOLD, ScheduleState
from command_api.domain.transfer import TRANSFER_FOLD
from command_api.domain.user import EMAIL_FOLD, USER_FOLD
from shared.log.events import Event
from shared.log.stream_fold import StreamFold

STREAM_FOLDS: Final = {
    "account": ACCOUNT_FOLD,
    "days": DAYS_FOLD,
    "email": EMAIL_FOLD,
    "hold": HOLD_FOLD,
    "ledger": LEDGER_FOLD,
    "projection": PROJECTION_FOLD,
    "schedule": SCHEDULE_FOLD,
    "transfer": TRANSFER_FOLD,
    "user": USER_FOLD,
}


def fold_of(stream_id: str) -> StreamFold:
    return STREAM_FOLDS[stream_id.partition("-")[0]]


def evolve_states(states: MutableMapping[str, Any], event: Event) -> None:
    """Updates `states`: applies the event to the state of each stream that the event belongs to."""
    for stream_id in event.streams():
        states[stream_id] = fold_of(stream_id).evolve(states[stream_id], event)


_DATED: Final = frozenset((HoldState, DaysState, ScheduleState))


def at_moment(state: Any, now: str) -> Any:
    """Returns a state as of a moment: holds that have expired by then, and what was spent on earlier days, no longer count.

    `now` is RFC 3339 in UTC. A schedule needs it to know if its next run is due.

    Decisions are made on such states. They are never stored, because a snapshot is the fold of the events and of nothing else.
    """
    kind = type(state)
    is_dated = (state.holds or state.limits) if kind is AccountState else kind in _DATED
    return msgspec.structs.replace(state, now=now) if is_dated else state


def owner_of(stream_id: str, state: Any) -> str | None:
    """Returns the id of the user who owns a stream, or None for a kind of stream that no user owns."""
    kind, _, stream_key = stream_id.partition("-")
    return stream_key if kind == "user" else getattr(state, "owner_id", None)
