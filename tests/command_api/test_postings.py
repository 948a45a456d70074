"""Transfers with postings, without a server: many accounts, several currencies, one event, all or nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from command_api.domain.past_decisions import PastDecisions
from command_api.domain.postings import POSTINGS_MAX, MoveFunds
from shared import errors
from shared.log.account_events import AccountClosed, AccountFrozen
from shared.log.events import Event
from shared.log.hold_events import HoldPlaced
from shared.log.money_events import FundsMoved, Leg
from shared.money import AMOUNT_MAX
from shared.reversal_errors import TransferNotReversible
from tests.command_api.test_deciders import (
    DOLLARS,
    FREE,
    ONE,
    PAID,
    TWO,
    FoldedStates,
    created,
    deposit,
    deposited,
    opened,
    when,
)
from tests.command_api.test_reversals import reverse, when_folded

HOLD = "00000000-0000-0000-0000-0000000000c1"
MISSING = "00000000-0000-0000-0000-0000000000f4"


def move(*postings: tuple[str | None, int] | tuple[str | None, int, str], **fields: Any) -> MoveFunds:
    named = [{"account_id": each[0], "amount": each[1], "currency": (*each, "EUR")[2]} for each in postings]
    return MoveFunds.model_validate({"id": FREE, "postings": named} | fields)


def leg(account_id: str | None, amount: int, balance: int | None = None, currency: str = "EUR") -> Leg:
    return Leg(account_id, currency, amount, balance)


RICH: list[Event] = [opened(), deposited(100), opened(TWO), opened(DOLLARS, "USD")]
PAIR = move((ONE, -10), (TWO, 10))


@pytest.mark.parametrize(
    ("command", "legs"),
    [
        pytest.param(PAIR, [leg(ONE, -10, 90), leg(TWO, 10, 10)], id="two accounts"),
        pytest.param(
            move((TWO, 60), (ONE, -100), (None, 40)), [leg(TWO, 60, 60), leg(ONE, -100, 0), leg(None, 40)], id="and the outside"
        ),
        pytest.param(
            move((ONE, -9), (None, 9), (None, -10, "USD"), (DOLLARS, 10, "USD")),
            [leg(ONE, -9, 91), leg(None, 9), leg(None, -10, None, "USD"), leg(DOLLARS, 10, 10, "USD")],
            id="two currencies",
        ),
    ],
)
def test_all_postings_are_one_event(command: MoveFunds, legs: list[Leg]) -> None:
    assert when(command, *RICH) == [FundsMoved(transfer_id=FREE, legs=tuple(legs))]


FROZEN_TWO, CLOSED_TWO = (kind(account_id=TWO, currency="EUR") for kind in (AccountFrozen, AccountClosed))


@pytest.mark.parametrize(
    ("past", "command", "error"),
    [
        pytest.param([], move((ONE, -5), (ONE, 6)), errors.SameAccount, id="an account twice, and no balance"),
        pytest.param([], move((ONE, -5), (None, 2), (None, 3)), errors.SameAccount, id="the outside world twice"),
        pytest.param([], move((ONE, -5), (TWO, 6), id=PAID), errors.PostingsUnbalanced, id="no balance comes before all else"),
        pytest.param(
            RICH, move((ONE, -5), (DOLLARS, 5, "USD")), errors.PostingsUnbalanced, id="currencies that balance only together"
        ),
        pytest.param(RICH, move((ONE, -5), (MISSING, 5), id=PAID), errors.IdTaken, id="the id is another transfer's"),
        pytest.param([*RICH, CLOSED_TWO], move((TWO, -5), (MISSING, 5)), errors.NotFound, id="no account"),
        pytest.param([*RICH, CLOSED_TWO], PAIR, errors.AccountIsClosed, id="a closed account"),
        pytest.param([*RICH, FROZEN_TWO], move((ONE, -500), (TWO, 500)), errors.AccountIsFrozen, id="a frozen account"),
        pytest.param(RICH, move((ONE, -500), (DOLLARS, 500)), errors.CurrencyMismatch, id="another currency"),
        pytest.param(RICH, move((ONE, -101), (TWO, 101)), errors.InsufficientFunds, id="too little money"),
        pytest.param(
            [*RICH, HoldPlaced(hold_id=HOLD, from_account_id=ONE, amount=91, currency="EUR")],
            PAIR,
            errors.InsufficientFunds,
            id="money that is held",
        ),
        pytest.param(
            [*RICH, deposited(AMOUNT_MAX, TWO)], move((ONE, -1), (TWO, 1)), errors.BalanceOutOfRange, id="a balance too large"
        ),
    ],
)
def test_all_postings_are_refused_together(past: list[Event], command: MoveFunds, error: type[errors.Rejection]) -> None:
    with pytest.raises(error):
        when(command, *past)


@pytest.mark.parametrize("count", [0, 1, POSTINGS_MAX + 1])
def test_a_transfer_has_2_to_100_postings(count: int) -> None:
    with pytest.raises(ValidationError):
        move(*[(ONE, 1)] * count)


def test_a_transfer_with_postings_cannot_be_reversed() -> None:
    with pytest.raises(TransferNotReversible):
        when(reverse(transfer_id=FREE, id=MISSING), *RICH, *when(PAIR, *RICH))


AMOUNTS = st.lists(st.integers(-60, 60).filter(bool), min_size=1, max_size=3)


@given(steps=st.lists(AMOUNTS, max_size=15), limit=st.integers(0, 30))
def test_no_postings_make_or_lose_money_and_no_account_goes_below_its_limit(steps: list[list[int]], limit: int) -> None:
    """The outside world takes or gives what is left in each currency."""
    states, past = FoldedStates(), PastDecisions()
    accounts = [(ONE, "EUR"), (TWO, "EUR"), (DOLLARS, "USD")]
    position, sums = 0, {"EUR": 0, "USD": 0}

    def take(*events: Event) -> None:
        nonlocal position
        for event in events:
            position += 1
            past.decide_again(position, event, "2026-01-01T00:00:00.000000Z")
            states.take(event)
            for posting in event.postings():
                sums[posting.currency] += posting.amount
        assert sums == {"EUR": 0, "USD": 0}
        assert all(states[f"account-{account_id}"].available >= 0 for account_id, _ in accounts)

    take(created(), *(opened(account_id, currency, overdraft_limit=limit) for account_id, currency in accounts))
    take(*when_folded(deposit(50, id=HOLD), states))
    for number, amounts in enumerate(steps):
        wanted: list[tuple[str | None, int, str]] = [
            (account_id, amount, currency) for (account_id, currency), amount in zip(accounts, amounts, strict=False)
        ]
        for each in ("EUR", "USD"):
            if rest := -sum(amount for _, amount, currency in wanted if currency == each):
                wanted.append((None, rest, each))
        before = {account_id: states[f"account-{account_id}"].posted for account_id, _ in accounts}
        try:
            take(*when_folded(move(*wanted, id=f"{number:08d}-0000-0000-0000-000000000000"), states))
        except (errors.InsufficientFunds, ValidationError):
            assert before == {account_id: states[f"account-{account_id}"].posted for account_id, _ in accounts}
