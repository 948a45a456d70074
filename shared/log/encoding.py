"""Encodes events as canonical JSON with encrypted personal fields, and decodes stored events of every schema version.

Every schema version that was ever stored can be decoded forever. This module does no I/O, reads no clock and makes no ids.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from shared.errors import UnknownEvent
from shared.log.events import EVENT_TYPES, Event
from shared.privacy.encryption import (
    DecryptionFailed,
    EncryptionContext,
    KeysByPerson,
    decrypted_members,
    encrypted_members,
    people_in,
    personal_fields,
)

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: Final[dict[tuple[str, int], Upcaster]] = {}
"""The upcasters, by event type and old schema version. Each converts stored data to the next schema version."""

canonical: Final = msgspec.json.Encoder(order="sorted", enc_hook=int).encode
"""Encodes a value as canonical JSON: sorted keys, no white space, no floats. Equal values give the same bytes everywhere.

A value of a type that JSON does not have is written as an integer. MongoDB's driver has such a type for 64-bit integers.
"""


def encode(ledger_id: str, event_id: str, event: Event, keys: KeysByPerson) -> bytes:
    """Returns the event in the form that is stored and hashed: canonical JSON with the personal fields encrypted.

    Raises:
        KeyError: `keys` lacks the key of a person.
    """
    kind = type(event)
    if not personal_fields(kind):
        return canonical(event)
    return canonical(encrypted_members(event, _event_context(ledger_id, event_id, kind.__name__), keys))


def _event_context(ledger_id: str, event_id: str, type_name: str) -> EncryptionContext:
    return "event", ledger_id, event_id, type_name


class DecryptionKeys(msgspec.Struct, frozen=True):
    """The ids and person keys that are needed to decrypt the personal fields of one stored event."""

    ledger_id: str
    event_id: str
    keys: KeysByPerson


NO_KEYS: Final = DecryptionKeys("", "", {})
"""Decrypts nothing: every personal field reads as `ERASED`."""


def decode(type_name: str, schema_version: int, data: str | bytes, decryption: DecryptionKeys) -> Event:
    """Returns the event that is stored as this JSON, converted to the current schema version of its type.

    Raises:
        UnknownEvent: the type is unknown, the schema version is newer than this code, or the data do not fit the type.
    """
    event_type = EVENT_TYPES.get(type_name)
    if event_type is None:
        msg = f"event type {type_name!r} is unknown to this version of Daybook; deploy the code that wrote it"
        raise UnknownEvent(msg)
    try:
        if schema_version == event_type.schema_version and not personal_fields(event_type):
            return _DECODERS[type_name].decode(data)
        return _upcast(event_type, schema_version, msgspec.json.decode(data), decryption)
    except (msgspec.ValidationError, DecryptionFailed) as invalid:
        msg = f"{type_name} does not fit its definition: {invalid}"
        raise UnknownEvent(msg) from invalid


_DECODERS: Final = {name: msgspec.json.Decoder(event_type) for name, event_type in EVENT_TYPES.items()}


def _upcast(event_type: type[Event], schema_version: int, data: dict[str, Any], decryption: DecryptionKeys) -> Event:
    name = event_type.__name__
    if schema_version > event_type.schema_version:
        known = f"this code knows up to {event_type.schema_version}"
        msg = f"{name} has schema version {schema_version}, {known}; deploy the code that wrote it"
        raise UnknownEvent(msg)
    data = upcasted(name, schema_version, event_type.schema_version, data, UPCASTERS)
    context = _event_context(decryption.ledger_id, decryption.event_id, name)
    return msgspec.convert(decrypted_members(event_type, data, context, decryption.keys), event_type)


def upcasted(
    name: str, version: int, to: int, data: dict[str, Any], upcasters: Mapping[tuple[str, int], Upcaster]
) -> dict[str, Any]:
    """Returns the stored data of an event, converted step by step from schema version `version` to schema version `to`.

    Raises:
        UnknownEvent: this type of event never had one of these schema versions.
    """
    for step in range(version, to):
        if (name, step) not in upcasters:
            raise UnknownEvent(f"{name} never had schema version {version}")
        data = upcasters[name, step](data)
    return data


PERSONAL_TYPES: Final = frozenset(name for name, event_type in EVENT_TYPES.items() if personal_fields(event_type))
"""The types of events with personal fields."""


def people_in_data(type_name: str, data: str | bytes) -> set[str]:
    """Returns the ids of the people whose keys are needed to decode the stored data of an event."""
    if type_name not in PERSONAL_TYPES:
        return set()
    return people_in(EVENT_TYPES[type_name], msgspec.json.decode(data))
