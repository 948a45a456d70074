"""Changes passwords and login names. A password is set by its user with the current one, or with a one-time reset token.

No other credential can set a password, because a password begins sessions that need no other credential. An operator whose key
has the scope `credentials:write` issues a reset token; the password then has the key as its origin
(`shared.identity.credential_origin`). The e-mail address is the login name, and reset tokens may be sent to it, so changing it
needs the same: the current password, or that scope.
"""

from typing import Annotated, Final

from pydantic import ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.credentials.login import LOGIN_EXAMPLE, PASSWORD_CHARACTERS_MAX, GivenPassword, Login
from command_api.domain.command_fields import StrictFields
from command_api.domain.user import UserChanges
from shared.errors import Forbidden, PasswordWrong, ResetTokenInvalid
from shared.identity import audit_records, password_resets, passwords
from shared.identity.access import Principal
from shared.identity.audit_records import ActCaller
from shared.identity.client_addresses import site_of
from shared.identity.credential_origin import Origin
from shared.identity.password_resets import RESET_TOKEN_PATTERN, NewResetToken, PasswordReset
from shared.identity.passwords import StoredPassword
from shared.identity.user_status import require_active
from shared.log.heads import lock_head

PASSWORD_CHARACTERS_MIN: Final = 12
RESET_TOKEN_EXAMPLE: Final = "dbr_" + "reset-token" * 3 + "0123456789"

Password = Annotated[str, Field(min_length=PASSWORD_CHARACTERS_MIN, max_length=PASSWORD_CHARACTERS_MAX)]


class NewPassword(StrictFields):
    """A new password, and the current one. A user who has none, or has lost it, needs a reset token."""

    model_config = ConfigDict(json_schema_extra={"example": {"password": LOGIN_EXAMPLE, "current_password": LOGIN_EXAMPLE}})

    password: Password = Field(repr=False)
    current_password: GivenPassword = Field(repr=False)


class TokenPassword(StrictFields):
    """A new password, and the reset token that allows it."""

    model_config = ConfigDict(json_schema_extra={"example": {"token": RESET_TOKEN_EXAMPLE, "password": LOGIN_EXAMPLE}})

    token: str = Field(pattern=RESET_TOKEN_PATTERN, repr=False)
    password: Password = Field(repr=False)


