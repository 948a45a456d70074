"""The deciders for users and for their e-mail addresses.

The stream of a user is `user-<user_id>`. Each address has its own stream, `email-<hash>`. A command that gives an address to a
user appends to the stream of the address, so two users can never have the same address.
"""

import hmac
from typing import Annotated, ClassVar, Final, Literal, assert_never

import msgspec
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, StrictFields
from shared.errors import EmailTaken, IdTaken, NotFound, UserInactive, UserIsErased
from shared.ids import new_id
from shared.input_types import Id
from shared.log.events import Event
from shared.log.stream_fold import StreamFold
from shared.log.streams import email_stream, user_stream
from shared.log.user_events import (
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
    metadata_text,
)
from shared.privacy.encryption import Personal
from shared.text_types import DisplayName, EmailAddress

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class UserState(msgspec.Struct, frozen=True):
    """The state of a user. What is personal is in plain text only in the writer's memory. Snapshots store it encrypted."""

    user_id: str = ""
    name: Annotated[str, Personal("user_id")] = ""
    email: Annotated[str, Personal("user_id")] = ""
    email_hash: str = ""
    status: Literal["missing", "active", "inactive", "erased"] = "missing"
    metadata: Annotated[str, Personal("user_id")] = ""
    """See `metadata_text`."""


class EmailState(msgspec.Struct, frozen=True):
    """The state of an e-mail address. `user_id` is the user who has the address, or None if it is free."""

    user_id: str | None = None


def evolve_user(state: UserState, event: UserEvent) -> UserState:
    match event:
        case UserCreated() | UserChanged():
            return UserState(event.user_id, event.name, event.email, event.email_hash, "active", event.metadata)
        case UserDeactivated():
            return msgspec.structs.replace(state, status="inactive")
        case UserReactivated():
            return msgspec.structs.replace(state, status="active")
        case UserErased():
            return UserState(event.user_id, status="erased")
        case _:
            assert_never(event)


def evolve_email(state: EmailState, event: UserCreated | UserChanged | UserErased) -> EmailState:
    """Applies an event to the state of an address. The address becomes free when its user changes to another or is erased."""
    match event:
        case UserCreated():
            return EmailState(event.user_id)
        case UserChanged():
            return EmailState(None if state.user_id == event.user_id else event.user_id)
        case UserErased():
            return EmailState(None)
        case _:
            assert_never(event)


USER_FOLD: Final = StreamFold(2, UserState(), evolve_user)
EMAIL_FOLD: Final = StreamFold(2, EmailState(), evolve_email)


