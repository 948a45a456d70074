"""The details of the rules, without a server: what a rejection says besides its code, and what a decision copies or names.

Most of these were found with `make mutants`: no other test failed without them.
"""

from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from command_api.domain.account import ACCOUNT_FOLD, AccountState, CloseAccount, OpenAccount, digest_of
from command_api.domain.account_limits import NewLimits
from command_api.domain.command import Command
from command_api.domain.command_batch import CommandBatch
from command_api.domain.day import CloseDay
from command_api.domain.exchange import ExchangeFunds
from command_api.domain.hold import CaptureHold, HoldCapture, PlaceHold, ReleaseHold
from command_api.domain.past_decisions import PastDecisions
from command_api.domain.postings import MoveFunds
from command_api.domain.reversal import Reversal, ReverseTransfer
from command_api.domain.schedule import ChangeSchedule, RuleDate, RunSchedule
from command_api.domain.spending import SpendingLimits, spend
from command_api.domain.stream_folds import evolve_states, owner_of
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.domain.user import UserChanges
from shared.errors import EventImpossible, Rejection
from shared.log.account_events import AccountLimitsChanged, AccountOpened, AccountUnfrozen
from shared.log.day_events import DayClosed
from shared.log.event_struct import Spent
from shared.log.events import Event
from shared.log.hold_events import HoldExpired, HoldReleased
from shared.log.ledger_events import LedgerCreated
from shared.log.money_events import FundsDeposited, FundsMoved, FundsTransferred, FundsWithdrawn, Leg, TransferReversed
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged
from shared.log.streams import account_stream, email_stream, hold_stream, schedule_stream, transfer_stream
from shared.log.user_events import UserChanged, UserDeactivated, UserErased
from shared.privacy.encryption import ERASED
from shared.schedule_rules import FIRST_DATE, LAST_DATE, PlannedRun
from tests.command_api import test_exchanges as exchanges
from tests.command_api import test_schedules as schedules
from tests.command_api.test_deciders import (
    ADA,
    CLOSED,
    DOLLARS,
    ERASE,
    FREE,
    FROZEN,
    ONE,
    PAID,
    RENAME,
    TWO,
    FoldedStates,
    created,
    deposit,
    deposited,
    described,
    hash_email,
    limit_of,
    opened,
    readdress,
    transfer,
    when,
    withdrawal,
)
from tests.command_api.test_holds import (
    END,
    EXPIRE,
    HOLD,
    LATER,
    NOW,
    RELEASE,
    RICH,
    capture,
    captured,
    decided,
    ended,
    place,
    placed,
)

THREE, FOUR, OTHER_TRANSFER = (f"00000000-0000-0000-0000-00000000000{number}" for number in (6, 7, 8))
EXCHANGE = {
    "id": FREE,
    "from_account_id": ONE,
    "to_account_id": TWO,
    "house_from_account_id": THREE,
    "house_to_account_id": FOUR,
    "remainder_account_id": DOLLARS,
    "from_currency": "EUR",
    "to_currency": "USD",
    "rate": "1.1",
    "from_amount": 10,
}
LEGS: list[dict[str, Any]] = [
    {"account_id": ONE, "amount": -5, "currency": "EUR"},
    {"account_id": TWO, "amount": 5, "currency": "EUR"},
]


