"""What each event changes in each read model. Needs no server: events in, dictionaries out."""

import json
from itertools import pairwise
from typing import Any, get_args

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.projections.changes import DocumentChanges
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from query_api.resources.entries import EntryResource
from shared.log.account_events import AccountClosed, AccountFrozen, AccountMetadataChanged, AccountUnfrozen, OverdraftLimitChanged
from shared.log.events import EVENT_TYPES, Event, RecordedEvent
from shared.log.hold_events import HoldExpired
from shared.log.ledger_events import LedgerEvent
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.user_events import UserDeactivated, UserReactivated
from shared.read_models.holds import held_at
from shared.read_models.shapes import ACTIVITY_MAX, READ_MODELS, entry_id
from tests.harness.log import Book, recorded

BOOK = Book()
ADA = BOOK.create_user("Ada Lovelace", "ada@example.com")
EUROS, MORE_EUROS = BOOK.open_account(ADA.user_id, overdraft_limit=500), BOOK.open_account(ADA.user_id)
ONE, OTHER = EUROS.account_id, MORE_EUROS.account_id
DEPOSIT = BOOK.deposit(ONE, 1_000, occurred_at="2020-02-29T12:00:00.000000Z", reference="salary")
TRANSFER = BOOK.transfer(ONE, OTHER, 300, metadata={"order.id": "7"})
WITHDRAWAL = BOOK.withdraw(OTHER, 100)
MONEY: list[Event] = [EUROS, MORE_EUROS, DEPOSIT, TRANSFER, WITHDRAWAL]


def moment(position: int) -> str:
    return f"2026-01-01T00:00:{position:02d}.000000Z"


def folded(name: str, *batches: list[RecordedEvent]) -> dict[str, Any]:
    """Applies batches to an empty read model."""
    contents: dict[str, Any] = {}
    for batch in batches:
        changes = PROJECTIONS_BY_NAME[name].new_changes()
        PROJECTIONS_BY_NAME[name].fold(changes, batch)
        changes.apply_to(contents)
    return contents


def project(name: str, *events: Event) -> dict[str, Any]:
    return folded(name, recorded(events))


def test_every_read_model_has_one_projection() -> None:
    assert [projection.model for projection in PROJECTIONS] == list(READ_MODELS)


def test_every_event_is_handled_by_some_projection() -> None:
    of_no_read_model = frozenset({ProjectionEventSkipped, *get_args(LedgerEvent)})
    handled = frozenset().union(*(projection.handles for projection in PROJECTIONS))
    assert handled == frozenset(EVENT_TYPES.values()) - of_no_read_model


# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_created_user_is_active_and_can_be_searched_for() -> None:
    assert project("users", ADA) == {
        ADA.user_id: {
            "_id": ADA.user_id,
            "name": "Ada Lovelace",
            "email": "ada@example.com",
            "metadata": None,
            "search": ["ada", "com", "example", "lovelace"],
            "found_by": ["email=ada@example.com"],
            "status": "active",
            "created_at": moment(1),
            "changed_at": moment(1),
            "version": 1,
            "position": 1,
        }
    }


def test_a_changed_user_has_the_new_name_address_and_search_words() -> None:
    book = Book()
    user = book.create_user("Ada")
    changed = book.change_user(user.user_id, "Áda King", "king@example.com")
    after = project("users", user, changed)[user.user_id]
    assert (after["name"], after["email"], after["search"]) == (
        "Áda King",
        "king@example.com",
        ["ada", "com", "example", "king"],
    )
    assert (after["created_at"], after["changed_at"], after["version"], after["position"]) == (moment(1), moment(2), 2, 2)


def test_a_user_is_inactive_until_reactivated() -> None:
    gone, back = UserDeactivated(user_id=ADA.user_id), UserReactivated(user_id=ADA.user_id)
    assert project("users", ADA, gone)[ADA.user_id]["status"] == "inactive"
    after = project("users", ADA, gone, back)[ADA.user_id]
    assert (after["status"], after["version"], after["position"]) == ("active", 3, 3)


# ── accounts and balances ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_opened_account_is_open_and_empty() -> None:
    assert project("accounts", EUROS) == {
        ONE: {
            "_id": ONE,
            "owner_id": ADA.user_id,
            "currency": "EUR",
            "status": "open",
            "overdraft_limit": 500,
            "posted": 0,
            "holds": 0,
            "opened_at": moment(1),
            "changed_at": moment(1),
            "version": 1,
            "position": 1,
        }
    }


