"""Query parameters, cursors and orders. No server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from query_api.cursors import Cursors
from query_api.lists import SortOrder
from query_api.parameters import Parameters
from query_api.requests import preferences
from query_api.resources.accounts import AccountParameters
from query_api.resources.entries import EntryParameters
from query_api.resources.events import EventParameters, StreamParameters
from query_api.resources.statistics import StatisticsParameters
from query_api.resources.transfers import TRANSFER_ORDERS, TransferParameters
from query_api.resources.users import UserParameters
from shared.errors import CursorInvalid
from shared.read_models.shapes import search_words

SECRET = "a secret of the tests and of nothing else"
BINDING = {"list": "/v1/users", "ledger_id": "main", "filters": {"sort": "name"}}

keys = st.lists(st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(exclude_categories=["Cs"])), max_size=3)


# ── cursors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(keys)
def test_verifying_a_cursor_gives_the_key_it_was_signed_with(key: list[Any]) -> None:
    cursors = Cursors(SECRET)
    cursor = cursors.sign(BINDING, key)
    assert cursors.verify(BINDING, cursor) == key
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "other",
    [
        {"list": "/v1/accounts"},
        {"ledger_id": "other"},
        {"filters": {"sort": "-name"}},
        {"filters": {"sort": "name", "status": "active"}},
        {"filters": {}},
    ],
)
def test_a_cursor_of_another_list_is_invalid(other: dict[str, Any]) -> None:
    cursors = Cursors(SECRET)
    with pytest.raises(CursorInvalid):
        cursors.verify(BINDING | other, cursors.sign(BINDING, ["Ada"]))


def test_a_cursor_signed_with_another_secret_is_invalid() -> None:
    with pytest.raises(CursorInvalid):
        Cursors(SECRET).verify(BINDING, Cursors(SECRET[::-1]).sign(BINDING, ["Ada"]))


@given(st.text(max_size=200))
def test_any_other_text_is_an_invalid_cursor(cursor: str) -> None:
    with pytest.raises(CursorInvalid):
        Cursors(SECRET).verify(BINDING, cursor)


@given(st.data())
def test_a_cursor_with_any_character_changed_is_invalid(data: st.DataObject) -> None:
    cursors = Cursors(SECRET)
    cursor = cursors.sign(BINDING, ["Ada", "0198c5a0"])
    # The last character may hold bits that belong to no byte.
    place = data.draw(st.integers(0, len(cursor) - 2))
    character = data.draw(st.sampled_from("ABCDEFabcdef0123456789-_").filter(lambda c: c != cursor[place]))
    with pytest.raises(CursorInvalid):
        cursors.verify(BINDING, cursor[:place] + character + cursor[place + 1 :])


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rejected(model: type[Parameters], **parameters: str) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(parameters)


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000", "1.0", " 5", "5 ", "1_0", "1e1", "٣", "", "+5", "05", "0x5"])
def test_a_limit_is_a_plain_number_within_bounds(limit: str) -> None:
    rejected(UserParameters, limit=limit)
    assert UserParameters.model_validate({"limit": "100"}).limit == 100


@pytest.mark.parametrize("amount", ["9007199254740992", "-9007199254740992", "9" * 5_000, "1.5", "NaN", "", "true"])
def test_an_amount_is_an_integer_that_a_double_can_hold(amount: str) -> None:
    rejected(TransferParameters, **{"amount[gte]": amount})


def test_amounts_at_the_bounds_are_accepted() -> None:
    taken = EntryParameters.model_validate({"amount[gte]": "-9007199254740991", "amount[lte]": "9007199254740991"})
    assert (taken.amount_gte, taken.amount_lte) == (-(2**53) + 1, 2**53 - 1)


@pytest.mark.parametrize(
    "moment",
    ["2026-11-21", "2026-11-21T09:30:00", "2026-02-30T09:30:00Z", "9999-01-01T00:00:00Z", "2026-11-21T09:30:00+23:59", "now", ""],
)
def test_a_time_without_a_zone_or_outside_the_calendar_is_rejected(moment: str) -> None:
    rejected(TransferParameters, **{"recorded_at[gte]": moment})


def test_a_time_is_compared_in_the_form_that_events_store() -> None:
    taken = TransferParameters.model_validate({"recorded_at[lt]": "2026-11-21t11:30:00.5+02:00"})
    assert taken.recorded_at_lt == "2026-11-21T09:30:00.500000Z"


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (Parameters, {"anything": "1"}),
        (UserParameters, {"stauts": "active"}),
        (UserParameters, {"status": "Active"}),
        (UserParameters, {"sort": "email"}),
        (UserParameters, {"search": " . "}),
        (UserParameters, {"search": "x" * 101}),
        (UserParameters, {"cursor": ""}),
        (UserParameters, {"status[$ne]": "active"}),
        (AccountParameters, {"owner_id": "$where"}),
        (AccountParameters, {"currency": "XAU"}),
        (AccountParameters, {"currency": "eur"}),
        (AccountParameters, {"sort": "-posted"}),
        (TransferParameters, {"amount": "5"}),
        (TransferParameters, {"amount[ne]": "5"}),
        (TransferParameters, {"amount_gte": "5"}),
        (EventParameters, {"type": "Anything"}),
        (EventParameters, {"after": "-1"}),
        (EventParameters, {"stream": "account-{}"}),
        (StreamParameters, {"stream": "account-0198c5a0-0000-7000-8000-0000000000e1"}),
        (StatisticsParameters, {"days": "367"}),
    ],
)
def test_unknown_parameters_and_values_are_rejected(model: type[Parameters], parameters: dict[str, str]) -> None:
    rejected(model, **parameters)


def test_balances_are_ordered_within_a_currency() -> None:
    assert AccountParameters.model_validate({"sort": "-posted", "currency": "EUR"}).sort == "-posted"


def test_preferences_are_read_as_in_the_rfc() -> None:
    assert preferences(["wait=5, handling=strict; foo", "WAIT=9"])["wait"] == "5"
    assert preferences(["respond-async", "Handling = strict"])["handling"] == "strict"
    assert preferences([]) == {}


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_order_ends_in_a_field_that_is_unique() -> None:
    assert {order.fields[-1] for order in TRANSFER_ORDERS.values()} == {"_id", "position"}


def test_a_page_begins_after_the_key_of_the_page_before() -> None:
    assert SortOrder(("name", "_id"), descending=False).after(["Ada", "7"]) == {
        "name": {"$gte": "Ada"},
        "$nor": [{"name": "Ada", "_id": {"$lte": "7"}}],
    }


def test_words_are_found_without_regard_to_accents_and_case() -> None:
    assert search_words("Zoë ÅNGSTRÖM-Straße zoe@example.com") == ["angstrom", "com", "example", "strasse", "zoe"]
