"""A personal field can be decrypted only in the context that it was encrypted in, and only with its person's key."""

import base64
from typing import Annotated, Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from projector.verify.difference import DifferenceFound, require_equal
from shared.errors import UnknownEvent
from shared.log.encoding import NO_KEYS, DecryptionKeys, decode, encode
from shared.log.user_events import UserCreated
from shared.logs import configure_logs
from shared.privacy.encryption import ERASED, DecryptionFailed, Personal, decrypt, encrypt, people_in, people_of, personal_fields
from shared.privacy.master_keys import unwrap, wrap
from shared.setting_values import read_master_keys

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
KEYS = st.binary(min_size=32, max_size=32)
CONTEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=5).map(tuple)
ADA, EVENT_ID = "00000000-0000-0000-0000-0000000000a1", "00000000-0000-0000-0000-0000000000ee"


@given(TEXTS, KEYS, CONTEXTS)
def test_an_encrypted_text_is_decrypted_in_its_context(text: str, key: bytes, context: tuple[str, ...]) -> None:
    assert decrypt(encrypt(text, key, context), key, context) == text


@given(TEXTS, KEYS, CONTEXTS, CONTEXTS)
def test_an_encrypted_text_is_not_decrypted_in_another_context(
    text: str, key: bytes, context: tuple[str, ...], other: tuple[str, ...]
) -> None:
    if context != other:
        with pytest.raises(DecryptionFailed):
            decrypt(encrypt(text, key, context), key, other)


@given(TEXTS, KEYS, KEYS)
def test_the_key_of_another_person_decrypts_nothing(text: str, key: bytes, other: bytes) -> None:
    if key != other:
        with pytest.raises(DecryptionFailed):
            decrypt(encrypt(text, key, ("here",)), other, ("here",))


@given(TEXTS, KEYS, st.data())
def test_a_single_changed_bit_is_noticed(text: str, key: bytes, data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(encrypt(text, key, ("here",))["sealed"]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionFailed):
        decrypt({"sealed": base64.b64encode(raw).decode()}, key, ("here",))


@pytest.mark.parametrize("moved", ["ledger", "event", "person", "type", "field"])
def test_an_event_is_bound_to_its_ledger_id_person_type_and_field(moved: str) -> None:
    event = UserCreated(user_id=ADA, name="Ada", email="ada@example.com", email_hash="h")
    data = msgspec.json.decode(encode("main", EVENT_ID, event, {ADA: bytes(32)}))
    keys, kind, other = DecryptionKeys("main", EVENT_ID, {ADA: bytes(32), "other": bytes(32)}), "UserCreated", EVENT_ID[::-1]
    assert decode(kind, 1, msgspec.json.encode(data), keys) == event
    match moved:
        case "ledger":
            keys = DecryptionKeys("other", EVENT_ID, keys.keys)
        case "event":
            keys = DecryptionKeys("main", other, keys.keys)
        case "person":
            data["user_id"] = "other"
        case "type":
            kind, data["email_hash_before"] = "UserChanged", "h"
        case _:
            data["name"], data["email"] = data["email"], data["name"]
    with pytest.raises(Exception, match=r"(name|email) cannot be decrypted"):
        decode(kind, 1, msgspec.json.encode(data), keys)


def test_without_its_key_an_event_reads_as_erased_and_stays_the_same_in_the_log() -> None:
    event = UserCreated(user_id=ADA, name="Ada", email="ada@example.com", email_hash="h")
    data = encode("main", EVENT_ID, event, {ADA: bytes(32)})
    assert b"Ada" not in data
    assert b"example" not in data
    erased = decode("UserCreated", 1, data, NO_KEYS)
    assert erased == UserCreated(user_id=ADA, name=ERASED, email=ERASED, email_hash="h")


def test_an_encrypted_name_does_not_tell_its_length() -> None:
    lengths = {len(encrypt("x" * length, bytes(32), ("here",))["sealed"]) for length in range(1, 60)}
    assert len(lengths) == 1


def test_only_events_about_a_person_name_the_person() -> None:
    assert people_of(UserCreated(user_id=ADA, name="Ada", email="a@b.c", email_hash="h")) == {ADA}
    assert people_of(UserCreated(user_id=ADA, name="", email="", email_hash="h")) == set()


@pytest.mark.parametrize("data", ["[]", "1", '{"user_id":["u"],"name":{"sealed":"x"}}', '{"user_id":"u","name":{"sealed":1}}'])
def test_data_that_are_no_event_raise_unknown_event(data: str) -> None:
    members = msgspec.json.decode(data)
    with pytest.raises(UnknownEvent):
        decode(
            "UserCreated", 1, data, DecryptionKeys("main", EVENT_ID, dict.fromkeys(people_in(UserCreated, members), bytes(32)))
        )


def test_only_a_text_can_be_personal() -> None:
    class Wrong(msgspec.Struct):
        user_id: str
        age: Annotated[int, Personal("user_id")]

    with pytest.raises(TypeError, match="age"):
        personal_fields(Wrong)


def test_a_wrapped_key_is_bound_to_its_person() -> None:
    wrapped = wrap(b"k" * 32, bytes(32), ("main", "ada"))
    assert unwrap(wrapped, bytes(32), ("main", "ada")) == b"k" * 32
    with pytest.raises(DecryptionFailed):
        unwrap(wrapped, bytes(32), ("main", "bob"))


def test_master_keys_are_read_in_either_alphabet_with_or_without_padding() -> None:
    keys = [bytes(range(200, 232)), bytes([255] * 32)]
    words = [base64.b64encode(keys[0]).decode(), base64.urlsafe_b64encode(keys[1]).decode().rstrip("=")]
    assert read_master_keys(" , ".join(words)) == tuple(keys)


@pytest.mark.parametrize("text", ["", "short", "secret!" * 9, base64.b64encode(bytes(31)).decode()])
def test_a_wrong_master_key_is_rejected_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="key 1 is not 32 bytes") as raised:
        read_master_keys(text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("found", [{"_id": "1", "name": "Grace", "search": ["grace"]}, None, {"_id": "1", "search": ["x"]}])
def test_a_difference_that_verifying_finds_shows_no_names(found: Any) -> None:
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
