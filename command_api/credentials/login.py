"""Logs users in, and ends their sessions. These acts are not in the ledger's log; they have audit records.

A login fails if nobody has the e-mail address, if the user has no password or is not active, or if the password is wrong. In all
these cases the caller gets the same answer, after the same SQL statements and one password hash. So nobody can learn which case
it was. No log line contains both an address and the result of a password check.
"""

import hmac
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from pydantic import ConfigDict, Field
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.credentials.login_throttle import LoginThrottle
from command_api.credentials.password_hashing import PasswordHasher
from command_api.domain.command_fields import StrictFields
from command_api.domain.user import hash_email
from shared.errors import LoginDenied, StoreUnavailable
from shared.identity import audit_records, passwords
from shared.identity.access import Principal
from shared.identity.audit_records import Act, ActCaller
from shared.identity.client_addresses import site_of, truncated_network
from shared.identity.passwords import StoredPassword
from shared.identity.sessions import NewSession, Sessions, new_session_id
from shared.identity.user_status import read_user_status, require_own
from shared.ids import new_id
from shared.log.encoding import NO_KEYS
from shared.log.read import read_last
from shared.log.streams import email_stream
from shared.log.user_events import UserChanged, UserCreated, UserErased
from shared.privacy.person_keys import ADDRESSES, PersonKeys
from shared.setting_values import read_secrets
from shared.settings import Settings
from shared.text_types import EmailAddress

PASSWORD_CHARACTERS_MAX: Final = 256
LOGIN_EXAMPLE: Final = "correct horse battery"

_EMAIL_EVENTS: Final = [kind.__name__ for kind in (UserCreated, UserChanged, UserErased)]

GivenPassword = Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARACTERS_MAX)]


class LoginCredentials(StrictFields):
    """The e-mail address and the password with which a user logs in."""

    model_config = ConfigDict(json_schema_extra={"example": {"email": "ada@example.com", "password": LOGIN_EXAMPLE}})

    email: EmailAddress
    password: GivenPassword = Field(repr=False)