# ── rejections ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("past", "command", "code", "extra"),
    [
        ([], deposit(), "not-found", {"account_id": ONE}),
        ([opened(), CLOSED], deposit(), "account-closed", {"account_id": ONE}),
        ([opened(), FROZEN], deposit(), "account-frozen", {"account_id": ONE}),
        ([opened(ONE, "USD")], deposit(), "currency-mismatch", {"account_id": ONE, "account_currency": "USD"}),
        ([opened(), deposited(4)], withdrawal(5), "insufficient-funds", {"account_id": ONE, "available": 4, "required": 5}),
        ([opened(), deposited(2**53 - 1)], deposit(1), "balance-out-of-range", {"account_id": ONE}),
        (
            [opened(overdraft_limit=7), deposited(-3)],
            limit_of(2),
            "insufficient-funds",
            {"account_id": ONE, "available": 4, "required": 5},
        ),
        (
            [opened(), deposited(4)],
            CloseAccount(account_id=ONE),
            "account-not-empty",
            {"account_id": ONE, "posted": 4, "held": 0},
        ),
        ([], OpenAccount(id=ONE, owner_id=ADA, currency="EUR"), "not-found", {"user_id": ADA}),
        (
            [created(), UserDeactivated(user_id=ADA)],
            OpenAccount(id=ONE, owner_id=ADA, currency="EUR"),
            "user-inactive",
            {"user_id": ADA},
        ),
        (
            [created(), UserErased(user_id=ADA, email_hash=hash_email("ada@example.com"), status_before="active")],
            OpenAccount(id=ONE, owner_id=ADA, currency="EUR"),
            "user-erased",
            {"user_id": ADA},
        ),
        ([opened()], transfer(), "not-found", {"account_id": TWO}),
        ([opened(), opened(TWO), deposited(9)], transfer(), "insufficient-funds", {"available": 9, "required": 10}),
    ],
)
def test_a_rejection_says_what_is_wrong(past: list[Event], command: Command, code: str, extra: dict[str, Any]) -> None:
    with pytest.raises(Rejection) as rejected:
        when(command, *past)
    assert (rejected.value.code, rejected.value.extra | extra) == (code, rejected.value.extra)
    if code == "not-found":
        assert rejected.value.detail in {"There is no such account.", "There is no such owner."}


@pytest.mark.parametrize(
    ("past", "command", "now", "extra"),
    [
        (RICH, RELEASE, NOW, {"hold_id": HOLD}),
        ([*RICH, placed(), captured(10, 90)], RELEASE, NOW, {"hold_status": "captured"}),
        ([*RICH, placed(), ended(HoldReleased)], RELEASE, NOW, {"hold_status": "released"}),
        ([*RICH, placed(expires_at=LATER)], RELEASE, LATER, {"hold_status": "expired"}),
        ([*RICH, placed()], capture(11), NOW, {"remaining": 10, "required": 11}),
        (RICH, place(expires_at=NOW), NOW, {"now": NOW}),
        ([*RICH, placed(40)], CloseAccount(account_id=ONE), NOW, {"posted": 100, "held": 40}),
        ([*RICH, placed(40)], withdrawal(61), NOW, {"available": 60, "required": 61}),
    ],
)
def test_a_rejection_about_a_hold_says_what_is_wrong(
    past: list[Event], command: Command, now: str, extra: dict[str, Any]
) -> None:
    with pytest.raises(Rejection) as rejected:
        decided(command, *past, now=now)
    assert rejected.value.extra | extra == rejected.value.extra


@pytest.mark.parametrize(
    ("past", "command", "now", "extra"),
    [
        ([], schedules.change(at=schedules.day(9)), schedules.NOW, {"schedule_id": schedules.ID}),
        (schedules.ENDED, schedules.change(at=schedules.day(9)), schedules.NOW, {"schedule_status": "cancelled"}),
        (schedules.RICH, schedules.change(at=schedules.day(9)), schedules.day(3), {"due_at": schedules.day(2)}),
        (schedules.TWO_OPEN, schedules.create(at=schedules.day(1)), schedules.NOW, {"now": schedules.NOW}),
    ],
)
def test_a_rejection_about_a_schedule_says_what_is_wrong(
    past: list[Event], command: Command, now: str, extra: dict[str, Any]
) -> None:
    with pytest.raises(Rejection) as rejected:
        schedules.decided(command, *past, now=now)
    assert rejected.value.extra | extra == rejected.value.extra


def test_a_hold_that_does_not_exist_is_named() -> None:
    with pytest.raises(Rejection, match=r"^There is no such hold\.$"):
        decided(RELEASE, *RICH)
    with pytest.raises(Rejection, match=r"^There is no such schedule\.$"):
        schedules.decided(schedules.change(at=schedules.day(9)))
    with pytest.raises(Rejection, match=r"^There is no such transfer\.$"):
        when(ReverseTransfer(transfer_id=TWO, reversal=Reversal(id=FREE)), *RICH)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_account_changes_when_a_hold_of_it_expires() -> None:
    state = FoldedStates(*RICH, placed(10, expires_at=LATER), placed(20, PAID, expires_at=END), placed(5, FREE))[
        account_stream(ONE)
    ]
    moments = [*msgspec.structs.replace(state, now=NOW).until_all_expire()]
    assert [(each.now, each.available) for each in moments] == [(NOW, 65), (LATER, 75), (END, 95)]


