"""What is sealed can be opened where it stands, with its person's key, and in no other way."""

import base64
from typing import Annotated, Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from projector.difference import DifferenceFound, require_equal
from shared.errors import UnknownEvent
from shared.events import NO_KEYS, Sealed, UserCreated, decode, encode
from shared.logs import configure_logs
from shared.personal_data import (
    ERASED,
    Personal,
    SealBroken,
    open_sealed,
    people_in,
    people_of,
    personal_fields,
    read_master_keys,
    seal,
    unwrap,
    wrap,
)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
KEYS = st.binary(min_size=32, max_size=32)
PLACES = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=5).map(tuple)
ADA, EVENT_ID = "00000000-0000-0000-0000-0000000000a1", "00000000-0000-0000-0000-0000000000ee"


@given(TEXTS, KEYS, PLACES)
def test_what_was_sealed_opens_where_it_stands(text: str, key: bytes, place: tuple[str, ...]) -> None:
    assert open_sealed(seal(text, key, place), key, place) == text


@given(TEXTS, KEYS, PLACES, PLACES)
def test_nothing_sealed_can_be_moved_to_another_place(
    text: str, key: bytes, place: tuple[str, ...], other: tuple[str, ...]
) -> None:
    if place != other:
        with pytest.raises(SealBroken):
            open_sealed(seal(text, key, place), key, other)


@given(TEXTS, KEYS, KEYS)
def test_the_key_of_another_person_opens_nothing(text: str, key: bytes, other: bytes) -> None:
    if key != other:
        with pytest.raises(SealBroken):
            open_sealed(seal(text, key, ("here",)), other, ("here",))


@given(TEXTS, KEYS, st.data())
def test_a_single_changed_bit_is_noticed(text: str, key: bytes, data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(seal(text, key, ("here",))["sealed"]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        open_sealed({"sealed": base64.b64encode(raw).decode()}, key, ("here",))


@pytest.mark.parametrize("moved", ["ledger", "event", "person", "type", "field"])
def test_an_event_is_bound_to_its_ledger_id_person_type_and_field(moved: str) -> None:
    event = UserCreated(user_id=ADA, name="Ada", email="ada@example.com", email_hash="h")
    data = msgspec.json.decode(encode("main", EVENT_ID, event, {ADA: bytes(32)}))
    sealed, kind, other = Sealed("main", EVENT_ID, {ADA: bytes(32), "other": bytes(32)}), "UserCreated", EVENT_ID[::-1]
    assert decode(kind, 1, msgspec.json.encode(data), sealed) == event
    match moved:
        case "ledger":
            sealed = Sealed("other", EVENT_ID, sealed.keys)
        case "event":
            sealed = Sealed("main", other, sealed.keys)
        case "person":
            data["user_id"] = "other"
        case "type":
            kind, data["email_hash_before"] = "UserChanged", "h"
        case _:
            data["name"], data["email"] = data["email"], data["name"]
    with pytest.raises(Exception, match=r"seal of (name|email) is broken"):
        decode(kind, 1, msgspec.json.encode(data), sealed)


def test_without_its_key_an_event_reads_as_erased_and_stays_the_same_in_the_log() -> None:
    event = UserCreated(user_id=ADA, name="Ada", email="ada@example.com", email_hash="h")
    data = encode("main", EVENT_ID, event, {ADA: bytes(32)})
    assert b"Ada" not in data
    assert b"example" not in data
    erased = decode("UserCreated", 1, data, NO_KEYS)
    assert erased == UserCreated(user_id=ADA, name=ERASED, email=ERASED, email_hash="h")


def test_what_stays_does_not_tell_how_long_a_name_was() -> None:
    lengths = {len(seal("x" * length, bytes(32), ("here",))["sealed"]) for length in range(1, 60)}
    assert len(lengths) == 1


def test_people_are_named_by_events_about_them_only() -> None:
    assert people_of(UserCreated(user_id=ADA, name="Ada", email="a@b.c", email_hash="h")) == {ADA}
    assert people_of(UserCreated(user_id=ADA, name="", email="", email_hash="h")) == set()


@pytest.mark.parametrize("data", ["[]", "1", '{"user_id":["u"],"name":{"sealed":"x"}}', '{"user_id":"u","name":{"sealed":1}}'])
def test_rubbish_in_the_place_of_an_event_is_an_unknown_event(data: str) -> None:
    members = msgspec.json.decode(data)
    with pytest.raises(UnknownEvent):
        decode("UserCreated", 1, data, Sealed("main", EVENT_ID, dict.fromkeys(people_in(UserCreated, members), bytes(32))))


def test_only_a_text_can_be_personal() -> None:
    class Wrong(msgspec.Struct):
        user_id: str
        age: Annotated[int, Personal("user_id")]

    with pytest.raises(TypeError, match="age"):
        personal_fields(Wrong)


def test_a_wrapped_key_is_bound_to_its_person() -> None:
    wrapped = wrap(b"k" * 32, bytes(32), ("main", "ada"))
    assert unwrap(wrapped, bytes(32), ("main", "ada")) == b"k" * 32
    with pytest.raises(SealBroken):
        unwrap(wrapped, bytes(32), ("main", "bob"))


def test_master_keys_are_read_in_either_alphabet_with_or_without_padding() -> None:
    keys = [bytes(range(200, 232)), bytes([255] * 32)]
    words = [base64.b64encode(keys[0]).decode(), base64.urlsafe_b64encode(keys[1]).decode().rstrip("=")]
    assert read_master_keys(" , ".join(words)) == tuple(keys)


@pytest.mark.parametrize("text", ["", "short", "secret!" * 9, base64.b64encode(bytes(31)).decode()])
def test_a_wrong_master_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="key 1 is not 32 bytes") as refusal:
        read_master_keys(text)
    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize("found", [{"_id": "1", "name": "Grace", "search": ["grace"]}, None, {"_id": "1", "search": ["x"]}])
def test_what_verifying_finds_shows_no_names(found: Any) -> None:
    with pytest.raises(DifferenceFound) as difference:
        require_equal("users 1", {"_id": "1", "name": "Lovelace", "search": ["lovelace"]}, found)
    assert not {"lovelace", "grace"} & set(str(difference.value).lower().split())
    assert "lovelace" not in str(difference.value).lower()


def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    configure_logs("INFO")

    def fail(name: str) -> None:
        raise ValueError(name)

    try:
        fail("Love" + "lace")
    except ValueError:
        structlog.get_logger().exception("it failed")
    finally:
        structlog.configure(**before)
    shown = capsys.readouterr().out
    assert "ValueError" in shown
    assert "Lovelace" not in shown