def test_money_sets_the_balance_of_each_account_that_it_touches() -> None:
    accounts = project("accounts", *MONEY)
    assert [(accounts[i]["posted"], accounts[i]["version"], accounts[i]["position"]) for i in (ONE, OTHER)] == [
        (700, 3, 4),
        (200, 3, 5),
    ]


@pytest.mark.parametrize("name", ["accounts", "balances"])
def test_an_account_is_frozen_unfrozen_and_closed(name: str) -> None:
    events: list[Event] = [
        MORE_EUROS,
        AccountFrozen(account_id=OTHER, currency="EUR"),
        AccountUnfrozen(account_id=OTHER, currency="EUR"),
        AccountClosed(account_id=OTHER, currency="EUR"),
    ]
    statuses = [next(iter(project(name, *events[:count]).values()))["status"] for count in range(1, 5)]
    assert statuses == ["open", "frozen", "open", "closed"]


@pytest.mark.parametrize("name", ["accounts", "balances"])
def test_a_changed_overdraft_limit_is_the_limit_of_the_account(name: str) -> None:
    changed = OverdraftLimitChanged(account_id=OTHER, currency="EUR", overdraft_limit=70, overdraft_limit_before=500)
    [account] = project(name, MORE_EUROS, changed).values()
    assert (str(account["overdraft_limit"]), str(account["version"]), str(account["position"])) == ("70", "2", "2")


def test_balances_are_the_accounts_as_text() -> None:
    accounts, balances = project("accounts", *MONEY), project("balances", *MONEY)
    for account_id, account in accounts.items():
        del account["_id"]
        assert balances[f"account:{account_id}"] == {name: str(value) for name, value in account.items()}


def test_an_account_is_found_by_its_metadata_until_they_change() -> None:
    """The hash in Redis has them as text, and no field of an account without them."""
    opened = msgspec.structs.replace(MORE_EUROS, metadata={"iban": "DE02", "class": "b"})
    changed = AccountMetadataChanged(account_id=OTHER, currency="EUR", metadata={"iban": "DE03"})
    removed = AccountMetadataChanged(account_id=OTHER, currency="EUR")
    found = [project("accounts", *events)[OTHER] for events in ([opened], [opened, changed], [opened, changed, removed])]
    assert [each.get("found_by") for each in found] == [
        ["metadata.iban=DE02", "metadata.class=b"],
        ["metadata.iban=DE03"],
        None,
    ]
    assert [each.get("metadata") for each in found] == ['{"iban":"DE02","class":"b"}', '{"iban":"DE03"}', None]
    assert project("balances", opened, changed)[f"account:{OTHER}"]["metadata"] == '{"iban":"DE03"}'
    assert "metadata" not in project("balances", opened, removed)[f"account:{OTHER}"]


# ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hold_goes_from_placed_to_its_end_in_its_own_document_and_in_its_account() -> None:
    """Each hold is a field of its account until it ends, so that readers can leave out those that have expired."""
    book = Book()
    payer, payee = (book.open_account(book.new_id(), overdraft_limit=100) for _ in range(2))
    ends = payer.account_id, payee.account_id
    first = book.place_hold(ends[0], 50, ends[1], expires_at="2026-01-01T00:01:00.000000Z", reference="r")
    second = book.place_hold(ends[0], 20)
    part, rest = book.capture(first.hold_id, 30), book.capture(first.hold_id, 5, final=True)
    expired = HoldExpired(hold_id=second.hold_id, from_account_id=ends[0], amount=20, currency="EUR")
    events: list[Event] = [payer, payee, first, second, part, rest, expired]
    held = []
    for count in range(3, 8):
        account = project("accounts", *events[:count])[ends[0]]
        balance = project("balances", *events[:count])[f"account:{ends[0]}"]
        assert balance == {name: str(value) for name, value in account.items() if name != "_id"}
        held.append((account["holds"], *(held_at(account, f"2026-01-01T00:{minute}.000000Z") for minute in ("00:59", "01:00"))))
    assert held == [(1, 50, 0), (2, 70, 20), (2, 40, 20), (1, 20, 20), (0, 0, 0)]
    assert not any(name.startswith("hold:") for name in account)
    assert (account["posted"], project("accounts", *events)[ends[1]]["posted"]) == (-35, 35)
    one, two = (project("holds", *events)[each.hold_id] for each in (first, second))
    assert one == {
        "_id": first.hold_id,
        "account_id": ends[0],
        "to_account_id": ends[1],
        "found_by": ["reference=r", *ends],
        "amount": 50,
        "captured": 35,
        "remaining": 0,
        "currency": "EUR",
        "status": "captured",
        "expires_at": "2026-01-01T00:01:00.000000Z",
        "placed_at": moment(3),
        "changed_at": moment(6),
        "reference": "r",
        "metadata": None,
        "version": 3,
        "position": 6,
    }
    assert (two["status"], two["remaining"], two["captured"], two["version"]) == ("expired", 0, 0, 2)


