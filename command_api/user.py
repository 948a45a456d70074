"""Users, and who has which e-mail address.

An address is a stream of its own: to take it is to write into that stream, so two users can never have it, whoever is first.
"""

import hmac
from typing import Annotated, Final, Literal, assert_never

import msgspec
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from command_api.command import Command, Email, Fields, Name, States
from command_api.fold import Fold
from shared.errors import EmailTaken, IdTaken, NotFound, UserInactive, UserIsErased
from shared.events import (
    Event,
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
    email_stream,
    user_stream,
)
from shared.fields import Id
from shared.ids import new_id
from shared.personal_data import Personal

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class UserState(msgspec.Struct, frozen=True):
    """Name and address are in plain in the writer's memory only; a snapshot holds them sealed."""

    user_id: str = ""
    name: Annotated[str, Personal("user_id")] = ""
    email: Annotated[str, Personal("user_id")] = ""
    email_hash: str = ""
    status: Literal["missing", "active", "inactive", "erased"] = "missing"


class EmailState(msgspec.Struct, frozen=True):
    user_id: str | None = None


def evolve_user(state: UserState, event: UserEvent) -> UserState:
    match event:
        case UserCreated() | UserChanged():
            return UserState(event.user_id, event.name, event.email, event.email_hash, "active")
        case UserDeactivated():
            return msgspec.structs.replace(state, status="inactive")
        case UserReactivated():
            return msgspec.structs.replace(state, status="active")
        case UserErased():
            return UserState(event.user_id, status="erased")
        case _:
            assert_never(event)


def evolve_email(state: EmailState, event: UserCreated | UserChanged | UserErased) -> EmailState:
    """An address that a user gives up is free again, and so is that of a user who was erased."""
    match event:
        case UserCreated():
            return EmailState(event.user_id)
        case UserChanged():
            return EmailState(None if state.user_id == event.user_id else event.user_id)
        case UserErased():
            return EmailState(None)
        case _:
            assert_never(event)


USER: Final = Fold(2, UserState(), evolve_user)
EMAIL: Final = Fold(2, EmailState(), evolve_email)


def hash_email(email: str, pepper: bytes) -> str:
    """The same for all spellings of an address that mail reaches alike: case does not matter.

    `pepper` is the ledger's, and secret: without it nobody can try out which address a hash stands for.
    """
    return hmac.digest(pepper, email.lower().encode(), "sha256").hex()[:32]


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class NewUser(Fields):
    """An id that is left out is made up."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "Ada", "email": "ada@example.com"}})

    id: Annotated[Id, Field(default_factory=new_id)]
    name: Name
    email: Email


class CreateUser(Command):
    """Refused, in this order: id-taken, email-taken."""

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
            UserCreated(user_id=self.user.id, name=self.user.name, email=self.user.email, email_hash=self.email_hash),
        ]


class UserCommand(Command):
    """A command on one user that exists."""

    user_id: Id

    def person_id(self) -> str:
        return self.user_id

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)

    def user(self, states: States) -> UserState:
        user: UserState = states[user_stream(self.user_id)]
        if user.status == "missing":
            raise NotFound
        if user.status == "erased":
            raise UserIsErased
        return user


class UserChanges(Fields):
    """At least one of the two."""

    model_config = ConfigDict(json_schema_extra={"example": {"email": "ada@example.org"}})

    name: Name | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def changes_something(self) -> "UserChanges":
        if self.name is None and self.email is None:
            code, message = "nothing_to_change", "Give a name, an email, or both"
            raise PydanticCustomError(code, message)
        return self


class ChangeUser(UserCommand):
    """Refused, in this order: not-found, user-erased, user-inactive, email-taken."""

    changes: UserChanges
    email_hash: str | None = None
    """Of the address to change to, if any."""

    def streams(self) -> tuple[str, ...]:
        user = user_stream(self.user_id)
        return (user,) if self.email_hash is None else (user, email_stream(self.email_hash))

    def owned_streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)

    def further_streams(self, states: States) -> tuple[str, ...]:
        """The address that the user gives up."""
        email_hash = states[user_stream(self.user_id)].email_hash
        return (email_stream(email_hash),) if self.changes.email and email_hash else ()

    def decide(self, states: States) -> list[Event]:
        user = self.user(states)
        if user.status == "inactive":
            raise UserInactive
        name, email = self.changes.name or user.name, self.changes.email or user.email
        if (name, email) == (user.name, user.email):
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
            )
        ]


class DeactivateUser(UserCommand):
    """Refused: not-found, user-erased. An inactive user opens no accounts; what stops money is to freeze an account."""

    def decide(self, states: States) -> list[Event]:
        return [UserDeactivated(user_id=self.user_id)] if self.user(states).status == "active" else []


class ReactivateUser(UserCommand):
    """Refused: not-found, user-erased."""

    def decide(self, states: States) -> list[Event]:
        return [UserReactivated(user_id=self.user_id)] if self.user(states).status == "inactive" else []


class EraseUser(UserCommand):
    """Refused: not-found. What was personal is gone for good; accounts and money stay as they are."""

    def further_streams(self, states: States) -> tuple[str, ...]:
        """The address, which becomes free."""
        email_hash = states[user_stream(self.user_id)].email_hash
        return (email_stream(email_hash),) if email_hash else ()

    def decide(self, states: States) -> list[Event]:
        try:
            user = self.user(states)
        except UserIsErased:
            return []
        status: Literal["active", "inactive"] = "active" if user.status == "active" else "inactive"
        return [UserErased(user_id=self.user_id, email_hash=user.email_hash, status_before=status)]