class UserChangesBody(UserChanges):
    """The fields to change, at least one. Customers who change the address send their password too."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "Ada Lovelace"}})

    current_password: GivenPassword | None = Field(default=None, repr=False)


class PasswordChanges:
    """Sets passwords, issues reset tokens, and checks who may change an e-mail address."""

    def __init__(self, engine: AsyncEngine, login: Login) -> None:
        self._engine = engine
        self._login = login

    async def change_password(
        self, ledger_id: str, user_id: str, new: NewPassword, principal: Principal, address: str, caller: ActCaller
    ) -> None:
        """Sets the password of a user who knows the current one, and ends all sessions of the user. `address` is an IP address.

        Raises:
            NotFound: the caller is another user.
            UserInactive, UserIsErased: an inactive or erased user cannot have a password.
            PasswordWrong: the user has another password or none.
            RateLimited: there were too many attempts from this network address.
        """
        stored = await self._require_current(ledger_id, user_id, new.current_password, principal, address, caller)
        hash_ = await self._login.hasher.hash(new.password)
        async with self._engine.begin() as connection:
            await self._lock(connection, ledger_id, user_id)
            now = await passwords.read_version(connection, ledger_id, user_id)
            if now is None or now.id != stored.version.id:
                raise PasswordWrong
            await self._put(connection, PasswordReset(ledger_id, user_id, now.origin), hash_, "current-password", caller)
        await self._login.forget_sessions(ledger_id, user_id)

    async def issue_reset_token(self, ledger_id: str, user_id: str, principal: Principal, caller: ActCaller) -> NewResetToken:
        """Issues a token with which the user's password can be set once. The password gets the caller's key as its origin.

        Raises:
            NotFound, UserInactive, UserIsErased: there is no such active user.
            Unauthorized: the caller's key has ended in the meantime.
        """
        origin = Origin.of_issuer(principal.key_id, principal.scopes)
        async with self._engine.begin() as connection:
            await self._lock(connection, ledger_id, user_id)
            issued = await password_resets.issue(connection, ledger_id, user_id, origin)
            data = {"user_id": user_id, "origin_key_id": origin.key_id, "scopes": list(origin.scopes)}
            await audit_records.record(connection, ledger_id, "reset-token-issued", data, caller)
        return issued

    async def reset_password(self, given: TokenPassword, caller: ActCaller) -> PasswordReset:
        """Sets a password with a reset token, and ends all sessions of the user. Returns what the token was for.

        Raises:
            ResetTokenInvalid: the token is not valid, or no longer.
        """
        async with self._login.strangers.connect() as connection:
            wanted = await password_resets.find(connection, given.token)
        hash_ = await self._login.hasher.hash(given.password)
        async with self._engine.begin() as connection:
            await self._lock(connection, wanted.ledger_id, wanted.user_id)
            if await password_resets.find(connection, given.token) != wanted:
                raise ResetTokenInvalid
            await password_resets.forget(connection, wanted.ledger_id, [wanted.user_id])
            await self._put(connection, wanted, hash_, "reset-token", caller)
        await self._login.forget_sessions(wanted.ledger_id, wanted.user_id)
        return wanted

    async def require_right_to_move(
        self, ledger_id: str, user_id: str, changes: UserChangesBody, principal: Principal, address: str, caller: ActCaller
    ) -> None:
        """Checks that the caller may change a user's e-mail address and metadata, if `changes` has them.

        Raises:
            Forbidden: an operator's key lacks the scope `credentials:write`, or a customer changes metadata.
            NotFound, PasswordWrong, RateLimited: as for `change_password`.
        """
        if changes.metadata is not None and principal.user_id is not None:
            msg = "Metadata are what operators find a user by. Customers cannot change them."
            raise Forbidden(msg)
        if changes.email is None:
            return
        if principal.user_id is None:
            if "credentials:write" not in principal.scopes:
                msg = "The e-mail address is the login name: to change somebody else's, a key also needs credentials:write."
                raise Forbidden(msg)
            return
        await self._require_current(ledger_id, user_id, changes.current_password or "", principal, address, caller)

    async def _require_current(
        self, ledger_id: str, user_id: str, current: str, principal: Principal, address: str, caller: ActCaller
    ) -> StoredPassword:
        """Checks the current password of the caller, and returns what is stored."""
        await self._login.require_own(ledger_id, user_id, principal)
        async with self._engine.connect() as connection:
            stored = await passwords.read(connection, ledger_id, user_id)
        site, login = site_of(address), f"{ledger_id}:password of {user_id}"
        await self._login.throttle.count_attempt(site, login)
        right, _ = await self._login.hasher.verify(current, stored.hash if stored else None)
        if not right or stored is None:
            async with self._engine.begin() as connection:
                await audit_records.record(connection, ledger_id, "password-denied", {"user_id": user_id}, caller)
            raise PasswordWrong
        await self._login.throttle.record_success(site, login)
        return stored

    async def _lock(self, connection: AsyncConnection, ledger_id: str, user_id: str) -> None:
        """Locks the ledger until the end of the transaction, and checks that the user is active.

        Commands that deactivate or erase a user take this lock too, so the status cannot change before the commit.
        """
        await lock_head(connection, ledger_id)
        await require_active(connection, ledger_id, user_id)

    async def _put(self, connection: AsyncConnection, wanted: PasswordReset, hash_: str, with_: str, caller: ActCaller) -> None:
        await passwords.put(connection, wanted.ledger_id, wanted.user_id, hash_, wanted.origin)
        data = {"user_id": wanted.user_id, "origin_key_id": wanted.origin.key_id, "with": with_}
        await audit_records.record(connection, wanted.ledger_id, "password-set", data, caller)