def test_a_capture_is_a_transfer_with_entries_that_names_its_hold() -> None:
    book = Book()
    payer, payee = (book.open_account(book.new_id(), overdraft_limit=100) for _ in range(2))
    inside = book.place_hold(payer.account_id, 50, payee.account_id)
    outside = book.place_hold(payer.account_id, 20)
    captures = book.capture(inside.hold_id, 30), book.capture(outside.hold_id, 20)
    transfers = project("transfers", payer, payee, inside, outside, *captures)
    found = [transfers[each.transfer_id] for each in captures]
    assert [(each["kind"], each["to_account_id"], each["hold_id"]) for each in found] == [
        ("transfer", payee.account_id, inside.hold_id),
        ("withdrawal", None, outside.hold_id),
    ]
    entries = project("entries", payer, payee, inside, outside, *captures)
    assert [(json.loads(each["item"])["amount"], json.loads(each["item"])["balance"]) for each in entries.values()] == [
        (-30, -30),
        (30, 30),
        (-20, -50),
    ]


def test_a_reversal_is_a_transfer_with_entries_that_names_what_it_reverses() -> None:
    book = Book()
    payer, payee = (book.open_account(book.new_id()) for _ in range(2))
    brought, paid = book.deposit(payer.account_id, 100), book.transfer(payer.account_id, payee.account_id, 60)
    back, out = book.reverse(paid, 25), book.reverse(brought, 40)
    events: list[Event] = [payer, payee, brought, paid, back, out]
    transfers = project("transfers", *events)
    assert [
        (each["kind"], each["from_account_id"], each["to_account_id"], each["reverses"], each["found_by"][-2])
        for each in (transfers[back.transfer_id], transfers[out.transfer_id])
    ] == [
        ("reversal", payee.account_id, payer.account_id, paid.transfer_id, f"transfer-{paid.transfer_id}"),
        ("reversal", payer.account_id, None, brought.transfer_id, f"transfer-{brought.transfer_id}"),
    ]
    entries = [json.loads(each["item"]) for each in project("entries", *events).values()]
    assert [(each["kind"], each["amount"], each["balance"], each["counterparty_account_id"]) for each in entries[3:]] == [
        ("reversal", -25, 35, payer.account_id),
        ("reversal", 25, 65, payee.account_id),
        ("reversal", -40, 25, None),
    ]
    accounts, balances = project("accounts", *events), project("balances", *events)
    assert [accounts[each.account_id]["posted"] for each in (payer, payee)] == [25, 35]
    assert [balances[f"account:{each.account_id}"]["posted"] for each in (payer, payee)] == ["25", "35"]
    statistics = project("statistics", *events)
    assert (statistics["sums"], statistics["transfers"]) == ({"EUR": "60"}, {moment(1)[:10]: "4"})


# ── transfers, entries, activity ─────────────────────────────────────────────────────────────────────────────────────


def test_a_transfer_names_both_accounts_and_keeps_what_the_client_said() -> None:
    transfer = project("transfers", *MONEY)[TRANSFER.transfer_id]
    assert transfer == {
        "_id": TRANSFER.transfer_id,
        "kind": "transfer",
        "from_account_id": ONE,
        "to_account_id": OTHER,
        "found_by": ["metadata.order.id=7", ONE, OTHER, "kind=transfer"],
        "amount": 300,
        "currency": "EUR",
        "occurred_at": moment(4),
        "recorded_at": moment(4),
        "reference": None,
        "metadata": {"order.id": "7"},
        "hold_id": None,
        "reverses": None,
        "postings": None,
        "position": 4,
    }


def test_deposits_and_withdrawals_are_transfers_from_and_to_nobody() -> None:
    transfers = project("transfers", *MONEY)
    deposit, withdrawal = transfers[DEPOSIT.transfer_id], transfers[WITHDRAWAL.transfer_id]
    assert (deposit["kind"], deposit["from_account_id"], deposit["to_account_id"]) == ("deposit", None, ONE)
    assert (withdrawal["kind"], withdrawal["from_account_id"], withdrawal["to_account_id"]) == ("withdrawal", OTHER, None)
    assert (deposit["occurred_at"], deposit["recorded_at"]) == ("2020-02-29T12:00:00.000000Z", moment(3))
    assert deposit["found_by"] == ["reference=salary", ONE, "kind=deposit"]


