"""Personal data where they are stored: sealed with a key of the person's own, so that destroying the key erases the person.

A field is marked where it is defined: `name: Annotated[str, Personal("user_id")]` belongs to the person whose id stands in
`user_id`. What is stored instead of it is `{"sealed": "<base64>"}`: AES-256-GCM under a random nonce, bound by its associated
data to the place where it stands, so that no sealed value can be moved to another field, event, person or ledger. Without the
person's key it reads `ERASED`.

Pure: no I/O. Keys are kept in PostgreSQL (see `shared.person_keys`). Never seal in a second place, and never log what was opened.
"""

import base64
import os
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ERASED: Final = "(erased)"
"""What a personal field reads once its person's key is destroyed."""

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
BLOCK_BYTES: Final = 64
"""Values are padded to a multiple of this, so that what stays after an erasure does not tell how long a name was."""

Place = tuple[str, ...]
"""Where a sealed value stands, from the ledger down; the person's id and the field's name are added to it."""

Keys = Mapping[str, bytes]
"""Person's id → key; an erased person has none."""


class Personal(msgspec.Struct, frozen=True):
    """Marks a text field as personal. `of` is the field that holds the person's id."""

    of: str


class SealBroken(ValueError):
    """A value is not what was sealed at this place."""


@cache
def personal_fields(kind: type) -> Mapping[str, str]:
    """Field → the field with its person's id, for the fields of a struct that are marked.

    Raises:
        TypeError: a marked field is not a text.
    """
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Personal):
                if typing.get_origin(hint) is not typing.Annotated or hint.__origin__ not in {str, str | None}:
                    raise TypeError(f"{kind.__name__}.{name} is personal and must be a text")
                found[name] = mark.of
    return found


def people_of(*things: msgspec.Struct) -> set[str]:
    """Whose keys it takes to seal these."""
    return {getattr(thing, of) for thing in things for name, of in personal_fields(type(thing)).items() if getattr(thing, name)}


def people_in(kind: type, members: Any) -> set[str]:
    """Whose keys it takes to open what was stored of such a struct; nobody's, if it is no such thing."""
    if not isinstance(members, dict):
        return set()
    people = (members.get(of) for name, of in personal_fields(kind).items() if members.get(name))
    return {person_id for person_id in people if isinstance(person_id, str)}


def sealed_members(thing: msgspec.Struct, place: Place, keys: Keys) -> dict[str, Any]:
    """The struct as it is stored. What is empty is left as it is."""
    members: dict[str, Any] = msgspec.to_builtins(thing)
    for name, of in personal_fields(type(thing)).items():
        if members.get(name):
            members[name] = seal(members[name], keys[members[of]], (*place, members[of], name))
    return members


def opened_members(kind: type, members: Any, place: Place, keys: Keys) -> dict[str, Any]:
    """What `sealed_members` stored at this place.

    Raises:
        SealBroken: a value was sealed for another place, was changed, or is not sealed at all.
    """
    if not isinstance(members, dict):
        raise SealBroken("it is not an object")
    opened = dict(members)
    for name, of in personal_fields(kind).items():
        if opened.get(name):
            person_id = str(opened.get(of))
            opened[name] = open_sealed(opened[name], keys.get(person_id), (*place, person_id, name))
    return opened


def seal(value: str, key: bytes, place: Place) -> dict[str, str]:
    text = msgspec.json.encode(value)
    padded = text.ljust(-len(text) // BLOCK_BYTES * -BLOCK_BYTES)  # JSON may end with spaces
    nonce = os.urandom(NONCE_BYTES)
    return {"sealed": base64.b64encode(nonce + AESGCM(key).encrypt(nonce, padded, _bound_to(place))).decode()}


def open_sealed(value: Any, key: bytes | None, place: Place) -> str:
    """Raises:
    SealBroken: it is not what `seal` made for this place with this key.
    """
    if not isinstance(value, dict) or value.keys() != {"sealed"} or not isinstance(value["sealed"], str):
        raise SealBroken(f"{place[-1]} is not sealed")
    if key is None:
        return ERASED
    try:
        raw = base64.b64decode(value["sealed"], validate=True)
        text = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound_to(place))
    except (ValueError, InvalidTag):
        raise SealBroken(f"the seal of {place[-1]} is broken") from None
    return msgspec.json.decode(text, type=str)


def _bound_to(place: Place) -> bytes:
    return msgspec.json.encode(place)


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


# ── master keys ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_master_keys(text: str) -> tuple[bytes, ...]:
    """Of a setting: keys in base64 with commas between, the newest first.

    Raises:
        ValueError: one of them is not 32 bytes in base64. The message does not repeat it.
    """
    keys = []
    for number, word in enumerate(text.split(","), 1):
        try:
            plain = word.strip().rstrip("=").replace("-", "+").replace("_", "/")
            key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {number} is not 32 bytes in base64 (openssl rand -base64 32 makes one)")
        keys.append(key)
    return tuple(keys)


def wrap(key: bytes, master_key: bytes, place: Place) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(master_key).encrypt(nonce, key, _bound_to(place))


def unwrap(wrapped: bytes, master_key: bytes, place: Place) -> bytes:
    """Raises:
    SealBroken: it was wrapped for somebody else, with another master key, or was changed.
    """
    try:
        return AESGCM(master_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound_to(place))
    except (ValueError, InvalidTag):
        raise SealBroken(f"the key of {place[-1]} was not wrapped here") from None
