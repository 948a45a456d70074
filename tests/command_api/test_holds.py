"""The rules of holds, without a server: a hold counts from the moment that it is placed until the moment at which it ends."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.domain.account import CloseAccount
from command_api.domain.command import Command
from command_api.domain.hold import HOLDS_MAX, CaptureHold, ExpireHold, HoldCapture, PlaceHold, ReleaseHold
from command_api.domain.past_decisions import PastDecisions
from command_api.domain.stream_folds import at_moment
from shared import errors
from shared.hold_errors import HoldAmountExceeded, HoldNotActive, TooManyHolds
from shared.log.account_events import AccountClosed, AccountFrozen
from shared.log.events import Event
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import HoldCaptured
from shared.money import AMOUNT_MAX
from tests.command_api.test_deciders import (
    ADA,
    CLOSED,
    DOLLARS,
    FREE,
    FROZEN,
    ONE,
    PAID,
    TWO,
    FoldedStates,
    created,
    deposit,
    deposited,
    limit_of,
    opened,
    transfer,
    withdrawal,
)

HOLD = "00000000-0000-0000-0000-0000000000c1"
NOW, LATER, END = (f"2026-01-01T00:00:{second}.000000Z" for second in ("01", "02", "03"))


def decided(command: Command, *past: Event, now: str = NOW) -> list[Event]:
    """What the command leads to at a moment. It gets only the states of the streams that it names, as the writer does."""
    states = FoldedStates(*past)
    first = {stream_id: at_moment(states[stream_id], now) for stream_id in command.streams()}
    return command.decide(first | {each: at_moment(states[each], now) for each in command.further_streams(first)})


def place(amount: int = 10, **fields: Any) -> PlaceHold:
    return PlaceHold.model_validate({"id": HOLD, "account_id": ONE, "amount": amount, "currency": "EUR"} | fields)


def placed(amount: int = 10, hold_id: str = HOLD, **fields: Any) -> HoldPlaced:
    return HoldPlaced(hold_id=hold_id, from_account_id=ONE, amount=amount, currency="EUR", **fields)


def capture(amount: int | None = None, **fields: Any) -> CaptureHold:
    return CaptureHold(hold_id=HOLD, capture=HoldCapture.model_validate({"id": FREE, "amount": amount} | fields))


def captured(amount: int, balance: int, remaining: int = 0, **fields: Any) -> HoldCaptured:
    facts = {"transfer_id": FREE, "hold_id": HOLD, "from_account_id": ONE, "currency": "EUR"} | fields
    return HoldCaptured(amount=amount, from_balance=balance, remaining=remaining, **facts)


def ended(kind: Any, amount: int = 10) -> Any:
    return kind(hold_id=HOLD, from_account_id=ONE, amount=amount, currency="EUR")


RICH: list[Event] = [opened(), deposited(100)]
TWO_CLOSED, TWO_FROZEN = (kind(account_id=TWO, currency="EUR") for kind in (AccountClosed, AccountFrozen))
PART = captured(4, 96, 6, transfer_id=HOLD)
RELEASE, EXPIRE = ReleaseHold(hold_id=HOLD), ExpireHold(hold_id=HOLD)


@pytest.mark.parametrize(
    ("past", "command", "now", "events"),
    [
        pytest.param([*RICH, opened(TWO)], place(to_account_id=TWO), NOW, [placed(to_account_id=TWO)], id="a hold is placed"),
        pytest.param(RICH, place(100, expires_at=LATER), NOW, [placed(100, expires_at=LATER)], id="a hold of all that there is"),
        pytest.param([*RICH, placed()], capture(), NOW, [captured(10, 90)], id="a hold is captured to the outside world"),
        pytest.param(
            [*RICH, opened(TWO), placed(to_account_id=TWO)],
            capture(),
            NOW,
            [captured(10, 90, to_account_id=TWO, to_balance=10)],
            id="a hold is captured to its payee",
        ),
        pytest.param([*RICH, placed()], capture(4), NOW, [captured(4, 96, 6)], id="a part of a hold is captured"),
        pytest.param([*RICH, placed()], capture(4, final=True), NOW, [captured(4, 96, 0, released=6)], id="a last part"),
        pytest.param([*RICH, placed(), PART], capture(), NOW, [captured(6, 90)], id="what remains is captured"),
        pytest.param(
            [*RICH, opened(TWO), placed()],
            capture(to_account_id=TWO),
            NOW,
            [captured(10, 90, to_account_id=TWO, to_balance=10)],
            id="a capture names a payee",
        ),
        pytest.param([*RICH, placed(expires_at=END)], capture(), LATER, [captured(10, 90, expires_at=END)], id="just in time"),
        pytest.param([*RICH, placed(), FROZEN], RELEASE, NOW, [ended(HoldReleased)], id="a hold on a frozen account is released"),
        pytest.param([*RICH, placed(), PART], RELEASE, NOW, [ended(HoldReleased, 6)], id="what remains is released"),
        pytest.param([*RICH, placed(expires_at=END)], EXPIRE, END, [ended(HoldExpired)], id="an expiry is recorded"),
        pytest.param([*RICH, placed(expires_at=END)], EXPIRE, LATER, [], id="an expiry is not recorded before its time"),
        pytest.param([*RICH, placed(), ended(HoldReleased)], EXPIRE, END, [], id="a released hold does not expire"),
        pytest.param([*RICH, placed(expires_at=END), ended(HoldExpired)], EXPIRE, END, [], id="an expiry is recorded once"),
    ],
)
def test_a_command_leads_to_its_event(past: list[Event], command: Command, now: str, events: list[Event]) -> None:
    assert decided(command, *past, now=now) == events


@pytest.mark.parametrize(
    ("past", "command", "code"),
    [
        ([opened()], place(to_account_id=ONE), "same-account"),
        ([*RICH, placed()], place(), "id-taken"),
        ([], place(), "not-found"),
        (RICH, place(to_account_id=TWO), "not-found"),
        ([opened(), CLOSED], place(), "account-closed"),
        ([*RICH, opened(TWO), TWO_CLOSED], place(to_account_id=TWO), "account-closed"),
        ([*RICH, FROZEN], place(), "account-frozen"),
        ([*RICH, opened(DOLLARS, "USD")], place(to_account_id=DOLLARS), "currency-mismatch"),
        (RICH, place(expires_at=NOW), "hold-expiry-passed"),
        (RICH, place(101), "insufficient-funds"),
        ([*RICH, placed(95, PAID)], place(), "insufficient-funds"),
        ([*RICH, placed()], capture(id=PAID), "id-taken"),
        ([], capture(), "not-found"),
        ([*RICH, placed()], capture(to_account_id=TWO), "not-found"),
        ([*RICH, placed()], capture(to_account_id=ONE), "same-account"),
        (
            [*RICH, opened(TWO), TWO_CLOSED, placed()],
            capture(to_account_id=TWO),
            "account-closed",
        ),
        ([*RICH, placed(), FROZEN], capture(), "account-frozen"),
        (
            [*RICH, opened(TWO), placed(), TWO_FROZEN],
            capture(to_account_id=TWO),
            "account-frozen",
        ),
        ([*RICH, opened(DOLLARS, "USD"), placed()], capture(to_account_id=DOLLARS), "currency-mismatch"),
        ([*RICH, placed(), ended(HoldReleased)], capture(), "hold-not-active"),
        ([*RICH, placed(), captured(10, 90, transfer_id=HOLD)], capture(), "hold-not-active"),
        ([*RICH, placed(expires_at=NOW)], capture(), "hold-not-active"),
        ([*RICH, placed()], capture(11), "hold-amount-exceeded"),
        ([*RICH, opened(TWO), placed(), deposited(AMOUNT_MAX, TWO)], capture(to_account_id=TWO), "balance-out-of-range"),
        ([], RELEASE, "not-found"),
        ([*RICH, placed(), ended(HoldReleased)], RELEASE, "hold-not-active"),
        ([*RICH, placed(expires_at=NOW)], RELEASE, "hold-not-active"),
        ([], EXPIRE, "not-found"),
        ([*RICH, placed(10)], withdrawal(91), "insufficient-funds"),
        ([*RICH, opened(TWO), placed(10)], transfer(91), "insufficient-funds"),
        ([opened(overdraft_limit=20), placed(10)], limit_of(9), "insufficient-funds"),
        ([opened(overdraft_limit=20), placed(10)], CloseAccount(account_id=ONE), "account-not-empty"),
    ],
)
def test_a_rejection_has_its_code(past: list[Event], command: Command, code: str) -> None:
    with pytest.raises(errors.Rejection) as rejection:
        decided(command, *past)
    assert rejection.value.code == code


def test_an_account_has_a_bounded_number_of_holds() -> None:
    many = [placed(1, f"{number:08d}-0000-0000-0000-000000000000") for number in range(HOLDS_MAX)]
    with pytest.raises(TooManyHolds):
        decided(place(1), opened(overdraft_limit=AMOUNT_MAX), *many)
    assert decided(place(1), opened(overdraft_limit=AMOUNT_MAX), *many[1:])


@pytest.mark.parametrize("recorded", [False, True], ids=["not recorded", "recorded"])
def test_a_hold_ends_at_its_moment_whether_or_not_its_expiry_is_recorded(*, recorded: bool) -> None:
    """No decision counts it from then on: the money can be spent, held again, and the account can be closed."""
    past: list[Event] = [opened(overdraft_limit=100), placed(100, expires_at=END)]
    with pytest.raises(errors.InsufficientFunds) as rejection:
        decided(withdrawal(1), *past, now=LATER)
    assert rejection.value.extra["available"] == 0
    past += [ended(HoldExpired, 100)] if recorded else []
    assert decided(withdrawal(100), *past, now=END)
    assert decided(place(100, id=FREE), *past, now=END)
    assert decided(limit_of(0), *past, now=END)
    assert decided(CloseAccount(account_id=ONE), *past, now=END)


COMMANDS = st.tuples(
    st.sampled_from(["place", "capture", "final", "release", "expire", "deposit", "withdraw", "transfer", "limit"]),
    st.integers(1, 60),
    st.integers(0, 4),
    st.none() | st.integers(1, 20),
)


@given(st.integers(0, 100), st.lists(COMMANDS, max_size=40))
def test_money_that_is_held_is_there_when_it_is_captured(limit: int, steps: list[tuple[str, int, int, int | None]]) -> None:
    """After any commands at any moments, nothing that is available was negative, and the log is decided again as it is."""
    states, past = FoldedStates(), PastDecisions()
    position = 0

    def take(event: Event, now: str) -> None:
        nonlocal position
        position += 1
        states.take(event)
        past.decide_again(position, event, now)
        assert sum(posting.amount for posting in event.postings()) == 0
        for account_id in (ONE, TWO):
            account = at_moment(states[f"account-{account_id}"], now)
            assert account.available >= 0, event
            assert account.posted >= -account.overdraft_limit

    first_events: list[Event] = [created(), opened(overdraft_limit=limit), opened(TWO, overdraft_limit=limit)]
    for event in first_events:
        take(event, _moment(0))
    for second, (kind, amount, number, lifetime) in enumerate(steps):
        now, new = _moment(second), f"{second:08d}-0000-0000-0000-000000000000"
        hold_id = f"0000000{number}-0000-0000-0000-0000000000cc"
        command = _command(kind, amount, new, hold_id, None if lifetime is None else _moment(second + lifetime))
        first = {stream_id: at_moment(states[stream_id], now) for stream_id in command.streams()}
        try:
            events = command.decide(first | {each: at_moment(states[each], now) for each in command.further_streams(first)})
        except (errors.NotFound, errors.IdTaken, errors.InsufficientFunds, HoldNotActive, HoldAmountExceeded):
            continue
        for event in events:
            take(event, now)


def _moment(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000Z"


def _command(kind: str, amount: int, new: str, hold_id: str, expires_at: str | None) -> Command:
    match kind:
        case "place":
            return place(amount, id=hold_id, expires_at=expires_at, to_account_id=TWO if amount % 2 else None)
        case "capture" | "final":
            return CaptureHold(hold_id=hold_id, capture=HoldCapture(id=new, amount=amount, final=kind == "final"))
        case "release":
            return ReleaseHold(hold_id=hold_id)
        case "expire":
            return ExpireHold(hold_id=hold_id)
        case "deposit":
            return deposit(amount, id=new)
        case "withdraw":
            return withdrawal(amount, id=new)
        case "transfer":
            return transfer(amount, id=new)
        case _:
            return limit_of(amount)


def test_a_stored_snapshot_knows_no_moment() -> None:
    """It is the fold of the events alone, which `daybook verify` compares it with."""
    states = FoldedStates(*RICH, placed(expires_at=END))
    for stream_id in (f"account-{ONE}", f"hold-{HOLD}"):
        assert states[stream_id].now == ""
        assert msgspec.structs.replace(at_moment(states[stream_id], END), now="") == states[stream_id]
    assert FoldedStates(created())[f"account-{ADA}"].holds == {}