def test_entries_have_signed_amounts_and_the_balance_after_them() -> None:
    entries = {key: json.loads(entry["item"]) for key, entry in project("entries", *MONEY).items()}
    assert {key: (entry["amount"], entry["balance"], entry["counterparty_account_id"]) for key, entry in entries.items()} == {
        entry_id(ONE, 3): (1_000, 1_000, None),
        entry_id(ONE, 4): (-300, 700, OTHER),
        entry_id(OTHER, 4): (300, 300, ONE),
        entry_id(OTHER, 5): (-100, 200, None),
    }


def test_an_entry_holds_what_it_is_found_by_and_the_item_as_it_is_documented() -> None:
    book = Book()
    one, other = (book.open_account(book.create_user().user_id, overdraft_limit=10**15) for _ in range(2))
    odd = 'quote " back \\ line \n null \u0001 é 中 𝄞'
    moved: list[Event] = [one, other, book.transfer(one.account_id, other.account_id, 10**15, reference=odd)]
    for entry in (*project("entries", *MONEY).values(), *project("entries", *moved).values()):
        text = entry["item"][:-1] + ',"after_close":false}'  # the query API adds it when it answers
        item = EntryResource.model_validate_json(text, strict=True)
        assert [*json.loads(text)] == [*EntryResource.model_fields]
        names = ("account_id", "amount", "occurred_at", "reference", "recorded_at", "position")
        found_by = {name: getattr(item, name) for name in names}
        assert entry == {"_id": entry_id(item.account_id, item.position), **found_by, "item": entry["item"]}
    assert item.reference == odd


def test_recent_activity_is_newest_first_and_bounded() -> None:
    book = Book()
    account = book.open_account(book.create_user().user_id)
    deposits = [book.deposit(account.account_id, 1) for _ in range(ACTIVITY_MAX + 20)]
    events = recorded([account, *deposits])
    recent = [json.loads(item)["id"] for item in folded("activity", events[:70], events[70:])["recent"]]
    assert recent == [deposit.transfer_id for deposit in reversed(deposits)][:ACTIVITY_MAX]


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_statistics_count_users_accounts_and_money() -> None:
    gone = UserDeactivated(user_id=ADA.user_id)
    frozen = AccountFrozen(account_id=OTHER, currency="EUR")
    assert project("statistics", ADA, *MONEY, gone, frozen) == {
        "users": {"active": "0", "inactive": "1"},
        "accounts": {"EUR:open": "1", "EUR:frozen": "1"},
        "sums": {"EUR": "900"},
        "outside": {"EUR": "-900"},
        "transfers": {"2020-02-29": "1", "2026-01-01": "2"},
        "volumes": {"2020-02-29:EUR": "1000", "2026-01-01:EUR": "400"},
        "ranking:EUR": {ONE: 700, OTHER: 200},
        "busiest": {ONE: 2, OTHER: 2},
    }


def test_a_closed_account_leaves_the_ranking() -> None:
    closed = AccountClosed(account_id=OTHER, currency="EUR")
    assert project("statistics", MORE_EUROS, closed) == {
        "accounts": {"EUR:open": "0", "EUR:closed": "1"},
        "sums": {"EUR": "0"},
        "outside": {"EUR": "0"},
    }


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

HISTORY = recorded(Book(seed=7).history(150))


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.name)
@hypothesis.settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, len(HISTORY) - 1)))
def test_batches_can_be_cut_anywhere(projection: Projection[Any], cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), len(HISTORY)]
    batches = [HISTORY[start:end] for start, end in pairwise(bounds)]
    assert folded(projection.name, *batches) == folded(projection.name, HISTORY)


def test_the_balances_of_a_currency_sum_to_deposits_minus_withdrawals() -> None:
    accounts = project("accounts", *(event.event for event in HISTORY)).values()
    sums = project("statistics", *(event.event for event in HISTORY))["sums"]
    for currency, total in sums.items():
        assert sum(account["posted"] for account in accounts if account["currency"] == currency) == int(total)


def test_every_version_is_the_number_of_events_of_its_stream() -> None:
    accounts = project("accounts", *(event.event for event in HISTORY))
    for account_id, account in accounts.items():
        stream = [event for event in HISTORY if f"account-{account_id}" in event.event.streams()]
        assert (account["version"], account["position"]) == (len(stream), stream[-1].position)


def test_a_document_cannot_be_inserted_twice() -> None:
    changes = DocumentChanges()
    changes.insert("one", {})
    with pytest.raises(ValueError, match="twice"):
        changes.insert("one", {})
