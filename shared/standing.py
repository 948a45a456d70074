"""Whether a user may act: asked of the log itself, and so never behind it."""

from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.event_store import read_last
from shared.events import UserCreated, UserDeactivated, UserErased, UserReactivated, user_stream

Standing = Literal["missing", "active", "inactive", "erased"]

_AFTER: Final[dict[str, Standing]] = {
    UserCreated.__name__: "active",
    UserDeactivated.__name__: "inactive",
    UserReactivated.__name__: "active",
    UserErased.__name__: "erased",
}


async def standing_of(connection: AsyncConnection, ledger_id: str, user_id: str) -> Standing:
    last = await read_last(connection, ledger_id, user_stream(user_id), list(_AFTER))
    return _AFTER[last.type] if last else "missing"
