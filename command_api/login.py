"""Logging in, passwords, and the sessions that come of it: what is known of users beside the log.

An address that nobody has, a user without a password, one who is inactive and a wrong password are answered alike, after the same
statements and the same hash. What is right or wrong is never logged with an address.
"""

import secrets
from contextlib import suppress
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.command import Email, Fields
from command_api.handler import CommandHandler
from command_api.hashing import PasswordHasher
from command_api.throttle import LoginThrottle
from command_api.user import hash_email
from shared import passwords
from shared.access import Principal
from shared.addresses import network_of, site_of
from shared.errors import LoginRefused, NotFound, PasswordWrong, StoreUnavailable, UserInactive, UserIsErased
from shared.event_store import lock_head, read_last
from shared.events import NO_KEYS, UserChanged, UserCreated, UserErased, email_stream
from shared.ids import new_id
from shared.passwords import KeptPassword
from shared.sessions import Begun, Sessions
from shared.settings import Settings
from shared.standing import Standing, standing_of

PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 256
EXAMPLE: Final = "correct horse battery"

_OF_ADDRESSES: Final = [kind.__name__ for kind in (UserCreated, UserChanged, UserErased)]

Password = Annotated[str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)]
GivenPassword = Annotated[str, Field(min_length=1, max_length=PASSWORD_MAX)]


class Credentials(Fields):
    """What a user logs in with."""

    model_config = ConfigDict(json_schema_extra={"example": {"email": "ada@example.com", "password": EXAMPLE}})

    email: Email
    password: GivenPassword = Field(repr=False)


class NewPassword(Fields):
    """A user who has a password gives it; an operator does not."""

    model_config = ConfigDict(json_schema_extra={"example": {"password": EXAMPLE, "current_password": EXAMPLE}})

    password: Password = Field(repr=False)
    current_password: GivenPassword | None = Field(default=None, repr=False)


class Login:
    """Lets users in, and keeps what that takes."""

    def __init__(self, engine: AsyncEngine, handler: CommandHandler, redis: "Redis", settings: Settings) -> None:
        self.sessions: Final = Sessions(engine, redis, settings)
        self._engine = engine
        self._handler = handler
        self._throttle = LoginThrottle(redis)
        self._hasher = PasswordHasher(settings.password_hashes_at_once)

    async def log_in(self, ledger_id: str, given: Credentials, address: str) -> tuple[str, Begun]:
        """The user's id, and a session.

        Raises:
            LoginRefused: whatever is wrong.
            RateLimited: from there, this was tried too often.
        """
        email_hash = hash_email(given.email, await self._pepper(ledger_id))
        site, account = site_of(address), f"{ledger_id}:{email_hash}"
        await self._throttle.count(site, account)
        user_id, kept = await self._find(ledger_id, email_hash)
        right, renewed = await self._hasher.verify(given.password, kept.hash if kept else None)
        if not right or kept is None:
            raise LoginRefused
        await self._throttle.succeed(site, account)
        if renewed:
            async with self._engine.begin() as connection:
                await passwords.renew(connection, ledger_id, user_id, kept, renewed)
        return user_id, await self.sessions.begin(ledger_id, user_id, kept.version, network_of(address))

    async def set_password(self, ledger_id: str, user_id: str, new: NewPassword, principal: Principal, address: str) -> None:
        """Ends all sessions of the user.

        Raises:
            NotFound, UserInactive, UserIsErased: nobody of whom this can be done, or whose own it is not.
            PasswordWrong: a customer's current password is another one.
            RateLimited: from there, this was tried too often.
        """
        await self.require_own(ledger_id, user_id, principal)
        checked = await self._check_current(ledger_id, user_id, new, address) if principal.user_id else None
        hash_ = await self._hasher.hash(new.password)
        async with self._engine.begin() as connection:
            # Nobody is deactivated or erased meanwhile: that, too, takes the head of the log.
            await lock_head(connection, ledger_id)
            _require_active(await standing_of(connection, ledger_id, user_id))
            if principal.user_id and await passwords.read_version(connection, ledger_id, user_id) != checked:
                raise PasswordWrong
            await passwords.put(connection, ledger_id, user_id, hash_)
        await self.end_sessions(ledger_id, user_id)

    async def require_own(self, ledger_id: str, user_id: str, principal: Principal) -> None:
        """Raises:
        NotFound: there is no such user, or it is not the customer who asks.
        """
        if principal.user_id not in {None, user_id}:
            raise NotFound
        async with self._engine.connect() as connection:
            if await standing_of(connection, ledger_id, user_id) == "missing":
                raise NotFound

    async def end_sessions(self, ledger_id: str, user_id: str) -> None:
        """They are worth nothing already: this is for those who list them."""
        with suppress(StoreUnavailable):
            await self.sessions.end_all(ledger_id, user_id)

    def close(self) -> None:
        self._hasher.close()

    async def _pepper(self, ledger_id: str) -> bytes:
        """A ledger that does not exist is nobody's address book."""
        try:
            return await self._handler.pepper(ledger_id)
        except NotFound:
            return secrets.token_bytes()

    async def _find(self, ledger_id: str, email_hash: str) -> tuple[str, KeptPassword | None]:
        """Who has an address, and the password unless they may not log in. The same statements, whoever it is."""
        async with self._engine.connect() as connection:
            owner = await _owner_of(connection, ledger_id, email_hash)
            user_id = owner or new_id()
            kept = await passwords.read(connection, ledger_id, user_id)
            standing = await standing_of(connection, ledger_id, user_id)
        return user_id, kept if standing == "active" else None

    async def _check_current(self, ledger_id: str, user_id: str, new: NewPassword, address: str) -> str | None:
        """The version of the password that was given; None where there is none."""
        async with self._engine.connect() as connection:
            kept = await passwords.read(connection, ledger_id, user_id)
        if kept is None:
            return None
        site, account = site_of(address), f"{ledger_id}:password of {user_id}"
        await self._throttle.count(site, account)
        right, _ = await self._hasher.verify(new.current_password or "", kept.hash)
        if not right:
            raise PasswordWrong
        await self._throttle.succeed(site, account)
        return kept.version


def _require_active(standing: Standing) -> None:
    match standing:
        case "missing":
            raise NotFound
        case "inactive":
            raise UserInactive
        case "erased":
            raise UserIsErased


async def _owner_of(connection: AsyncConnection, ledger_id: str, email_hash: str) -> str | None:
    last = await read_last(connection, ledger_id, email_stream(email_hash), _OF_ADDRESSES)
    event = last.decoded(NO_KEYS.keys).event if last else None
    if isinstance(event, UserCreated | UserChanged) and event.email_hash == email_hash:
        return event.user_id
    return None