def test_what_no_limit_counts_is_not_kept() -> None:
    noon = "2026-02-28T12:00:00.000000Z"
    assert spend(SpendingLimits(per_month=50), Spent("2026-02-28", 0, 7), 5, noon) == Spent("2026-02-28", 0, 12)
    assert spend(SpendingLimits(per_day=50), Spent("2026-02-28", 7, 0), 5, noon) == Spent("2026-02-28", 12, 0)
    assert spend(SpendingLimits(per_transfer_max=50), None, 50, noon) is None


def test_the_accounts_of_an_exchange_must_differ() -> None:
    with pytest.raises(Rejection, match=r"^The five accounts of an exchange must be different\.$"):
        when(ExchangeFunds.model_validate(EXCHANGE | {"to_account_id": ONE}))


def test_the_expiry_of_a_hold_that_was_captured_in_part_records_the_rest() -> None:
    part = captured(4, 96, 6, transfer_id=HOLD, expires_at=END)
    expired = HoldExpired(hold_id=HOLD, from_account_id=ONE, amount=6, currency="EUR")
    assert decided(EXPIRE, *RICH, placed(expires_at=END), part, now=END) == [expired]


def test_what_remains_of_a_hold_after_a_capture_cannot_be_spent() -> None:
    past = [*RICH, placed(), captured(4, 96, 6, transfer_id=HOLD)]
    [taken] = decided(withdrawal(90), *past)
    assert isinstance(taken, FundsWithdrawn)
    assert taken.balance == 6
    with pytest.raises(Rejection) as rejected:
        decided(withdrawal(91), *past)
    assert rejected.value.extra["available"] == 90


def test_a_hold_has_the_reference_and_the_metadata_of_its_request() -> None:
    assert decided(place(reference="rent", metadata={"flat": "7"}), *RICH) == [placed(reference="rent", metadata={"flat": "7"})]


def test_a_new_address_depends_on_the_old_one_which_becomes_free() -> None:
    states = FoldedStates(created())
    assert readdress("ada@example.org").further_streams(states) == (email_stream(hash_email("ada@example.com")),)
    assert RENAME.further_streams(states) == ()
    assert readdress("ada@example.org").further_streams(FoldedStates()) == ()


def test_every_movement_records_what_its_request_says_of_it() -> None:
    said: dict[str, Any] = {"occurred_at": "2026-01-01T00:00:00.000000Z", "reference": "rent", "metadata": {"flat": "7"}}
    accounts: list[Event] = [opened(), opened(TWO), deposited(100)]
    commands: list[tuple[Command, list[Event]]] = [
        (deposit(**said), accounts),
        (withdrawal(**said), accounts),
        (transfer(**said), accounts),
        (capture(**said), [*accounts, placed()]),
        (MoveFunds.model_validate({"id": FREE, "postings": LEGS} | said), accounts),
        (exchanges.exchange(**said), exchanges.RICH),
        (ReverseTransfer(transfer_id=PAID, reversal=Reversal(id=FREE, **said)), accounts),
    ]
    for command, past in commands:
        [made] = decided(command, *past)
        assert {name: getattr(made, name) for name in said} == said, type(command)


def test_a_payment_in_leaves_what_was_spent_as_it_is() -> None:
    spent = Spent("2026-01-01", 7, 9)
    state = AccountState(ONE, ADA, "EUR", "open", posted=10, spent=spent)
    paid_in = FundsMoved(FREE, (Leg(ONE, "EUR", 5, 15), Leg(None, "EUR", -5, None)))
    after = ACCOUNT_FOLD.evolve(state, paid_in)
    assert (after.posted, after.spent) == (15, spent)
    paid_out = FundsMoved(FREE, (Leg(ONE, "EUR", -5, 5, Spent("2026-01-01", 12, 14)), Leg(None, "EUR", 5, None)))
    assert ACCOUNT_FOLD.evolve(state, paid_out).spent == Spent("2026-01-01", 12, 14)


