"""The rules of reversals, without a server: money moves back to where it came from, once, and no more than was moved."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.domain.past_decisions import PastDecisions
from command_api.domain.reversal import REVERSALS_MAX, Reversal, ReverseTransfer
from shared import errors
from shared.log.account_events import AccountClosed
from shared.log.events import Event
from shared.log.hold_events import HoldPlaced
from shared.log.money_events import (
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    MoneyEvent,
    TransferReversed,
)
from shared.money import AMOUNT_MAX
from shared.reversal_errors import ReversalAmountExceeded, TooManyReversals, TransferAlreadyReversed, TransferNotReversible
from tests.command_api.test_deciders import (
    CLOSED,
    FREE,
    FROZEN,
    ONE,
    PAID,
    TWO,
    FoldedStates,
    created,
    deposit,
    deposited,
    opened,
    transfer,
    when,
    withdrawal,
)

BACK = "00000000-0000-0000-0000-0000000000f3"
MISSING = "00000000-0000-0000-0000-0000000000f4"
HOLD = "00000000-0000-0000-0000-0000000000c1"


def reverse(amount: int | None = None, transfer_id: str = PAID, **fields: Any) -> ReverseTransfer:
    return ReverseTransfer(transfer_id=transfer_id, reversal=Reversal.model_validate({"id": FREE, "amount": amount} | fields))


def moved_back(amount: int, remaining: int = 0, reversed: int | None = None, **fields: Any) -> TransferReversed:  # noqa: A002 # the name of the field
    facts = {"transfer_id": FREE, "reverses": PAID, "currency": "EUR", "from_account_id": ONE} | fields
    so_far = amount if reversed is None else reversed
    return TransferReversed(amount=amount, remaining=remaining, reversed=so_far, **facts)


RICH: list[Event] = [opened(), deposited(100)]
PAYMENT = FundsTransferred(
    transfer_id=BACK, from_account_id=ONE, to_account_id=TWO, amount=30, currency="EUR", from_balance=70, to_balance=30
)
TAKEN = FundsWithdrawn(transfer_id=BACK, account_id=ONE, amount=100, currency="EUR", balance=0)
PART = moved_back(40, 60, from_balance=60, transfer_id=BACK)
WHOLE = moved_back(100, from_balance=0, transfer_id=BACK)
CAPTURED: list[Event] = [
    HoldPlaced(hold_id=HOLD, from_account_id=ONE, amount=30, currency="EUR"),
    HoldCaptured(
        transfer_id=BACK,
        hold_id=HOLD,
        from_account_id=ONE,
        amount=10,
        currency="EUR",
        from_balance=90,
        remaining=20,
        to_balance=None,
    ),
]


@pytest.mark.parametrize(
    ("past", "command", "event"),
    [
        pytest.param(RICH, reverse(), moved_back(100, from_balance=0), id="a deposit"),
        pytest.param(RICH, reverse(100), moved_back(100, from_balance=0), id="a deposit, by its whole amount"),
        pytest.param(RICH, reverse(40, reference="r"), moved_back(40, 60, from_balance=60, reference="r"), id="a part"),
        pytest.param([*RICH, PART], reverse(), moved_back(60, reversed=100, from_balance=0), id="what is left"),
        pytest.param(
            [*RICH, TAKEN],
            reverse(transfer_id=BACK),
            moved_back(100, reverses=BACK, from_account_id=None, to_account_id=ONE, to_balance=100),
            id="a withdrawal",
        ),
        pytest.param(
            [*RICH, opened(TWO), PAYMENT],
            reverse(transfer_id=BACK),
            moved_back(30, reverses=BACK, from_account_id=TWO, from_balance=0, to_account_id=ONE, to_balance=100),
            id="a transfer",
        ),
        pytest.param(
            [*RICH, *CAPTURED],
            reverse(transfer_id=BACK),
            moved_back(10, reverses=BACK, from_account_id=None, to_account_id=ONE, to_balance=100),
            id="a capture, which leaves its hold as it is",
        ),
        pytest.param(
            [opened(overdraft_limit=70), deposited(100), TAKEN],
            reverse(70),
            moved_back(70, 30, from_balance=-70),
            id="money that is gone, as far as the overdraft limit allows",
        ),
    ],
)
def test_a_reversal_moves_money_back(past: list[Event], command: ReverseTransfer, event: Event) -> None:
    assert when(command, *past) == [event]


def parts(count: int) -> list[Event]:
    return [
        moved_back(1, 1_000 - n, reversed=n, from_balance=1_000 - n, transfer_id=f"00000000-0000-0000-0000-{n:012d}")
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("past", "command", "error"),
    [
        pytest.param([*RICH, CLOSED], reverse(id=PAID, transfer_id=MISSING), errors.IdTaken, id="the id is another transfer's"),
        pytest.param(RICH, reverse(id=PAID), errors.IdTaken, id="the id is that of the transfer"),
        pytest.param(RICH, reverse(transfer_id=MISSING), errors.NotFound, id="no transfer"),
        pytest.param([*RICH, PART, FROZEN], reverse(transfer_id=BACK), TransferNotReversible, id="a reversal"),
        pytest.param([*RICH, WHOLE, CLOSED], reverse(), errors.AccountIsClosed, id="a closed account comes first"),
        pytest.param([*RICH, WHOLE, FROZEN], reverse(), errors.AccountIsFrozen, id="a frozen account comes next"),
        pytest.param(
            [*RICH, opened(TWO), PAYMENT, AccountClosed(account_id=TWO, currency="EUR")],
            reverse(transfer_id=BACK),
            errors.AccountIsClosed,
            id="the account that would give back is closed",
        ),
        pytest.param([*RICH, WHOLE], reverse(), TransferAlreadyReversed, id="it was reversed"),
        pytest.param([*RICH, WHOLE], reverse(1), TransferAlreadyReversed, id="it was reversed, and money is missing too"),
        pytest.param([opened(), deposited(1_000), *parts(REVERSALS_MAX)], reverse(2_000), TooManyReversals, id="many parts"),
        pytest.param([*RICH, PART], reverse(61), ReversalAmountExceeded, id="more than is left, and than is there"),
        pytest.param([*RICH, TAKEN], reverse(1), errors.InsufficientFunds, id="the money is gone"),
        pytest.param([*RICH, CAPTURED[0]], reverse(71), errors.InsufficientFunds, id="the money is held"),
        pytest.param(RICH, reverse(101), ReversalAmountExceeded, id="more than was moved"),
    ],
)
def test_a_reversal_is_refused(past: list[Event], command: ReverseTransfer, error: type[errors.Rejection]) -> None:
    with pytest.raises(error):
        when(command, *past)


def test_a_balance_that_would_become_too_large_refuses_a_reversal() -> None:
    large = FundsWithdrawn(transfer_id=BACK, account_id=ONE, amount=AMOUNT_MAX, currency="EUR", balance=0)
    past: list[Event] = [opened(), deposited(AMOUNT_MAX), large, deposited(1)]
    with pytest.raises(errors.BalanceOutOfRange):
        when(reverse(transfer_id=BACK), *past)


def test_the_last_of_many_parts_is_still_possible() -> None:
    [event] = when(reverse(), opened(), deposited(1_000), *parts(REVERSALS_MAX - 1))
    assert isinstance(event, TransferReversed)
    assert event.remaining == 0


KINDS = st.sampled_from(["deposit", "withdraw", "transfer", "reverse"])


@given(limit=st.integers(0, 50), steps=st.lists(st.tuples(KINDS, st.integers(1, 100), st.integers(0, 30)), max_size=30))
def test_reversing_everything_brings_all_balances_back(limit: int, steps: list[tuple[str, int, int]]) -> None:
    """In any order of any commands. At every position all balances, the outside world included, sum to zero."""
    states, past, done = FoldedStates(), PastDecisions(), list[MoneyEvent]()
    position = 0

    def take(*events: Event) -> None:
        nonlocal position
        for event in events:
            position += 1
            past.decide_again(position, event, "2026-01-01T00:00:00.000000Z")
            states.take(event)
            if isinstance(event, MoneyEvent):
                past.recall(position, event)
                done.append(event)
                balances(states, done)
        assert all(states[f"account-{each}"].available >= 0 for each in (ONE, TWO))

    def attempt(command: Any) -> bool:
        try:
            take(*when_folded(command, states))
        except errors.Rejection:
            return False
        return True

    take(created(), opened(overdraft_limit=limit), opened(TWO, overdraft_limit=limit))
    for number, (kind, amount, place) in enumerate(steps):
        new = f"{number:08d}-0000-0000-0000-000000000000"
        if kind == "reverse":
            if done:
                attempt(reverse(amount, transfer_id=done[place % len(done)].transfer_id, id=new))
        else:
            attempt({"deposit": deposit, "withdraw": withdrawal, "transfer": transfer}[kind](amount, id=new))
    # First what brings money, so that there is enough for what takes it.
    order: tuple[type[MoneyEvent], ...] = (FundsWithdrawn, FundsTransferred, FundsDeposited)
    moved = [event for kind in order for event in done if isinstance(event, kind)]
    for number, event in enumerate(moved):
        left = states[f"transfer-{event.transfer_id}"].remaining
        new = f"{number:08d}-0000-0000-0000-00000000000b"
        assert attempt(reverse(transfer_id=event.transfer_id, id=new)) == (left > 0), event
    assert balances(states, done) == {ONE: 0, TWO: 0, None: 0}


def when_folded(command: Any, states: FoldedStates) -> list[Event]:
    needed = {*command.streams(), *command.further_streams(states)}
    events: list[Event] = command.decide({stream_id: states[stream_id] for stream_id in needed})
    return events


def balances(states: FoldedStates, done: list[MoneyEvent]) -> dict[str | None, int]:
    """Adds up the postings, and checks them against the states and each other. Returns the balances."""
    found: dict[str | None, int] = {ONE: 0, TWO: 0, None: 0}
    for event in done:
        for posting in event.postings():
            found[posting.account_id] += posting.amount
    assert sum(found.values()) == 0
    assert all(found[each] == states[f"account-{each}"].posted for each in (ONE, TWO))
    return found
