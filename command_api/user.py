"""Users, and who has which e-mail address.

An address is a stream of its own: to take it is to write into that stream, so two users can never have it, whoever is first.
"""

import hashlib
from typing import Annotated, Final, Literal, assert_never

import msgspec
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from command_api.command import Command, Email, Fields, Name, States
from command_api.fold import Fold
from shared.errors import EmailTaken, IdTaken, NotFound, UserInactive
from shared.events import (
    Event,
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserEvent,
    UserReactivated,
    email_stream,
    user_stream,
)
from shared.fields import Id
from shared.ids import new_id

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class UserState(msgspec.Struct, frozen=True):
    name: str = ""
    email: str = ""
    email_hash: str = ""
    status: Literal["missing", "active", "inactive"] = "missing"


class EmailState(msgspec.Struct, frozen=True):
    user_id: str | None = None


def evolve_user(state: UserState, event: UserEvent) -> UserState:
    match event:
        case UserCreated() | UserChanged():
            return UserState(event.name, event.email, event.email_hash, "active")
        case UserDeactivated():
            return msgspec.structs.replace(state, status="inactive")
        case UserReactivated():
            return msgspec.structs.replace(state, status="active")
        case _:
            assert_never(event)


def evolve_email(state: EmailState, event: UserCreated | UserChanged) -> EmailState:
    """An address that a user gives up is free again."""
    match event:
        case UserCreated():
            return EmailState(event.user_id)
        case UserChanged():
            return EmailState(None if state.user_id == event.user_id else event.user_id)
        case _:
            assert_never(event)


USER: Final = Fold(1, UserState(), evolve_user)
EMAIL: Final = Fold(1, EmailState(), evolve_email)


def hash_email(email: str) -> str:
    """The same for all spellings of an address that mail reaches alike: case does not matter."""
    return hashlib.sha256(email.lower().encode()).hexdigest()[:32]


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class CreateUser(Command):
    """Refused, in this order: id-taken, email-taken."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "Ada", "email": "ada@example.com"}})

    id: Annotated[Id, Field(default_factory=new_id)]
    name: Name
    email: Email

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.id), email_stream(hash_email(self.email))

    def decide(self, states: States) -> list[Event]:
        user, address = (states[stream] for stream in self.streams())
        if user.status != "missing":
            raise IdTaken
        if address.user_id is not None:
            raise EmailTaken
        return [UserCreated(user_id=self.id, name=self.name, email=self.email, email_hash=hash_email(self.email))]


class UserCommand(Command):
    """A command on one user that exists."""

    user_id: Id

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)

    def user(self, states: States) -> UserState:
        user: UserState = states[user_stream(self.user_id)]
        if user.status == "missing":
            raise NotFound
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
    """Refused, in this order: not-found, user-inactive, email-taken."""

    changes: UserChanges

    def streams(self) -> tuple[str, ...]:
        user, email = user_stream(self.user_id), self.changes.email
        return (user,) if email is None else (user, email_stream(hash_email(email)))

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
        email_hash = hash_email(email)
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
    """Refused: not-found. An inactive user opens no accounts; what stops money is to freeze an account."""

    def decide(self, states: States) -> list[Event]:
        return [UserDeactivated(user_id=self.user_id)] if self.user(states).status == "active" else []


class ReactivateUser(UserCommand):
    """Refused: not-found."""

    def decide(self, states: States) -> list[Event]:
        return [UserReactivated(user_id=self.user_id)] if self.user(states).status == "inactive" else []