def test_an_account_is_known_by_the_metadata_that_it_was_opened_with() -> None:
    event = AccountOpened(account_id=TWO, owner_id=ADA, currency="EUR", overdraft_limit=3, metadata={"flat": "7"})
    state = ACCOUNT_FOLD.evolve(AccountState(), event)
    assert (state.metadata_digest, state.overdraft_limit) == (digest_of({"flat": "7"}), 3)
    assert digest_of({"flat": "7"}) != digest_of({"flat": "8"}) != digest_of(None) == ""


def test_a_change_of_limits_keeps_what_was_spent() -> None:
    spent = Spent("2026-01-01", 7, 9)
    changed = AccountLimitsChanged(account_id=ONE, currency="EUR", per_day=50, spent=spent)
    state = ACCOUNT_FOLD.evolve(AccountState(ONE, ADA, "EUR", "open"), changed)
    assert (state.limits, state.spent) == (SpendingLimits(per_day=50), spent)


def test_an_address_belongs_to_whoever_changed_to_it_and_the_old_one_to_nobody() -> None:
    states = FoldedStates(created())
    old, new = (email_stream(hash_email(address)) for address in ("ada@example.com", "ada@example.org"))
    [changed] = when(readdress("ada@example.org"), created())
    states.take(changed)
    assert (states[old].user_id, states[new].user_id) == (None, ADA)


def test_null_as_metadata_removes_all_pairs() -> None:
    assert UserChanges.model_validate({"metadata": None}).metadata == {}
    assert UserChanges.model_validate({"name": "Ada"}).metadata is None


def test_a_schedule_is_active_from_its_creation_to_its_end() -> None:
    states = FoldedStates(*schedules.TWO_OPEN, schedules.planned())
    assert states[schedule_stream(schedules.ID)].status == "active"
    states.take(ScheduleCancelled(schedule_id=schedules.ID, runs=0))
    assert states[schedule_stream(schedules.ID)].status == "cancelled"


def test_a_run_has_the_reference_and_the_metadata_of_its_schedule() -> None:
    planned = schedules.planned(reference="rent", metadata={"flat": "7"})
    [made] = schedules.decided(schedules.run(), *schedules.TWO_OPEN, deposited(15), planned, now=schedules.day(2))
    assert isinstance(made, FundsTransferred)
    assert (made.reference, made.metadata, made.occurred_at) == ("rent", {"flat": "7"}, schedules.day(2))


@pytest.mark.parametrize(
    ("command", "owned"),
    [
        (deposit(), [account_stream(ONE)]),
        (withdrawal(), [account_stream(ONE)]),
        (transfer(), [account_stream(ONE)]),
        (schedules.create(), [account_stream(ONE)]),
        (schedules.change(at=schedules.day(9)), [schedule_stream(schedules.ID)]),
        (CloseAccount(account_id=ONE), [account_stream(ONE)]),
    ],
)
def test_a_customer_must_own_what_pays(command: Command, owned: list[str]) -> None:
    assert [*command.owned_streams()] == owned


@pytest.mark.parametrize(
    ("command", "new"),
    [
        (deposit(), transfer_stream(FREE)),
        (transfer(), transfer_stream(FREE)),
        (ExchangeFunds.model_validate(EXCHANGE), transfer_stream(FREE)),
        (MoveFunds.model_validate({"id": FREE, "postings": LEGS}), transfer_stream(FREE)),
        (ReverseTransfer(transfer_id=PAID, reversal=Reversal(id=FREE)), transfer_stream(FREE)),
        (place(), hold_stream(HOLD)),
        (capture(), transfer_stream(FREE)),
        (schedules.create(), schedule_stream(schedules.ID)),
        (RunSchedule(id=FREE, schedule_id=schedules.ID, number=1), transfer_stream(FREE)),
    ],
)
def test_a_command_names_the_stream_that_it_creates_and_depends_on_it(command: Command, new: str) -> None:
    assert command.new_streams() == (new,)
    assert new in command.streams()