def hash_email(email: str, pepper: bytes) -> str:
    """Returns the hash that names the stream of an address. Addresses that differ only in case have the same hash.

    `pepper` is a secret of the ledger. Without the secret, nobody can guess an address and check the guess against the hash.
    """
    return hmac.digest(pepper, email.lower().encode(), "sha256").hex()[:32]


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class NewUser(StrictFields):
    """The fields of a new user. If `id` is missing, Daybook makes one."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "Ada", "email": "ada@example.com"}})

    id: Annotated[Id, Field(default_factory=new_id)]
    name: DisplayName
    email: EmailAddress
    metadata: Metadata | None = None


class CreateUser(Command):
    """Creates a user. Rejections, in this order: id-taken, email-taken."""

    user: NewUser
    email_hash: str

    def person_id(self) -> str:
        return self.user.id

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.user.id), email_stream(self.email_hash)

    def decide(self, states: States) -> list[Event]:
        user, address = (states[stream] for stream in self.streams())
        if user.status != "missing":
            raise IdTaken
        if address.user_id is not None:
            raise EmailTaken
        return [
            UserCreated(
                user_id=self.user.id,
                name=self.user.name,
                email=self.user.email,
                email_hash=self.email_hash,
                metadata=metadata_text(self.user.metadata),
            )
        ]


class UserCommand(Command):
    """The base of the commands on an existing user."""

    user_id: Id

    def person_id(self) -> str:
        return self.user_id

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)

    def require_user(self, states: States) -> UserState:
        user: UserState = states[user_stream(self.user_id)]
        if user.status == "missing":
            raise NotFound
        return user

    def require_not_erased(self, states: States) -> UserState:
        user = self.require_user(states)
        if user.status == "erased":
            raise UserIsErased
        return user


def _null_as_no_pairs(value: object) -> object:
    return {} if value is None else value


class UserChanges(StrictFields):
    """The fields to change, at least one. The new metadata replace all pairs; null, and no pairs, remove them."""

    model_config = ConfigDict(json_schema_extra={"example": {"email": "ada@example.org"}})

    name: DisplayName | None = None
    email: EmailAddress | None = None
    metadata: Annotated[Metadata | None, BeforeValidator(_null_as_no_pairs)] = None

    @model_validator(mode="after")
    def changes_something(self) -> "UserChanges":
        if self.name is None and self.email is None and self.metadata is None:
            code, message = "nothing_to_change", "Give a name, an email, metadata, or several of them"
            raise PydanticCustomError(code, message)
        return self


class ChangeUser(UserCommand):
    """Changes a user's name, address or metadata.

    Rejections, in this order: not-found, user-erased, user-inactive, email-taken.
    """

    changes: UserChanges
    email_hash: str | None = None
    """The hash of the new address, or None if the address does not change."""

    def streams(self) -> tuple[str, ...]:
        user = user_stream(self.user_id)
        return (user,) if self.email_hash is None else (user, email_stream(self.email_hash))

    def owned_streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)

    def further_streams(self, states: States) -> tuple[str, ...]:
        """Returns the stream of the user's old address if the command sets an address."""
        email_hash = states[user_stream(self.user_id)].email_hash
        return (email_stream(email_hash),) if self.changes.email and email_hash else ()

    def decide(self, states: States) -> list[Event]:
        user = self.require_not_erased(states)
        if user.status == "inactive":
            raise UserInactive
        name, email = self.changes.name or user.name, self.changes.email or user.email
        metadata = user.metadata if self.changes.metadata is None else metadata_text(self.changes.metadata)
        if (name, email, metadata) == (user.name, user.email, user.metadata):
            return []
        email_hash = self.email_hash or user.email_hash
        if email_hash != user.email_hash and states[email_stream(email_hash)].user_id is not None:
            raise EmailTaken
        return [
            UserChanged(
                user_id=self.user_id,
                name=name,
                email=email,
                email_hash=email_hash,
                email_hash_before=user.email_hash,
                metadata=metadata,
            )
        ]


class DeactivateUser(UserCommand):
    """Deactivates a user. Inactive users cannot get new accounts. To stop the movement of money, freeze the accounts instead.

    Rejections, in this order: not-found, user-erased.
    """

    def decide(self, states: States) -> list[Event]:
        return [UserDeactivated(user_id=self.user_id)] if self.require_not_erased(states).status == "active" else []


class ReactivateUser(UserCommand):
    """Makes an inactive user active again. Rejections, in this order: not-found, user-erased."""

    def decide(self, states: States) -> list[Event]:
        return [UserReactivated(user_id=self.user_id)] if self.require_not_erased(states).status == "inactive" else []


class EraseUser(UserCommand):
    """Erases a user's personal data permanently. Accounts and money stay as they are. Rejection: not-found."""

    suits_closed_ledgers: ClassVar[bool] = True

    def further_streams(self, states: States) -> tuple[str, ...]:
        """Returns the stream of the user's address, which becomes free."""
        email_hash = states[user_stream(self.user_id)].email_hash
        return (email_stream(email_hash),) if email_hash else ()

    def decide(self, states: States) -> list[Event]:
        user = self.require_user(states)
        if user.status == "erased":
            return []
        status: Literal["active", "inactive"] = "active" if user.status == "active" else "inactive"
        return [UserErased(user_id=self.user_id, email_hash=user.email_hash, status_before=status)]
