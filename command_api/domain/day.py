"""The decider for business days, which are closed one after another.

The stream is `days`. A closing says what the log has of the day up to a position. The log before a position never changes, so
what was computed from it before the decision is still right after it.
"""

from typing import Annotated, ClassVar, Final

import msgspec
from pydantic import Field

from command_api.domain.command import Command, States
from command_api.domain.command_fields import StrictFields
from shared.business_days import bounds_of, day_after
from shared.day_errors import DayNotEnded, DayOutOfOrder
from shared.input_types import Currency, Day
from shared.log.day_events import CurrencyTotals, DayClosed
from shared.log.events import Event
from shared.log.ledger_state import LedgerState
from shared.log.stream_fold import StreamFold
from shared.log.streams import DAYS_STREAM, LEDGER_STREAM

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class DaysState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last day that was closed, or None. `now` is the moment that the state is as of: see `stream_folds.at_moment`."""

    last: DayClosed | None = None
    now: str = ""


def evolve_days(state: DaysState, event: DayClosed) -> DaysState:
    return msgspec.structs.replace(state, last=event)


DAYS_FOLD: Final = StreamFold(1, DaysState(), evolve_days)

# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────

Position = Annotated[int, Field(ge=0, le=2**53 - 1)]
Sum = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,60})$")]


class DayTotals(StrictFields):
    """What a day moved in one currency: see `CurrencyTotals`."""

    currency: Currency
    entries: Position
    moved: Sum
    paid_in: Sum
    paid_out: Sum


class CloseDay(Command):
    """Closes a day with what the log says of it. Rejections, in this order: day-not-ended, day-out-of-order.

    A day begins and ends in the time zone of the ledger, which never changes. The first day of a ledger to be closed can be any
    day. Closing the last closed day again changes nothing.
    """

    suits_closed_ledgers: ClassVar[bool] = True

    day: Day
    up_to: Position
    events: Position
    root: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    first_position: Position | None = None
    last_position: Position | None = None
    totals: Annotated[tuple[DayTotals, ...], Field(strict=False)] = ()

    @staticmethod
    def recording(closed: DayClosed) -> "CloseDay":
        """Returns the command that records this closing."""
        members = msgspec.to_builtins(closed)
        del members["time_zone"]
        return CloseDay.model_validate(members)

    def streams(self) -> tuple[str, ...]:
        return DAYS_STREAM, LEDGER_STREAM

    def decide(self, states: States) -> list[Event]:
        state: DaysState = states[DAYS_STREAM]
        ledger: LedgerState = states[LEDGER_STREAM]
        ends_at = bounds_of(self.day, ledger.time_zone).end
        if state.now < ends_at:
            raise DayNotEnded(ends_at=ends_at)
        if state.last is not None:
            if state.last.day == self.day:
                return []
            if (next_day := day_after(state.last.day)) != self.day:
                raise DayOutOfOrder(next_day=next_day)
        totals = tuple(CurrencyTotals(**each.model_dump()) for each in self.totals)
        return [DayClosed(**self.model_dump(exclude={"totals"}), time_zone=ledger.time_zone, totals=totals)]
