"""What the command API accepts as the body of a request, without a server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.domain.transfer import TransferFunds
from command_api.domain.user import NewUser
from command_api.request_bodies import parse_json_object, validated
from shared import errors
from shared.log.encoding import canonical

ONE = "00000000-0000-0000-0000-000000000001"
TWO = "00000000-0000-0000-0000-000000000002"
TRANSFER = {"from_account_id": ONE, "to_account_id": TWO, "amount": 10, "currency": "EUR"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xfe",
        b'{"amount": NaN}',
        b'{"amount": Infinity}',
        b'{"amount": -Infinity}',
        b'{"amount": 1, "amount": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"amount": ' + b"9" * 5_000 + b"}",
        b'{"a":' * 100_000,
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_not_one_json_object_is_malformed(raw: bytes) -> None:
    with pytest.raises(errors.MalformedJson):
        parse_json_object(raw)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("amount", True, "validation-failed"),
        ("amount", "100", "validation-failed"),
        ("amount", "", "validation-failed"),
        ("amount", 1.0, "validation-failed"),
        ("amount", 1e400, "validation-failed"),
        ("amount", None, "validation-failed"),
        ("amount", [], "validation-failed"),
        ("amount", 0, "amount-out-of-range"),
        ("amount", -5, "amount-out-of-range"),
        ("amount", 2**53, "amount-out-of-range"),
        ("amount", 2**63, "amount-out-of-range"),
        ("currency", "XXX", "currency-unknown"),
        ("currency", "eur", "currency-unknown"),
        ("currency", "", "currency-unknown"),
        ("currency", 978, "validation-failed"),
        ("from_account_id", "1", "validation-failed"),
        ("from_account_id", ONE + "\n", "validation-failed"),
        ("from_account_id", {"$ne": None}, "validation-failed"),
        ("id", "", "validation-failed"),
        ("id", None, "validation-failed"),
        ("reference", "\x00", "validation-failed"),
        ("reference", "a\r\nSet-Cookie: b", "validation-failed"),
        ("reference", "\ud800", "validation-failed"),
        ("reference", "\u202egnol", "validation-failed"),
        ("reference", "x" * 141, "validation-failed"),
        ("reference", "", "validation-failed"),
        ("metadata", {"a": 1}, "validation-failed"),
        ("metadata", {"a": {"b": "c"}}, "validation-failed"),
        ("metadata", {"$where": "1"}, "validation-failed"),
        ("metadata", {"a.b": "c"}, "validation-failed"),
        ("metadata", {f"key{n}": "v" for n in range(21)}, "validation-failed"),
        ("occurred_at", "2026-02-30T00:00:00Z", "validation-failed"),
        ("occurred_at", "2026-01-01T00:00:00", "validation-failed"),
        ("occurred_at", "2026-01-01", "validation-failed"),
        ("occurred_at", "9999-12-31T23:59:59Z", "validation-failed"),
        ("occurred_at", "2026-01-01T00:00:00+23:59", "validation-failed"),
        ("occurred_at", 1_700_000_000, "validation-failed"),
        ("admin", True, "validation-failed"),
        ("\ud800", True, "validation-failed"),
    ],
)
def test_a_wrong_field_is_refused_with_a_pointer_and_without_an_echo(field: str, value: Any, code: str) -> None:
    with pytest.raises(errors.BadRequest) as error:
        validated(TransferFunds, TRANSFER | {field: value})
    assert error.value.code == code
    [problem] = error.value.extra["errors"]
    assert problem["pointer"].startswith("#")
    assert canonical(error.value.extra), "the problem can be encoded whatever the input was"


def test_a_wrong_form_is_reported_before_an_amount_that_is_out_of_range() -> None:
    with pytest.raises(errors.ValidationFailed) as error:
        validated(TransferFunds, {**TRANSFER, "amount": 0, "admin": True})
    assert [problem["pointer"] for problem in error.value.extra["errors"]] == ["#/amount", "#/admin"]


@pytest.mark.parametrize(
    "email",
    ["", "a", "a@b", "@example.com", "a@", "a b@example.com", "ädä@example.com", "a@exämple.com", "a@-b.com", "a\n@b.com"],
)
def test_an_address_must_be_plain_ascii(email: str) -> None:
    with pytest.raises(errors.ValidationFailed):
        validated(NewUser, {"name": "Ada", "email": email})


@pytest.mark.parametrize("name", ["", " ", " Ada", "Ada ", "A\tda", "A\x00", "A\u2067da", "x" * 201])
def test_a_name_with_invisible_characters_or_outer_spaces_is_refused(name: str) -> None:
    with pytest.raises(errors.ValidationFailed):
        validated(NewUser, {"name": name, "email": "ada@example.com"})


@pytest.mark.parametrize("name", ["Ada", "Žofie Nováková", "李小龍", "Ada 🧮", "O'Brien"])
def test_a_name_is_kept_as_it_was_written(name: str) -> None:
    assert validated(NewUser, {"name": name, "email": "ada@example.com"}).name == name


def test_moments_are_kept_in_one_form() -> None:
    command = validated(TransferFunds, {**TRANSFER, "occurred_at": "2026-03-01T00:30:00+02:00"})
    assert command.occurred_at == "2026-02-28T22:30:00.000000Z"


def test_ids_are_the_same_in_either_case() -> None:
    command = validated(TransferFunds, {**TRANSFER, "from_account_id": "ABCDEF00-0000-0000-0000-000000000001"})
    assert command.from_account_id == "abcdef00-0000-0000-0000-000000000001"


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_value_for_a_body_is_a_command_or_a_bad_request(value: Any) -> None:
    fields = value if isinstance(value, dict) else {"amount": value}
    with pytest.raises(errors.BadRequest):
        validated(TransferFunds, fields)
