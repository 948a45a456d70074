"""Reads and checks the status of a user in the log. Unlike a read model, the log is never behind."""

from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import NotFound, UserInactive, UserIsErased
from shared.identity.access import Principal
from shared.log.read import read_last
from shared.log.streams import user_stream
from shared.log.user_events import UserCreated, UserDeactivated, UserErased, UserReactivated

UserStatus = Literal["missing", "active", "inactive", "erased"]

_AFTER: Final[dict[str, UserStatus]] = {
    UserCreated.__name__: "active",
    UserDeactivated.__name__: "inactive",
    UserReactivated.__name__: "active",
    UserErased.__name__: "erased",
}


async def read_user_status(connection: AsyncConnection, ledger_id: str, user_id: str) -> UserStatus:
    last = await read_last(connection, ledger_id, user_stream(user_id), list(_AFTER))
    return _AFTER[last.type] if last else "missing"


async def require_own(connection: AsyncConnection, ledger_id: str, user_id: str, principal: Principal) -> None:
    """Checks that the user exists, and that the caller is either this user or not a customer.

    Raises:
        NotFound: there is no such user, or the caller is another customer.
    """
    if principal.user_id not in {None, user_id}:
        raise NotFound
    if await read_user_status(connection, ledger_id, user_id) == "missing":
        raise NotFound


async def require_active(connection: AsyncConnection, ledger_id: str, user_id: str) -> None:
    """Checks that the user is active.

    Raises:
        NotFound, UserInactive, UserIsErased: the user has another status.
    """
    match await read_user_status(connection, ledger_id, user_id):
        case "missing":
            raise NotFound
        case "inactive":
            raise UserInactive
        case "erased":
            raise UserIsErased