def test_a_change_of_a_schedule_depends_on_the_new_payee_alone() -> None:
    assert schedules.change(at=schedules.day(9)).streams() == (schedule_stream(schedules.ID),)
    with_payee = schedules.change(transfer={"to_account_id": TWO})
    assert with_payee.streams() == (schedule_stream(schedules.ID), account_stream(TWO))


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_users_own_their_stream_and_what_has_them_as_owner() -> None:
    states = FoldedStates(created(), opened())
    assert owner_of(f"user-{ADA}", states[f"user-{ADA}"]) == ADA
    assert owner_of(account_stream(ONE), states[account_stream(ONE)]) == ADA
    assert owner_of("ledger-", states["ledger-"]) is None


def test_an_event_changes_the_state_of_each_of_its_streams() -> None:
    states = dict(FoldedStates(opened(), opened(TWO), deposited(30)))
    states[transfer_stream(FREE)] = FoldedStates()[transfer_stream(FREE)]
    [made] = when(transfer(10), opened(), opened(TWO), deposited(30))
    before = dict(states)
    evolve_states(states, made)
    assert (states[account_stream(ONE)].posted, states[account_stream(TWO)].posted) == (20, 10)
    assert states[account_stream(ONE)] == ACCOUNT_FOLD.evolve(before[account_stream(ONE)], made)
    assert states[transfer_stream(FREE)].recorded


# ── input ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("item", "command"),
    [
        ({"type": "deposit", "account_id": ONE}, deposit()),
        ({"type": "withdrawal", "account_id": ONE}, withdrawal()),
        ({"type": "transfer", "from_account_id": ONE, "to_account_id": TWO}, transfer()),
        ({"type": "hold", "account_id": ONE, "id": HOLD}, place()),
    ],
)
def test_an_item_of_a_batch_is_the_command_of_its_type(item: dict[str, Any], command: Command) -> None:
    assert _made({"id": FREE, "amount": 10, "currency": "EUR"} | item) == command


def test_an_item_of_a_batch_about_something_older_names_it_beside_its_own_members() -> None:
    captured_part = _made({"type": "capture", "hold_id": HOLD, "id": FREE, "amount": 4})
    assert captured_part == CaptureHold(hold_id=HOLD, capture=HoldCapture(id=FREE, amount=4))
    assert captured_part.streams() == capture(4).streams()
    reversed_part = _made({"type": "reverse", "transfer_id": PAID, "id": FREE, "amount": 4})
    assert reversed_part == ReverseTransfer(transfer_id=PAID, reversal=Reversal(id=FREE, amount=4))
    assert _made({"type": "release", "hold_id": HOLD}) == ReleaseHold(hold_id=HOLD)
    assert _made({"type": "exchange"} | EXCHANGE) == ExchangeFunds.model_validate(EXCHANGE)


def test_a_transfer_with_postings_is_one_of_several_legs() -> None:
    made = _made({"type": "transfer", "id": FREE, "postings": LEGS})
    assert made == MoveFunds.model_validate({"id": FREE, "postings": LEGS})
    with pytest.raises(ValidationError):
        _made({"type": "deposit", "id": FREE, "postings": LEGS})
    with pytest.raises(ValidationError):
        CommandBatch.model_validate({"commands": ["transfer"]})


def _made(item: dict[str, Any]) -> Command:
    made = CommandBatch.model_validate({"commands": [item]}).commands[0].command()
    kinds = (Deposit, Withdraw, TransferFunds, MoveFunds, ExchangeFunds, PlaceHold, CaptureHold, ReleaseHold, ReverseTransfer)
    assert type(made) in kinds, "an item itself would record its own name"
    return made


def test_the_first_and_the_last_date_are_dates_of_rules_and_no_others() -> None:
    dates = TypeAdapter(RuleDate)
    assert [dates.validate_python(str(each)) for each in (FIRST_DATE, LAST_DATE)] == [str(FIRST_DATE), str(LAST_DATE)]
    for other in (
        str(FIRST_DATE.replace(year=FIRST_DATE.year - 1)),
        str(LAST_DATE.replace(year=LAST_DATE.year + 1)),
        "2026-02-30",
    ):
        with pytest.raises(ValidationError) as invalid:
            dates.validate_python(other)
        [error] = invalid.value.errors()
        assert (error["type"], str(FIRST_DATE) in error["msg"], str(LAST_DATE) in error["msg"]) == ("date_invalid", True, True)


