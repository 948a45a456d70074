"""The rules of exchanges, without a server: the rounding, and that in each currency nothing is made and nothing is lost."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from command_api.domain.exchange import ExchangeFunds
from command_api.domain.exchange_rates import decimal_text, exchanged
from command_api.domain.past_decisions import PastDecisions
from shared import errors
from shared.log.account_events import AccountClosed, AccountFrozen
from shared.log.events import Event
from shared.log.money_events import FundsDeposited, FundsExchanged, Leg
from shared.money import AMOUNT_MAX, exponent
from shared.reversal_errors import TransferNotReversible
from tests.command_api.test_deciders import FREE, ONE, PAID, TWO, FoldedStates, created, deposit, deposited, opened, when
from tests.command_api.test_postings import MISSING
from tests.command_api.test_reversals import reverse, when_folded

HOUSE_EUR = "00000000-0000-0000-0000-0000000000e8"
HOUSE_USD = "00000000-0000-0000-0000-0000000000d8"
PAYEE = "00000000-0000-0000-0000-0000000000d1"
REMAINDERS = "00000000-0000-0000-0000-0000000000d9"
PARTIES = (ONE, HOUSE_EUR, HOUSE_USD, PAYEE, REMAINDERS)
NOW = "2026-01-01T00:00:00.000000Z"


def exchange(from_amount: int = 10, rate: str = "1.05", **fields: Any) -> ExchangeFunds:
    ends = {"from_account_id": ONE, "to_account_id": PAYEE, "house_from_account_id": HOUSE_EUR, "house_to_account_id": HOUSE_USD}
    terms = {"from_currency": "EUR", "to_currency": "USD", "rate": rate, "from_amount": from_amount}
    return ExchangeFunds.model_validate({"id": FREE, **ends, "remainder_account_id": REMAINDERS, **terms} | fields)


def in_dollars(balance: int, account_id: str = HOUSE_USD) -> FundsDeposited:
    return FundsDeposited(transfer_id=PAID, account_id=account_id, amount=balance, currency="USD", balance=balance)


ACCOUNTS: list[Event] = [
    opened(),
    opened(HOUSE_EUR),
    *(opened(each, "USD") for each in (HOUSE_USD, PAYEE)),
    opened(REMAINDERS, "USD", overdraft_limit=5),
]
RICH: list[Event] = [*ACCOUNTS, deposited(100), in_dollars(1_000)]


def test_an_exchange_is_one_event_with_its_rate_and_its_remainder() -> None:
    legs = (
        Leg(ONE, "EUR", -10, 90),
        Leg(HOUSE_EUR, "EUR", 10, 10),
        Leg(HOUSE_USD, "USD", -10, 990),
        Leg(PAYEE, "USD", 10, 10),
    )
    expected = FundsExchanged(
        transfer_id=FREE,
        legs=legs,
        rate="1.05",
        remainder_account_id=REMAINDERS,
        remainder="0.5",  # of 10.5, which is rounded to the even 10
        carried="0.5",
        reference="trip",
    )
    assert when(exchange(reference="trip"), *RICH) == [expected]
    assert expected.streams() == (f"transfer-{FREE}", *(f"account-{each}" for each in PARTIES))


def test_remainders_are_carried_until_they_make_a_whole_minor_unit() -> None:
    """Three times 10.5: the payee gets 10 each time, and and the remainder account gets 1 the second time."""
    states = FoldedStates(*RICH)
    told = []
    for number in range(3):
        [event] = when_folded(exchange(id=f"{number:08d}-0000-0000-0000-000000000000"), states)
        assert isinstance(event, FundsExchanged)
        states.take(event)
        told.append((event.carried, [(leg.account_id, leg.amount) for leg in event.legs[2:]]))
    without, with_one = [(HOUSE_USD, -10), (PAYEE, 10)], [(HOUSE_USD, -11), (PAYEE, 10), (REMAINDERS, 1)]
    assert told == [("0.5", without), ("0", with_one), ("0.5", without)]


def test_the_remainder_account_gives_what_rounding_gave() -> None:
    states = FoldedStates(*RICH)
    for number in range(2):
        [event] = when_folded(exchange(rate="1.15", id=f"{number:08d}-0000-0000-0000-000000000000"), states)
        states.take(event)
    assert isinstance(event, FundsExchanged)
    assert (event.remainder, event.carried) == ("-0.5", "0")
    assert [(leg.account_id, leg.amount) for leg in event.legs[2:]] == [(HOUSE_USD, -11), (PAYEE, 12), (REMAINDERS, -1)]
    poor = [each for each in RICH if each != ACCOUNTS[-1]] + [opened(REMAINDERS, "USD")]
    once = FoldedStates(*poor)
    once.take(*when_folded(exchange(rate="1.15", id=MISSING), once))
    with pytest.raises(errors.InsufficientFunds) as raised:
        when_folded(exchange(rate="1.15"), once)
    assert raised.value.extra["account_id"] == REMAINDERS


def frozen(account_id: str, currency: str) -> AccountFrozen:
    return AccountFrozen(account_id=account_id, currency=currency)


@pytest.mark.parametrize(
    ("past", "command", "error"),
    [
        pytest.param([], exchange(to_account_id=HOUSE_USD, id=PAID), errors.SameAccount, id="an account twice"),
        pytest.param([], exchange(remainder_account_id=HOUSE_USD), errors.SameAccount, id="remainders of the house's account"),
        pytest.param(RICH, exchange(to_account_id=MISSING, id=PAID), errors.IdTaken, id="the id is another transfer's"),
        pytest.param(
            [*RICH, AccountClosed(account_id=ONE, currency="EUR")],
            exchange(remainder_account_id=MISSING),
            errors.NotFound,
            id="no account",
        ),
        pytest.param(
            [*RICH, frozen(ONE, "EUR"), AccountClosed(account_id=PAYEE, currency="USD")],
            exchange(),
            errors.AccountIsClosed,
            id="a closed account",
        ),
        pytest.param(
            [*RICH, frozen(REMAINDERS, "USD")],
            exchange(100, rate="1", house_from_account_id=HOUSE_USD, house_to_account_id=HOUSE_EUR),
            errors.AccountIsFrozen,
            id="a frozen remainder account, also without a remainder",
        ),
        pytest.param(
            RICH,
            exchange(500, house_from_account_id=HOUSE_USD, house_to_account_id=HOUSE_EUR),
            errors.CurrencyMismatch,
            id="houses in the wrong currencies",
        ),
        pytest.param(RICH, exchange(101), errors.InsufficientFunds, id="a payer with too little money"),
        pytest.param(RICH, exchange(100, rate="10.01"), errors.InsufficientFunds, id="a house with too little money"),
        pytest.param(
            [*RICH, in_dollars(AMOUNT_MAX, PAYEE)], exchange(), errors.BalanceOutOfRange, id="a balance that is too large"
        ),
    ],
)
def test_an_exchange_is_refused_as_a_whole(past: list[Event], command: ExchangeFunds, error: type[errors.Rejection]) -> None:
    with pytest.raises(error):
        when(command, *past)


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": "0"},
        {"rate": "0.000"},
        {"rate": "-1"},
        {"rate": "+1"},
        {"rate": "1e2"},
        {"rate": "01"},
        {"rate": "1."},
        {"rate": ".5"},
        {"rate": "1,5"},
        {"rate": "NaN"},
        {"rate": "1\n"},
        {"rate": "1_0"},
        {"rate": "١"},
        {"rate": 1},
        {"rate": 1.5},
        {"rate": "1" * 13},
        {"rate": "0." + "1" * 13},
        {"to_currency": "EUR"},
        {"from_amount": 1, "rate": "0.5"},  # 0 after rounding
        {"from_amount": AMOUNT_MAX, "rate": "2"},
        {"from_amount": 0},
    ],
)
def test_a_rate_is_a_short_positive_decimal_text_and_gives_an_amount(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        exchange(**fields)


def test_an_exchange_cannot_be_reversed() -> None:
    with pytest.raises(TransferNotReversible):
        when(reverse(transfer_id=FREE, id=MISSING), *RICH, *when(exchange(), *RICH))


CURRENCIES = st.sampled_from(("EUR", "JPY", "KWD", "CLF"))
RATES = st.decimals(min_value=Decimal("1e-12"), max_value=Decimal(10**12 - 1), places=12).map(lambda rate: f"{rate:f}")


@given(amount=st.integers(1, AMOUNT_MAX), rate=RATES, source=CURRENCIES, target=CURRENCIES)
def test_the_rounding_is_half_to_even_and_the_remainder_is_exact_for_any_rate(
    amount: int, rate: str, source: str, target: str
) -> None:
    """Against the arithmetic of `decimal`, which is another implementation."""
    worth = exchanged(amount, source, target, rate)
    with localcontext(prec=80):
        expected = (Decimal(amount) * Decimal(rate)).scaleb(exponent(target) - exponent(source))
        assert round(worth) == int(expected.quantize(Decimal(1), ROUND_HALF_EVEN))
        remainder = decimal_text(worth - round(worth))
        assert Decimal(remainder) == expected - round(worth)
    assert abs(Fraction(remainder)) <= Fraction(1, 2)


@pytest.mark.parametrize(("amount", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (9, 4)])
def test_a_half_is_rounded_to_the_even_neighbour(amount: int, expected: int) -> None:
    assert round(exchanged(amount, "EUR", "USD", "0.5")) == expected


STEPS = st.tuples(
    st.integers(1, 40),
    st.sampled_from(("0.5", "0.75", "1.25", "0.333333333333", "3.999999999999", "1")),
    st.booleans(),
)


@given(steps=st.lists(STEPS, max_size=25), limit=st.integers(0, 2))
def test_no_exchange_makes_or_loses_money_not_even_a_fraction_of_a_minor_unit(
    steps: list[tuple[int, str, bool]], limit: int
) -> None:
    """In both directions. What the remainder account has and carries is exactly what all roundings took."""
    states, past = FoldedStates(), PastDecisions()
    position, sums = 0, {"EUR": 0, "USD": 0}
    owed = Fraction(0)

    def take(*events: Event) -> None:
        nonlocal position, owed
        for event in events:
            position += 1
            past.decide_again(position, event, NOW)
            states.take(event)
            for posting in event.postings():
                sums[posting.currency] += posting.amount
                assert states[f"account-{posting.account_id}"].posted == posting.balance or posting.account_id is None
        assert sums == {"EUR": 0, "USD": 0}

    take(created(), *(opened(each, "EUR", 50) for each in (ONE, TWO, HOUSE_EUR)))
    take(*(opened(each, "USD", limit if each == REMAINDERS else 100) for each in (HOUSE_USD, PAYEE, REMAINDERS)))
    take(*when_folded(deposit(200, id=PAID), states))
    for number, (amount, rate, back) in enumerate(steps):
        names = ("from_account_id", "house_from_account_id", "house_to_account_id", "to_account_id", "remainder_account_id")
        ends = (PAYEE, HOUSE_USD, HOUSE_EUR, ONE, TWO) if back else PARTIES
        currencies = ("USD", "EUR") if back else ("EUR", "USD")
        fields = dict(zip(names, ends, strict=True)) | dict(zip(("from_currency", "to_currency"), currencies, strict=True))
        try:
            command = exchange(amount, rate, id=f"{number:08d}-0000-0000-0000-000000000000", **fields)
            take(*(events := when_folded(command, states)))
        except (errors.InsufficientFunds, ValidationError):
            continue
        assert isinstance(events[0], FundsExchanged)
        if not back:
            owed += amount * Fraction(rate) - events[0].to_amount
        state = states[f"account-{REMAINDERS}"]
        assert (state.posted + Fraction(state.carried or 0), abs(Fraction(state.carried or 0)) < 1) == (owed, True)