class Login:
    """Checks passwords, and begins and ends sessions."""

    def __init__(self, engine: AsyncEngine, strangers: AsyncEngine, redis: "Redis", settings: Settings) -> None:
        """`strangers` has the connections for attempts to log in, so that these take none from callers."""
        self.sessions: Final = Sessions(engine, redis, settings)
        self._engine = engine
        self.strangers: Final = strangers
        self._secret = read_secrets(settings.secret.get_secret_value())[0].encode()
        self._person_keys = PersonKeys(settings)
        self.throttle: Final = LoginThrottle(redis)
        self.hasher: Final = PasswordHasher(settings.password_hashes_at_once)

    async def log_in(self, ledger_id: str, given: LoginCredentials, address: str, caller: ActCaller) -> tuple[str, NewSession]:
        """Checks the e-mail address and the password and begins a session. Returns the id of the user, and the session.

        `address` is the caller's IP address. The session has the scopes that the password gives, and ends with its origin.

        Raises:
            LoginDenied: the e-mail address or the password is wrong, or the user is not active.
            RateLimited: there were too many attempts from this network address.
        """
        # This must not depend on what exists, or the throttle would tell it.
        site, login = site_of(address), f"{ledger_id}:{hash_email(given.email, self._stand_in(ledger_id))}"
        await self.throttle.count_attempt(site, login)
        user_id, stored = await self._find_password(ledger_id, given.email)
        right, new_hash = await self.hasher.verify(given.password, stored.hash if stored else None)
        if not right or stored is None or user_id is None:
            async with self.strangers.begin() as connection:
                await audit_records.record_anywhere(connection, ledger_id, "login-denied", {"user_id": user_id}, caller)
            raise LoginDenied
        await self.throttle.record_success(site, login)
        session_id = new_session_id()
        begun = {"user_id": user_id, "session_id": session_id, "origin_key_id": stored.version.origin.key_id}
        async with self._engine.begin() as connection:
            if new_hash:
                await passwords.renew(connection, ledger_id, user_id, stored, new_hash)
            user = msgspec.structs.replace(caller, principal=f"user:{user_id}")
            await audit_records.record(connection, ledger_id, "session-begun", begun, user)
        session = await self.sessions.begin(ledger_id, user_id, stored.version, truncated_network(address), session_id)
        for oldest in await self.sessions.beyond_limit(ledger_id, user_id):
            await self._record(ledger_id, "session-ended", {"user_id": user_id, "session_id": oldest}, user)
            await self.sessions.end(ledger_id, user_id, oldest)
        return user_id, session

    async def end_session(self, ledger_id: str, user_id: str, session_id: str, caller: ActCaller) -> None:
        """Ends a session of a user. Does nothing if it has ended already or belongs to another user."""
        if session_id in {session.id for session in await self.sessions.all_of(ledger_id, user_id)}:
            await self._record(ledger_id, "session-ended", {"user_id": user_id, "session_id": session_id}, caller)
        await self.sessions.end(ledger_id, user_id, session_id)

    async def end_sessions(self, ledger_id: str, user_id: str, caller: ActCaller) -> None:
        """Ends all sessions of a user."""
        if ids := [session.id for session in await self.sessions.all_of(ledger_id, user_id)]:
            await self._record(ledger_id, "sessions-ended", {"user_id": user_id, "session_ids": ids}, caller)
        await self.sessions.end_all(ledger_id, user_id)

    async def require_own(self, ledger_id: str, user_id: str, principal: Principal) -> None:
        """Checks that the user exists, and that the caller is either this user or not a customer.

        Raises:
            NotFound: there is no such user, or the caller is another customer.
        """
        async with self._engine.connect() as connection:
            await require_own(connection, ledger_id, user_id, principal)

    async def forget_sessions(self, ledger_id: str, user_id: str) -> None:
        """Removes the sessions of a user from Redis, so that they are no longer listed.

        The caller must have made the sessions invalid already, because this method does nothing if Redis does not answer.
        """
        with suppress(StoreUnavailable):
            await self.sessions.end_all(ledger_id, user_id)

    def close(self) -> None:
        self.hasher.close()

    def _stand_in(self, ledger_id: str) -> bytes:
        """Returns a secret for the hashes of addresses that is always the same for a ledger, also for one that does not exist."""
        return hmac.digest(self._secret, f"login\x1f{ledger_id}".encode(), "sha256")

    async def _record(self, ledger_id: str, act: Act, data: Mapping[str, Any], caller: ActCaller) -> None:
        async with self._engine.begin() as connection:
            await audit_records.record_anywhere(connection, ledger_id, act, data, caller)

    async def _find_password(self, ledger_id: str, email: str) -> tuple[str | None, StoredPassword | None]:
        """Returns the id of the user who has the address, or None, and the stored password, or None if the user is not active.

        The SQL statements are the same in every case.
        """
        async with self.strangers.connect() as connection:
            keys = await self._person_keys.read(connection, ledger_id, [ADDRESSES])
            email_hash = hash_email(email, keys.get(ADDRESSES, self._stand_in(ledger_id)))
            owner = await _owner_of(connection, ledger_id, email_hash)
            user_id = owner or new_id()
            stored = await passwords.read(connection, ledger_id, user_id)
            status = await read_user_status(connection, ledger_id, user_id)
        return owner, stored if status == "active" else None


async def _owner_of(connection: AsyncConnection, ledger_id: str, email_hash: str) -> str | None:
    """Returns the id of the user who has the e-mail address now, or None."""
    last = await read_last(connection, ledger_id, email_stream(email_hash), _EMAIL_EVENTS)
    event = last.decoded(NO_KEYS.keys).event if last else None
    if isinstance(event, UserCreated | UserChanged) and event.email_hash == email_hash:
        return event.user_id
    return None