SAID = {
    "nothing_to_change": "Give a name, an email, metadata, or several of them",
    "limits_crossed": "per_transfer_min must not be larger than per_transfer_max",
    "same_currency": "Must be another currency than `from_currency`",
    "rate_zero": "Must be more than 0",
    "exchange_out_of_range": "At this rate it gives 0, or more than 2^53 - 1 minor units",
    "too_short": "Must have at least 2 items",
    "amount_zero": "Must not be 0",
}


@pytest.mark.parametrize(
    ("kind", "body", "place", "error"),
    [
        (UserChanges, {}, (), "nothing_to_change"),
        (NewLimits, {"per_transfer_min": 5, "per_transfer_max": 4}, (), "limits_crossed"),
        (ExchangeFunds, EXCHANGE | {"to_currency": "EUR"}, ("to_currency",), "same_currency"),
        (ExchangeFunds, EXCHANGE | {"rate": "0.0"}, ("rate",), "rate_zero"),
        (ExchangeFunds, EXCHANGE | {"rate": "0.01"}, ("from_amount",), "exchange_out_of_range"),
        (ExchangeFunds, EXCHANGE | {"rate": "999999999999", "from_amount": 2**40}, ("from_amount",), "exchange_out_of_range"),
        (MoveFunds, {"id": FREE, "postings": LEGS[:1]}, ("postings",), "too_short"),
        (MoveFunds, {"id": FREE, "postings": [LEGS[0], LEGS[1] | {"amount": 0}]}, ("postings", 1, "amount"), "amount_zero"),
    ],
)
def test_a_body_that_no_command_can_have_is_refused_where_it_is_wrong(
    kind: Any, body: dict[str, Any], place: tuple[str | int, ...], error: str
) -> None:
    with pytest.raises(ValidationError) as invalid:
        kind.model_validate(body)
    [found] = invalid.value.errors()
    assert (found["loc"], found["type"]) == (place, error)
    assert found["msg"] == SAID[error]


def test_an_exchange_may_give_the_smallest_amount_and_limits_may_be_equal() -> None:
    assert ExchangeFunds.model_validate(EXCHANGE | {"rate": "0.1"}).rate == "0.1"
    assert NewLimits(per_transfer_min=5, per_transfer_max=5).per_transfer_max == 5


# ── events that are decided again ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (deposited(2**53), "amount: Input should be less than or equal to 9007199254740991"),
        (
            FundsDeposited(transfer_id="no", account_id=ONE, amount=0, currency="EUR", balance=0),
            "; amount: Input should be greater than",
        ),
        (AccountUnfrozen(account_id=ONE, currency="EUR"), "its command would record nothing here"),
        (opened(TWO, "XX"), "currency"),
    ],
)
def test_an_impossible_event_is_described_without_its_values(event: Event, why: str) -> None:
    past = PastDecisions()
    past.decide_again(1, created(), NOW)
    past.decide_again(2, opened(), NOW)
    with pytest.raises(EventImpossible) as impossible:
        past.decide_again(3, event, NOW)
    assert why in str(impossible.value)
    assert "None" not in str(impossible.value)


def test_what_an_event_says_beside_its_rule_is_decided_again_too() -> None:
    events: list[Event] = [
        AccountOpened(account_id=TWO, owner_id=ADA, currency="EUR", overdraft_limit=3, metadata={"flat": "7"}),
        ProjectionEventSkipped(projection="balances", position=1, reason="a wrong amount"),
        UserChanged(ADA, ERASED, ERASED, hash_email("bea@example.com"), hash_email("ada@example.com")),
        UserChanged(ADA, "Bea", "bea@example.com", hash_email("bea@example.com"), hash_email("ada@example.com"), '{"a":"1"}'),
    ]
    for event in events:
        past = PastDecisions()
        past.decide_again(1, described(), NOW)
        past.decide_again(2, event, NOW)
        assert {past.versions[stream_id] for stream_id in event.streams()} <= {1, 2}


