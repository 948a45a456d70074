"""Encrypts and decrypts personal fields. Every person has a key; deleting the key erases the person.

The definition of a field marks it as personal: `name: Annotated[str, Personal("user_id")]` belongs to the person whose id is in
the field `user_id`. The field is stored as `{"sealed": "<base64>"}`, encrypted by AES-256-GCM with a random nonce. The associated
data are the encryption context, so an encrypted value cannot be moved to another field, event, person or ledger. Without the
person key, the field reads as `ERASED`.

This module does no I/O; `shared.privacy.person_keys` stores the keys in PostgreSQL. Never encrypt personal fields anywhere else,
and never log a decrypted value.
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
"""The text that replaces a personal field after the person key was deleted."""

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
BLOCK_BYTES: Final = 64
"""Values are padded to a multiple of this many bytes, so that an encrypted value does not reveal the length of a name."""

EncryptionContext = tuple[str, ...]
"""The place that an encrypted value belongs to, such as `("event", ledger_id, event_id, type_name)`.

`encrypted_members` adds the person's id and the field's name to the context.
"""

KeysByPerson = Mapping[str, bytes]
"""Person keys, by the person's id. An erased person has no key."""


class Personal(msgspec.Struct, frozen=True):
    """Marks a text field as personal. `of` is the name of the field that contains the person's id."""

    of: str


class DecryptionFailed(ValueError):
    """An encrypted value was changed, or was encrypted in another context or with another key."""


@cache
def personal_fields(kind: type) -> Mapping[str, str]:
    """Returns the names of a struct's personal fields, each with the name of the field that contains the person's id.

    Raises:
        TypeError: a field that is marked as personal is not a text.
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
    """Returns the ids of the people whose keys are needed to encrypt these structs."""
    return {getattr(thing, of) for thing in things for name, of in personal_fields(type(thing)).items() if getattr(thing, name)}


def people_in(kind: type, members: Any) -> set[str]:
    """Returns the ids of the people whose keys are needed to decrypt a stored struct; none if `members` is not an object."""
    if not isinstance(members, dict):
        return set()
    people = (members.get(of) for name, of in personal_fields(kind).items() if members.get(name))
    return {person_id for person_id in people if isinstance(person_id, str)}


def encrypted_members(thing: msgspec.Struct, context: EncryptionContext, keys: KeysByPerson) -> dict[str, Any]:
    """Returns the members of a struct in their stored form, with personal fields encrypted. Empty fields are not encrypted."""
    members: dict[str, Any] = msgspec.to_builtins(thing)
    for name, of in personal_fields(type(thing)).items():
        if members.get(name):
            members[name] = encrypt(members[name], keys[members[of]], (*context, members[of], name))
    return members


def decrypted_members(kind: type, members: Any, context: EncryptionContext, keys: KeysByPerson) -> dict[str, Any]:
    """Returns members that `encrypted_members` made in this context, with personal fields decrypted.

    Raises:
        DecryptionFailed: a value is not encrypted, was changed, or was encrypted in another context.
    """
    if not isinstance(members, dict):
        raise DecryptionFailed("it is not an object")
    decrypted = dict(members)
    for name, of in personal_fields(kind).items():
        if decrypted.get(name):
            person_id = str(decrypted.get(of))
            decrypted[name] = decrypt(decrypted[name], keys.get(person_id), (*context, person_id, name))
    return decrypted


def encrypt(value: str, key: bytes, context: EncryptionContext) -> dict[str, str]:
    text = msgspec.json.encode(value)
    padded = text.ljust(-len(text) // BLOCK_BYTES * -BLOCK_BYTES)  # JSON may end with spaces
    nonce = os.urandom(NONCE_BYTES)
    return {"sealed": base64.b64encode(nonce + AESGCM(key).encrypt(nonce, padded, associated_data(context))).decode()}


def decrypt(value: Any, key: bytes | None, context: EncryptionContext) -> str:
    """Returns the text that was encrypted, or `ERASED` if `key` is None.

    Raises:
        DecryptionFailed: `encrypt` did not make this value in this context with this key.
    """
    if not isinstance(value, dict) or value.keys() != {"sealed"} or not isinstance(value["sealed"], str):
        raise DecryptionFailed(f"{context[-1]} is not encrypted")
    if key is None:
        return ERASED
    try:
        raw = base64.b64decode(value["sealed"], validate=True)
        text = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], associated_data(context))
    except (ValueError, InvalidTag):
        raise DecryptionFailed(f"{context[-1]} cannot be decrypted: it was changed, or it belongs to another place") from None
    return msgspec.json.decode(text, type=str)


def associated_data(context: EncryptionContext) -> bytes:
    return msgspec.json.encode(context)


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)
