"""The rules of what an account may spend, without a server: in one transfer, in a day and in a month."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.domain.account import ACCOUNT_FOLD, AccountState
from command_api.domain.account_limits import ChangeLimits, NewLimits
from command_api.domain.command import Command
from command_api.domain.hold import CaptureHold, HoldCapture, PlaceHold
from command_api.domain.past_decisions import PastDecisions
from command_api.domain.stream_folds import at_moment
from shared.errors import InsufficientFunds, Rejection
from shared.ids import new_id
from shared.limit_errors import AmountOutsideLimits, LimitExceeded
from shared.log.account_events import AccountLimitsChanged
from shared.log.event_struct import Spent
from shared.log.events import Event
from shared.log.hold_events import HoldPlaced
from shared.timestamps import timestamp
from tests.command_api import test_deciders as deciders
from tests.command_api.test_deciders import (
    CLOSED,
    FROZEN,
    ONE,
    TWO,
    FoldedStates,
    created,
    deposited,
    opened,
)

NOON = "2026-02-28T12:00:00.000000Z"
MIDNIGHT = "2026-03-01T00:00:00.000000Z"
HOLD = "00000000-0000-0000-0000-0000000000cc"


def withdrawal(amount: int, **fields: Any) -> Command:
    return deciders.withdrawal(amount, **({"id": new_id()} | fields))


def transfer(amount: int, **fields: Any) -> Command:
    return deciders.transfer(amount, **({"id": new_id()} | fields))


def deposit(amount: int, **fields: Any) -> Command:
    return deciders.deposit(amount, **({"id": new_id()} | fields))


def limits(**fields: Any) -> ChangeLimits:
    return ChangeLimits(account_id=ONE, limits=NewLimits(**fields))


def limited(**fields: Any) -> AccountLimitsChanged:
    return AccountLimitsChanged(account_id=ONE, currency="EUR", **fields)


def decided(states: FoldedStates, command: Command, now: str = NOON) -> list[Event]:
    first = {stream_id: at_moment(states[stream_id], now) for stream_id in command.streams()}
    return command.decide(first | {each: at_moment(states[each], now) for each in command.further_streams(first)})


def spent_by(states: FoldedStates, command: Command, now: str = NOON) -> Spent | None:
    """Records the command and returns what its event says was spent."""
    [event] = decided(states, command, now)
    states.take(event)
    spent: Spent | None = event.spent  # type: ignore[union-attr]
    return spent


def rich(**fields: Any) -> FoldedStates:
    """Returns the states of two accounts, of which the first has 1,000 and these limits."""
    return FoldedStates(created(), opened(), opened(TWO), deposited(1_000), limited(**fields))


def refusal(states: FoldedStates, command: Command, now: str = NOON) -> tuple[str, dict[str, Any]]:
    with pytest.raises(Rejection) as rejected:
        decided(states, command, now)
    return rejected.value.code, rejected.value.extra


def test_each_limit_refuses_what_exceeds_it_and_nothing_else() -> None:
    states = rich(per_transfer_min=5, per_transfer_max=60, per_day=100, per_month=150)
    outside = {"smallest": 5, "largest": 60}
    assert refusal(states, withdrawal(4)) == refusal(states, transfer(61)) == ("amount-outside-limits", outside)
    assert spent_by(states, withdrawal(60)) == Spent("2026-02-28", 60, 60)
    of_day = {"limit": 100, "used": 60, "period": "day", "resets_at": MIDNIGHT}
    assert refusal(states, transfer(41)) == ("limit-exceeded", of_day)
    assert spent_by(states, transfer(40)) == Spent("2026-02-28", 100, 100)
    assert refusal(states, withdrawal(5))[1]["used"] == 100
    assert decided(states, deposit(500))  # money that comes in is not spending
    assert spent_by(rich(per_transfer_max=60), withdrawal(60)) is None


def test_a_day_ends_at_midnight_and_a_month_with_its_last_day() -> None:
    states = rich(per_day=100, per_month=150)
    assert spent_by(states, withdrawal(100), "2026-02-27T23:59:59.999999Z") == Spent("2026-02-27", 100, 100)
    assert refusal(states, withdrawal(1), "2026-02-27T23:59:59.999999Z")[1]["resets_at"] == "2026-02-28T00:00:00.000000Z"
    of_month = {"limit": 150, "used": 100, "period": "month", "resets_at": MIDNIGHT}
    assert refusal(states, withdrawal(51), "2026-02-28T00:00:00.000000Z") == ("limit-exceeded", of_month)
    assert spent_by(states, withdrawal(50), "2026-02-28T00:00:00.000000Z") == Spent("2026-02-28", 50, 150)
    assert refusal(states, withdrawal(1), "2026-02-28T23:59:59.999999Z")[1]["period"] == "month"
    assert spent_by(states, withdrawal(100), MIDNIGHT) == Spent("2026-03-01", 100, 100)
    december = rich(per_month=10)
    assert refusal(december, withdrawal(11), "2026-12-31T23:59:59.999999Z")[1]["resets_at"] == "2027-01-01T00:00:00.000000Z"


def test_a_capture_is_spending_and_the_hold_before_it_is_not() -> None:
    states = rich(per_day=100)
    [placed] = decided(states, PlaceHold(id=HOLD, account_id=ONE, to_account_id=TWO, amount=300, currency="EUR"))
    assert isinstance(placed, HoldPlaced)
    states.take(placed)
    too_much = CaptureHold(hold_id=HOLD, capture=HoldCapture(id=new_id(), amount=101))
    assert refusal(states, too_much)[0] == "limit-exceeded"
    assert spent_by(states, CaptureHold(hold_id=HOLD, capture=HoldCapture(id=new_id(), amount=90))) == Spent("2026-02-28", 90, 0)
    assert refusal(states, withdrawal(11))[1]["used"] == 90


def test_limits_are_decided_before_the_money_and_after_the_account() -> None:
    states = rich(per_transfer_max=2_000, per_day=1_500)
    assert refusal(states, withdrawal(2_001))[0] == AmountOutsideLimits.code
    assert refusal(states, withdrawal(1_501))[0] == LimitExceeded.code
    assert refusal(states, withdrawal(1_500))[0] == InsufficientFunds.code
    states.take(FROZEN)
    assert refusal(states, withdrawal(2_001))[0] == "account-frozen"


def test_a_limit_that_changes_keeps_its_count_and_one_that_is_new_begins_at_0() -> None:
    states = rich(per_day=100)
    spent_by(states, withdrawal(70))
    assert spent_by(states, limits(per_day=90, per_month=500)) == Spent("2026-02-28", 70, 0)
    assert refusal(states, withdrawal(21))[1]["used"] == 70
    assert spent_by(states, withdrawal(20)) == Spent("2026-02-28", 90, 20)
    assert spent_by(states, limits(per_month=500)) == Spent("2026-02-28", 0, 20)
    assert spent_by(states, limits(per_day=1)) == Spent("2026-02-28", 0, 0)
    assert spent_by(states, limits(per_transfer_max=9)) is None
    assert decided(states, limits(per_transfer_max=9)) == []
    spent_by(states, limits())
    assert at_moment(states[f"account-{ONE}"], NOON).limits is None
    assert spent_by(states, withdrawal(500)) is None


def test_what_was_spent_on_an_earlier_day_does_not_move_to_the_day_of_a_change() -> None:
    states = rich(per_day=100, per_month=100)
    spent_by(states, withdrawal(70), "2026-02-27T12:00:00.000000Z")
    assert spent_by(states, limits(per_day=90, per_month=90), NOON) == Spent("2026-02-28", 0, 70)
    assert spent_by(states, limits(per_day=91, per_month=90), MIDNIGHT) == Spent("2026-03-01", 0, 0)


def test_limits_of_a_closed_account_do_not_change_and_crossed_limits_are_no_limits() -> None:
    assert refusal(FoldedStates(created(), opened(), CLOSED), limits(per_day=1))[0] == "account-closed"
    assert refusal(FoldedStates(), limits(per_day=1))[0] == "not-found"
    for wrong in ({"per_transfer_min": 2, "per_transfer_max": 1}, {"per_day": -1}, {"per_transfer_min": 0}, {"per_day": True}):
        with pytest.raises(ValueError, match="validation error"):
            NewLimits(**wrong)


def test_a_snapshot_from_before_there_were_limits_is_still_read() -> None:
    """It has no member for them, and an account without limits makes the same snapshot as before."""
    snapshot = f'{{"account_id":"{ONE}","owner_id":"o","currency":"EUR","status":"open","overdraft_limit":5,"posted":70}}'
    state = ACCOUNT_FOLD.read(snapshot, ("snapshot",), {})
    assert state == AccountState(ONE, "o", "EUR", "open", 5, 70)
    assert ACCOUNT_FOLD.write(state, ("snapshot",), {}) == snapshot
    limited_state = rich(per_day=5)[f"account-{ONE}"]
    assert ACCOUNT_FOLD.read(ACCOUNT_FOLD.write(limited_state, ("s",), {}), ("s",), {}) == limited_state


STEPS = st.tuples(
    st.sampled_from(["withdraw", "transfer", "deposit", "limit", "nothing"]),
    st.integers(1, 60),
    st.integers(0, 40),  # hours until the next step
    st.fixed_dictionaries({name: st.none() | st.integers(0, 100) for name in ("per_day", "per_month")}),
)


@given(st.lists(STEPS, max_size=60))
def test_no_day_and_no_month_ever_passes_its_limit_as_a_plain_list_of_payments_says(steps: list[Any]) -> None:
    """The model remembers every payment with its time, and when each limit was set first. The log is decided again as it is."""
    states, past, paid = FoldedStates(), PastDecisions(), list[tuple[str, int, int]]()
    now, since, current = datetime(2026, 1, 27, tzinfo=UTC), {"per_day": 0, "per_month": 0}, dict[str, int | None]()
    first: list[Event] = [created(), opened(overdraft_limit=10_000), opened(TWO)]
    for position, event in enumerate(first, 1):
        states.take(event)
        past.decide_again(position, event, timestamp(now))
    position = 3
    for number, (kind, amount, hours, asked) in enumerate(steps):
        now += timedelta(hours=hours)
        moment, new = timestamp(now), f"{number:08d}-0000-0000-0000-000000000000"
        used = {
            name: sum(each for at, each, index in paid if at[:length] == moment[:length] and index >= since[name])
            for name, length in (("per_day", 10), ("per_month", 7))
        }
        spends = kind in {"withdraw", "transfer"}
        allowed = all(limit is None or used[name] + amount <= limit for name, limit in current.items())
        make = {"withdraw": withdrawal, "transfer": transfer, "deposit": deposit}.get(kind, deposit)
        command = limits(**asked) if kind == "limit" else make(amount, id=new)
        if spends and not allowed:
            code, told = refusal(states, command, moment)
            assert (code, told["used"]) == ("limit-exceeded", used[f"per_{told['period']}"])
            continue
        for event in decided(states, command, moment):
            position += 1
            states.take(event)
            past.decide_again(position, event, moment)
        if spends:
            paid.append((moment, amount, number))
        if kind == "limit":
            since |= {name: number for name in since if current.get(name) is None}
            current = asked


def test_a_fold_knows_no_moment() -> None:
    state = rich(per_day=5)[f"account-{ONE}"]
    assert msgspec.structs.replace(at_moment(state, NOON), now="") == state
    assert at_moment(state, NOON).now == NOON