def test_a_movement_of_several_legs_is_decided_again_with_its_moment() -> None:
    accounts: list[Event] = [created(), opened(), opened(TWO), deposited(100)]
    said = {"occurred_at": "2026-01-01T00:00:00.000000Z"}
    [moved] = when(MoveFunds.model_validate({"id": FREE, "postings": LEGS} | said), *accounts)
    past = PastDecisions()
    for position, event in enumerate([*accounts, moved], 1):
        past.decide_again(position, event, NOW)
    assert past.states[account_stream(TWO)].posted == 5


def test_what_became_of_a_hold_is_decided_again_with_all_that_it_says() -> None:
    said: dict[str, Any] = {"occurred_at": "2026-01-01T00:00:00.000000Z"}
    past = PastDecisions()
    events: list[Event] = [created(), opened(), opened(TWO), deposited(100)]
    for command, now in (
        (place(expires_at=END), NOW),
        (capture(4, to_account_id=TWO, **said), NOW),
        (ReverseTransfer(transfer_id=PAID, reversal=Reversal(id=OTHER_TRANSFER, amount=1, **said)), LATER),
        (EXPIRE, END),
    ):
        events += decided(command, *events, now=now)
    past.recall(4, deposited(100))
    for position, event in enumerate(events, 1):
        past.decide_again(position, event, END if isinstance(event, HoldExpired) else NOW)
    assert past.states[account_stream(ONE)].available == 95
    assert past.states[hold_stream(HOLD)].recorded_status == "expired"


def test_a_ledger_is_decided_again_with_its_largest_transfer() -> None:
    past = PastDecisions()
    past.decide_again(1, LedgerCreated(name="Acme", currencies=("EUR",), transfer_max={"EUR": 50}), NOW)
    begun: list[Event] = [created(), opened(), deposited(50)]
    for position, event in enumerate(begun, 2):
        past.decide_again(position, event, NOW)
    with pytest.raises(EventImpossible, match="ledger-limit-exceeded"):
        past.decide_again(5, FundsDeposited(transfer_id=FREE, account_id=ONE, amount=51, currency="EUR", balance=101), NOW)


def test_a_moment_takes_the_place_of_a_rule() -> None:
    [changed] = schedules.decided(schedules.change(at=schedules.day(9)), *schedules.TWO_OPEN, schedules.planned())
    assert isinstance(changed, ScheduleChanged)
    assert (changed.rule, changed.next_run.due_at) == (None, schedules.day(9))


def test_an_erasure_frees_the_address() -> None:
    states = FoldedStates(created())
    address = email_stream(hash_email("ada@example.com"))
    assert ERASE.further_streams(states) == (address,)
    [erased] = when(ERASE, created())
    states.take(erased)
    assert (states[address].user_id, ERASE.further_streams(states)) == (None, ())


def test_a_day_can_be_closed_from_the_moment_of_its_end() -> None:
    closing = CloseDay(day="2025-12-30", up_to=1, events=1, root="0" * 64, first_position=1, last_position=1)
    [closed] = decided(closing, created(), now="2025-12-31T00:00:00.000000Z")
    assert isinstance(closed, DayClosed)
    with pytest.raises(Rejection) as rejected:
        decided(closing, created(), now="2025-12-30T23:59:59.999999Z")
    assert rejected.value.extra["ends_at"] == "2025-12-31T00:00:00.000000Z"


def test_a_run_is_decided_again_with_the_next_run_as_it_was_planned() -> None:
    """Time zones change, and the next run was planned with those of that day."""
    accounts: list[Event] = [created(), opened(), opened(TWO), deposited(100), schedules.planned()]
    [made] = schedules.decided(schedules.run(), *accounts, now=schedules.day(2))
    assert isinstance(made, FundsTransferred)
    assert made.run is not None
    otherwise = PlannedRun("2026-01-03T08:00:00.000000Z", "2026-01-03")
    made = msgspec.structs.replace(made, run=msgspec.structs.replace(made.run, next_run=otherwise))
    past = PastDecisions()
    for position, event in enumerate(accounts, 1):
        past.decide_again(position, event, schedules.NOW)
    past.decide_again(len(accounts) + 1, made, schedules.day(2))
    assert past.states[schedule_stream(schedules.ID)].next_run == otherwise


