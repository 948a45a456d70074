"""Events about users. Class names and field names are the storage format: never rename one."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from shared.log.event_struct import EventStruct
from shared.log.streams import email_stream, user_stream
from shared.privacy.encryption import ERASED, Personal

OfUser = Annotated[str, Personal("user_id")]


def metadata_text(metadata: Mapping[str, str] | None) -> str:
    """Returns the pairs as a text that can be encrypted as one field: JSON with sorted keys, or an empty text without pairs."""
    return msgspec.json.encode(metadata, order="sorted").decode() if metadata else ""


def metadata_pairs(text: str) -> dict[str, str]:
    """Returns the pairs of a text that `metadata_text` made. There are none if the person was erased.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: the text has no pairs of texts.
    """
    return msgspec.json.decode(text, type=dict[str, str]) if text not in {"", ERASED} else {}


class UserCreated(EventStruct, frozen=True):
    """A user was created. `email_hash` is a keyed hash that identifies the address's stream without revealing the address.

    `metadata` is a text, see `metadata_text`, because only texts are encrypted.
    """

    user_id: str
    name: OfUser
    email: OfUser
    email_hash: str
    metadata: OfUser = ""

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.user_id), email_stream(self.email_hash)


class UserChanged(EventStruct, frozen=True):
    """A user's name, address or metadata were changed. All fields have their values after the change, except `email_hash_before`.

    `email_hash_before` identifies the stream of the previous address, which another user can take if the address changed.
    """

    user_id: str
    name: OfUser
    email: OfUser
    email_hash: str
    email_hash_before: str
    metadata: OfUser = ""

    def streams(self) -> tuple[str, ...]:
        if self.email_hash == self.email_hash_before:
            return (user_stream(self.user_id),)
        return user_stream(self.user_id), email_stream(self.email_hash_before), email_stream(self.email_hash)


class UserDeactivated(EventStruct, frozen=True):
    user_id: str

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)


class UserReactivated(EventStruct, frozen=True):
    user_id: str

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)


class UserErased(EventStruct, frozen=True):
    """A user was erased. The same transaction deletes the person key, so the user's personal data can no longer be decrypted.

    The accounts and their money stay. Another user can take the e-mail address.
    """

    user_id: str
    email_hash: str
    status_before: Literal["active", "inactive"]

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.user_id), email_stream(self.email_hash)


UserEvent = UserCreated | UserChanged | UserDeactivated | UserReactivated | UserErased
