"""The rules, without a server: given these events, a command leads to these events or to this rejection."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.domain import user
from command_api.domain.account import ChangeOverdraftLimit, CloseAccount, FreezeAccount, OpenAccount, UnfreezeAccount
from command_api.domain.command import Command
from command_api.domain.stream_folds import fold_of
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.domain.user import ChangeUser, CreateUser, DeactivateUser, EraseUser, NewUser, ReactivateUser, UserChanges
from shared import errors
from shared.log.account_events import AccountClosed, AccountFrozen, AccountOpened, AccountUnfrozen, OverdraftLimitChanged
from shared.log.events import Event
from shared.log.money_events import FundsDeposited, FundsTransferred, FundsWithdrawn
from shared.log.user_events import UserChanged, UserCreated, UserDeactivated, UserErased, UserReactivated
from shared.money import AMOUNT_MAX

ADA = "00000000-0000-0000-0000-0000000000a1"
BOB = "00000000-0000-0000-0000-0000000000b1"
ONE = "00000000-0000-0000-0000-000000000001"
TWO = "00000000-0000-0000-0000-000000000002"
DOLLARS = "00000000-0000-0000-0000-000000000003"
PAID = "00000000-0000-0000-0000-0000000000f1"
FREE = "00000000-0000-0000-0000-0000000000f2"


def hash_email(email: str) -> str:
    return user.hash_email(email, b"pepper")


def create(user_id: str, name: str, email: str, metadata: dict[str, str] | None = None) -> CreateUser:
    new = NewUser(id=user_id, name=name, email=email, metadata=metadata)
    return CreateUser(user=new, email_hash=hash_email(email))


def readdress(email: str) -> ChangeUser:
    return ChangeUser(user_id=ADA, changes=UserChanges(email=email), email_hash=hash_email(email))


def created(user_id: str = ADA, email: str = "ada@example.com") -> UserCreated:
    return UserCreated(user_id=user_id, name="Ada", email=email, email_hash=hash_email(email))


def describe(metadata: dict[str, str] | None) -> ChangeUser:
    return ChangeUser(user_id=ADA, changes=UserChanges(metadata=metadata))


def described() -> UserCreated:
    return msgspec.structs.replace(created(), metadata='{"a":"1","b":"2"}')


def redescribed(metadata: str = '{"a":"1","b":"2"}', name: str = "Ada") -> UserChanged:
    hashed = hash_email("ada@example.com")
    return UserChanged(
        user_id=ADA, name=name, email="ada@example.com", email_hash=hashed, email_hash_before=hashed, metadata=metadata
    )


def opened(account_id: str = ONE, currency: str = "EUR", overdraft_limit: int = 0) -> AccountOpened:
    return AccountOpened(account_id=account_id, owner_id=ADA, currency=currency, overdraft_limit=overdraft_limit)


def deposited(balance: int, account_id: str = ONE) -> FundsDeposited:
    return FundsDeposited(transfer_id=PAID, account_id=account_id, amount=balance, currency="EUR", balance=balance)


FROZEN = AccountFrozen(account_id=ONE, currency="EUR")
UNFROZEN = AccountUnfrozen(account_id=ONE, currency="EUR")
CLOSED = AccountClosed(account_id=ONE, currency="EUR")
INACTIVE = UserDeactivated(user_id=ADA)


class FoldedStates(dict[str, Any]):
    """Folds events as the writer does. A stream without events has its initial state."""

    def __init__(self, *past: Event) -> None:
        super().__init__()
        for event in past:
            self.take(event)

    def __missing__(self, stream_id: str) -> Any:
        return fold_of(stream_id).initial

    def take(self, event: Event) -> None:
        for stream_id in event.streams():
            self[stream_id] = fold_of(stream_id).evolve(self[stream_id], event)


def when(command: Command, *past: Event) -> list[Event]:
    """What the command leads to after these events. It gets only the states of the streams that it names."""
    states = FoldedStates(*past)
    needed = {*command.streams(), *command.further_streams(states)}
    return command.decide({stream_id: states[stream_id] for stream_id in needed})


def limit_of(overdraft_limit: int) -> ChangeOverdraftLimit:
    return ChangeOverdraftLimit(account_id=ONE, overdraft_limit=overdraft_limit)


def limit_changed(after: int, before: int) -> OverdraftLimitChanged:
    return OverdraftLimitChanged(account_id=ONE, currency="EUR", overdraft_limit=after, overdraft_limit_before=before)


def transfer(amount: int = 10, **fields: Any) -> TransferFunds:
    ends = {"from_account_id": ONE, "to_account_id": TWO}
    return TransferFunds.model_validate({"id": FREE, "amount": amount, "currency": "EUR"} | ends | fields)


def deposit(amount: int = 10, **fields: Any) -> Deposit:
    return Deposit.model_validate({"id": FREE, "account_id": ONE, "amount": amount, "currency": "EUR"} | fields)


def withdrawal(amount: int = 10, **fields: Any) -> Withdraw:
    return Withdraw.model_validate({"id": FREE, "account_id": ONE, "amount": amount, "currency": "EUR"} | fields)


CREATE = create(ADA, "Ada", "ada@example.com")
RENAME = ChangeUser(user_id=ADA, changes=UserChanges(name="Ada L."))
READDRESS = readdress("ada@example.org")
ERASE = EraseUser(user_id=ADA)
ERASED = UserErased(user_id=ADA, email_hash=hash_email("ada@example.com"), status_before="active")
OPEN = OpenAccount(id=ONE, owner_id=ADA, currency="EUR", overdraft_limit=5)


@pytest.mark.parametrize(
    ("past", "command", "events"),
    [
        pytest.param([], CREATE, [created()], id="a user is created"),
        pytest.param(
            [created()],
            RENAME,
            [
                UserChanged(
                    user_id=ADA,
                    name="Ada L.",
                    email="ada@example.com",
                    email_hash=hash_email("ada@example.com"),
                    email_hash_before=hash_email("ada@example.com"),
                )
            ],
            id="a user is renamed and keeps the address",
        ),
        pytest.param(
            [created()],
            READDRESS,
            [
                UserChanged(
                    user_id=ADA,
                    name="Ada",
                    email="ada@example.org",
                    email_hash=hash_email("ada@example.org"),
                    email_hash_before=hash_email("ada@example.com"),
                )
            ],
            id="a user takes another address",
        ),
        pytest.param([], create(ADA, "Ada", "ada@example.com", {"b": "2", "a": "1"}), [described()], id="a user has metadata"),
        pytest.param([created()], describe({"b": "2", "a": "1"}), [redescribed()], id="a user gets metadata"),
        pytest.param([described()], describe({"c": "3"}), [redescribed('{"c":"3"}')], id="metadata are replaced as a whole"),
        pytest.param([described()], describe(None), [redescribed("")], id="metadata are removed"),
        pytest.param([described()], RENAME, [redescribed(name="Ada L.")], id="a user is renamed and keeps the metadata"),
        pytest.param([described()], describe({"a": "1", "b": "2"}), [], id="the same metadata in another order"),
        pytest.param([created()], describe({}), [], id="no metadata to remove"),
        pytest.param([created()], DeactivateUser(user_id=ADA), [INACTIVE], id="a user is deactivated"),
        pytest.param([created()], ERASE, [ERASED], id="a user is erased"),
        pytest.param(
            [created(), INACTIVE],
            ReactivateUser(user_id=ADA),
            [UserReactivated(user_id=ADA)],
            id="a user is reactivated",
        ),
        pytest.param([created()], OPEN, [opened(overdraft_limit=5)], id="an account is opened"),
        pytest.param([opened()], FreezeAccount(account_id=ONE), [FROZEN], id="an account is frozen"),
        pytest.param([opened(), FROZEN], UnfreezeAccount(account_id=ONE), [UNFROZEN], id="an account is unfrozen"),
        pytest.param([opened()], CloseAccount(account_id=ONE), [CLOSED], id="an empty account is closed"),
        pytest.param([opened()], limit_of(500), [limit_changed(500, 0)], id="a limit is raised"),
        pytest.param(
            [opened(overdraft_limit=9), deposited(1), FROZEN], limit_of(0), [limit_changed(0, 9)], id="a limit is lowered"
        ),
        pytest.param(
            [opened(), deposited(5)],
            deposit(10),
            [FundsDeposited(transfer_id=FREE, account_id=ONE, amount=10, currency="EUR", balance=15)],
            id="a deposit adds",
        ),
        pytest.param(
            [opened(overdraft_limit=5), deposited(5)],
            withdrawal(10),
            [FundsWithdrawn(transfer_id=FREE, account_id=ONE, amount=10, currency="EUR", balance=-5)],
            id="a withdrawal goes down to the limit",
        ),
        pytest.param(
            [opened(), opened(TWO), deposited(15)],
            transfer(10),
            [
                FundsTransferred(
                    transfer_id=FREE,
                    from_account_id=ONE,
                    to_account_id=TWO,
                    amount=10,
                    currency="EUR",
                    from_balance=5,
                    to_balance=10,
                )
            ],
            id="a transfer moves",
        ),
    ],
)
def test_a_command_leads_to_its_event(past: list[Event], command: Command, events: list[Event]) -> None:
    assert when(command, *past) == events


@pytest.mark.parametrize(
    ("past", "command", "code"),
    [
        ([created()], create(ADA, "A", "other@example.com"), "id-taken"),
        ([created()], create(BOB, "A", "ADA@example.com"), "email-taken"),
        ([], RENAME, "not-found"),
        ([created(), INACTIVE], RENAME, "user-inactive"),
        ([created(), created(BOB, "ada@example.org")], READDRESS, "email-taken"),
        ([created(), ERASED], RENAME, "user-erased"),
        ([created(), ERASED], DeactivateUser(user_id=ADA), "user-erased"),
        ([created(), ERASED], ReactivateUser(user_id=ADA), "user-erased"),
        ([created(), ERASED], OpenAccount(id=ONE, owner_id=ADA, currency="EUR"), "user-erased"),
        ([created(), ERASED], CREATE, "id-taken"),
        ([], ERASE, "not-found"),
        ([], DeactivateUser(user_id=ADA), "not-found"),
        ([], ReactivateUser(user_id=ADA), "not-found"),
        ([created(), opened()], OPEN, "id-taken"),
        ([], OPEN, "not-found"),
        ([created(), INACTIVE], OPEN, "user-inactive"),
        ([], FreezeAccount(account_id=ONE), "not-found"),
        ([opened(), CLOSED], FreezeAccount(account_id=ONE), "account-closed"),
        ([], UnfreezeAccount(account_id=ONE), "not-found"),
        ([opened(), CLOSED], UnfreezeAccount(account_id=ONE), "account-closed"),
        ([], CloseAccount(account_id=ONE), "not-found"),
        ([opened(), FROZEN], CloseAccount(account_id=ONE), "account-frozen"),
        ([opened(), deposited(1)], CloseAccount(account_id=ONE), "account-not-empty"),
        ([], limit_of(1), "not-found"),
        ([opened(), CLOSED], limit_of(1), "account-closed"),
        ([opened(), limit_changed(9, 0), *when(withdrawal(5), opened(overdraft_limit=9))], limit_of(4), "insufficient-funds"),
        ([opened(), deposited(1)], deposit(id=PAID), "id-taken"),
        ([], deposit(), "not-found"),
        ([opened(), CLOSED], deposit(), "account-closed"),
        ([opened(), FROZEN], deposit(), "account-frozen"),
        ([opened(currency="USD")], deposit(), "currency-mismatch"),
        ([opened(), deposited(1)], deposit(AMOUNT_MAX), "balance-out-of-range"),
        ([opened(overdraft_limit=9), deposited(4)], deposit(AMOUNT_MAX - 12), "balance-out-of-range"),
        ([opened(), deposited(1)], limit_of(AMOUNT_MAX), "balance-out-of-range"),
        ([opened(), deposited(9)], withdrawal(10), "insufficient-funds"),
        ([opened(), deposited(9), opened(TWO)], transfer(10), "insufficient-funds"),
        ([opened(), opened(TWO)], transfer(to_account_id=ONE), "same-account"),
        ([opened(), opened(TWO), deposited(99)], transfer(id=PAID), "id-taken"),
        ([opened(), deposited(99)], transfer(), "not-found"),
        ([opened(TWO)], transfer(), "not-found"),
        ([opened(), deposited(99), opened(TWO, "USD")], transfer(), "currency-mismatch"),
        ([opened(), deposited(10), opened(TWO), deposited(AMOUNT_MAX, TWO)], transfer(), "balance-out-of-range"),
    ],
)
def test_a_rejection_has_its_code(past: list[Event], command: Command, code: str) -> None:
    with pytest.raises(errors.Rejection) as rejection:
        when(command, *past)
    assert rejection.value.code == code


def test_rules_are_checked_in_the_documented_order() -> None:
    """One transfer breaks every rule at first. Each step mends one rule, and the next rule rejects the transfer."""
    other_closed = AccountClosed(account_id=TWO, currency="EUR")
    steps: list[tuple[list[Event], str]] = [
        ([], "not-found"),
        ([opened(), opened(TWO), FROZEN, other_closed], "account-closed"),
        ([opened(currency="USD"), opened(TWO), FROZEN], "account-frozen"),
        ([opened(currency="USD"), opened(TWO)], "currency-mismatch"),
        ([opened(), opened(TWO), deposited(AMOUNT_MAX, TWO)], "insufficient-funds"),
        ([opened(), opened(TWO), deposited(AMOUNT_MAX, TWO), deposited(99)], "balance-out-of-range"),
    ]
    for past, code in steps:
        with pytest.raises(errors.Rejection) as rejection:
            when(transfer(), *past)
        assert rejection.value.code == code


def test_a_rejected_withdrawal_says_what_is_available() -> None:
    with pytest.raises(errors.InsufficientFunds) as rejection:
        when(withdrawal(20), opened(overdraft_limit=5), deposited(9))
    assert rejection.value.extra == {"account_id": ONE, "available": 14, "required": 20}


@pytest.mark.parametrize(
    ("past", "command"),
    [
        ([created()], RENAME),
        ([created()], READDRESS),
        ([created()], DeactivateUser(user_id=ADA)),
        ([created(), INACTIVE], ReactivateUser(user_id=ADA)),
        ([created()], ERASE),
        ([opened()], FreezeAccount(account_id=ONE)),
        ([opened(), FROZEN], UnfreezeAccount(account_id=ONE)),
        ([opened()], CloseAccount(account_id=ONE)),
        ([opened()], limit_of(7)),
    ],
)
def test_repeating_a_change_of_state_yields_nothing(past: list[Event], command: Command) -> None:
    first = when(command, *past)
    assert first
    assert when(command, *past, *first) == []


def test_an_address_that_was_given_up_is_free_for_others() -> None:
    change = when(READDRESS, created())
    assert when(create(BOB, "Bob", "ada@example.com"), created(), *change)


@pytest.mark.parametrize("past", [[created()], [created(), INACTIVE]])
def test_the_address_of_an_erased_user_is_free_and_the_state_holds_nothing_personal(past: list[Event]) -> None:
    [erased] = when(ERASE, *past)
    assert isinstance(erased, UserErased)
    assert erased.status_before == ("inactive" if INACTIVE in past else "active")
    assert FoldedStates(*past, erased)[f"user-{ADA}"] == user.UserState(ADA, status="erased")
    assert when(create(BOB, "Bob", "ada@example.com"), *past, erased)


def test_a_user_may_return_to_an_earlier_address() -> None:
    change = when(READDRESS, created())
    back = readdress("ada@example.com")
    assert when(back, created(), *change)


def test_changing_only_the_spelling_of_an_address_keeps_its_stream() -> None:
    command = readdress("Ada@Example.com")
    [event] = when(command, created())
    assert event.streams() == (f"user-{ADA}",)


@given(
    st.integers(0, 200),
    st.lists(st.tuples(st.sampled_from([deposit, withdrawal, "to", "from"]), st.integers(1, 500)), max_size=40),
)
def test_money_is_conserved_and_no_limit_is_passed(limit: int, moves: list[tuple[Any, int]]) -> None:
    """After any sequence of commands, the balances add up to what came in from outside, and no account is below its limit."""
    states = FoldedStates(opened(overdraft_limit=limit), opened(TWO, overdraft_limit=limit))
    outside = 0
    for number, (kind, amount) in enumerate(moves):
        transfer_id = f"{number:08d}-0000-0000-0000-000000000000"
        if kind in {"to", "from"}:
            ends = (ONE, TWO) if kind == "to" else (TWO, ONE)
            command: Command = transfer(amount, id=transfer_id, from_account_id=ends[0], to_account_id=ends[1])
        else:
            command = kind(amount, id=transfer_id)
        try:
            [event] = command.decide({stream_id: states[stream_id] for stream_id in command.streams()})
        except errors.InsufficientFunds:
            continue
        states.take(event)
        outside += {FundsDeposited: amount, FundsWithdrawn: -amount}.get(type(event), 0)
        accounts = [states[f"account-{ONE}"], states[f"account-{TWO}"]]
        assert sum(account.posted for account in accounts) == outside
        assert all(account.posted >= -limit for account in accounts)