def test_a_run_that_was_refused_although_it_could_be_made_is_impossible() -> None:
    accounts: list[Event] = [created(), opened(), opened(TWO), deposited(100), schedules.planned()]
    past = PastDecisions()
    for position, event in enumerate(accounts, 1):
        past.decide_again(position, event, schedules.NOW)
    with pytest.raises(EventImpossible, match=r"^its command would record FundsTransferred here$"):
        past.decide_again(len(accounts) + 1, schedules.refused(1, "insufficient-funds"), schedules.day(2))


def test_nothing_is_said_of_events_that_do_not_exist_yet() -> None:
    past = PastDecisions()
    past.decide_again(1, created(), NOW)
    with pytest.raises(EventImpossible, match=r"^it skips the event at 2, which did not exist yet$"):
        past.decide_again(2, ProjectionEventSkipped(projection="balances", position=2, reason="wrong"), NOW)
    closed = DayClosed(day="2025-12-30", time_zone="UTC", up_to=2, events=1, root="0" * 64, first_position=1, last_position=1)
    with pytest.raises(EventImpossible, match=r"^it counts the events up to 2, which did not exist yet$"):
        past.decide_again(2, closed, NOW)
    past.decide_again(2, msgspec.structs.replace(closed, up_to=1), NOW)


def test_a_hash_of_an_address_that_daybook_does_not_make_is_impossible() -> None:
    with pytest.raises(EventImpossible, match=r"^its hash of an address is not one that Daybook makes$"):
        PastDecisions().decide_again(1, msgspec.structs.replace(created(), email_hash="x"), NOW)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ('{"b":"2","a":"1"}', "its metadata are not written as Daybook writes them"),
        ("[]", "its metadata are not pairs of texts"),
    ],
)
def test_metadata_that_daybook_did_not_write_are_impossible(metadata: str, why: str) -> None:
    with pytest.raises(EventImpossible) as impossible:
        PastDecisions().decide_again(1, msgspec.structs.replace(created(), metadata=metadata), NOW)
    assert str(impossible.value) == why


def test_a_transfer_cannot_reverse_itself() -> None:
    paid = deposited(10)
    reversed_ = TransferReversed(
        transfer_id=FREE,
        reverses=FREE,
        from_account_id=ONE,
        to_account_id=None,
        amount=10,
        currency="EUR",
        from_balance=0,
        to_balance=None,
        reversed=10,
        remaining=0,
    )
    past = PastDecisions()
    past.recall(4, reversed_)
    past.decide_again(1, created(), NOW)
    past.decide_again(2, opened(), NOW)
    past.decide_again(3, paid, NOW)
    with pytest.raises(EventImpossible, match="not-found"):
        past.decide_again(4, reversed_, NOW)


def test_a_change_of_a_schedule_is_decided_again_with_its_payee() -> None:
    past, third = PastDecisions(), opened(THREE)
    begun: list[Event] = [created(), opened(), opened(TWO), third, schedules.planned()]
    for position, each in enumerate(begun, 1):
        past.decide_again(position, each, schedules.NOW)
    [changed] = schedules.decided(schedules.change(transfer={"to_account_id": THREE}), *begun)
    command = past.decide_again(len(begun) + 1, changed, schedules.NOW)
    assert isinstance(command, ChangeSchedule)
    assert (command.changes.transfer.to_account_id, command.changes.transfer.amount) == (THREE, 10)


def test_the_first_difference_names_the_fields_that_differ_and_no_others() -> None:
    past = PastDecisions()
    past.decide_again(1, created(), NOW)
    past.decide_again(2, opened(), NOW)
    right = deposited(10)
    wrong = type(right)(transfer_id=PAID, account_id=ONE, amount=10, currency="EUR", balance=11)
    with pytest.raises(EventImpossible, match="its command would record another balance here"):
        past.decide_again(3, wrong, NOW)
    past.decide_again(3, right, NOW)
