"""Reads and copies stored replies, which callers got under their idempotency keys.

The statement in `shared.log.append` writes new replies together with the events. All other SQL on `idempotency_keys` is here.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.stores.postgres import Driver

PAGE_REPLIES: Final = 2_000

FIND_STORED_REPLIES: Final = text("""
    SELECT k.principal, k.key, k.request_hash, k.status, k.body, k.position
    FROM unnest(CAST(:principals AS text[]), CAST(:keys AS text[])) AS asked (principal, key)
    JOIN idempotency_keys k ON k.ledger_id = :ledger_id AND k.principal = asked.principal AND k.key = asked.key
""")

READ_STORED_REPLIES: Final = text("""
    SELECT principal, key, request_hash, status, body, position FROM idempotency_keys
    WHERE ledger_id = :ledger_id AND (principal, key) > (:principal, :key)
    ORDER BY principal, key LIMIT :limit
""")

READ_REPLIES_TO: Final = text("""
    SELECT principal, key, request_hash, status, body, position FROM idempotency_keys
    WHERE ledger_id = :ledger_id AND position BETWEEN :first AND :last
    ORDER BY position, principal, key
""")

# Only the bodies of rejections are needed. All other bodies are read in the order of their positions.
READ_REJECTIONS: Final = text("""
    SELECT principal, key, request_hash, status, CASE WHEN position IS NULL THEN body ELSE '' END, position FROM idempotency_keys
    WHERE ledger_id = :ledger_id AND (principal, key) > (:principal, :key)
    ORDER BY principal, key LIMIT :limit
""")


SmallInteger = Annotated[int, msgspec.Meta(ge=-(2**15), le=2**15 - 1)]
BigInteger = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Numbers that fit into their columns of PostgreSQL. asyncpg raises no error of its own for larger ones."""


class StoredReply(msgspec.Struct, frozen=True):
    """The reply that a caller got under an idempotency key. `position` is None if no event was recorded."""

    principal: str
    key: str
    request_hash: bytes
    status: SmallInteger
    body: bytes
    position: BigInteger | None


async def find_stored_replies(
    connection: AsyncConnection, ledger_id: str, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], StoredReply]:
    """Returns the replies that are stored for these pairs of principal and idempotency key, by (principal, key)."""
    pairs = list(keys)
    rows = await connection.execute(
        FIND_STORED_REPLIES, {"ledger_id": ledger_id, "principals": [p for p, _ in pairs], "keys": [k for _, k in pairs]}
    )
    return {(row[0], row[1]): StoredReply(*row) for row in rows}


async def read_stored_replies(
    connection: AsyncConnection, ledger_id: str, after: tuple[str, str], limit: int = PAGE_REPLIES
) -> list[StoredReply]:
    """Returns the next stored replies after a pair (principal, key), in the order of these pairs."""
    parameters = {"ledger_id": ledger_id, "principal": after[0], "key": after[1], "limit": limit}
    return [StoredReply(*row) for row in await connection.execute(READ_STORED_REPLIES, parameters)]


async def read_replies_to(connection: AsyncConnection, ledger_id: str, first: int, last: int) -> list[StoredReply]:
    """Returns the stored replies about the events from position `first` to `last`, in the order of the positions."""
    parameters = {"ledger_id": ledger_id, "first": first, "last": last}
    return [StoredReply(*row) for row in await connection.execute(READ_REPLIES_TO, parameters)]


async def read_rejections(
    connection: AsyncConnection, ledger_id: str, after: tuple[str, str], limit: int = PAGE_REPLIES
) -> list[StoredReply]:
    """Returns what `read_stored_replies` returns, but only rejections have their body."""
    parameters = {"ledger_id": ledger_id, "principal": after[0], "key": after[1], "limit": limit}
    return [StoredReply(*row) for row in await connection.execute(READ_REJECTIONS, parameters)]


async def append_stored_replies(driver: Driver, ledger_id: str, replies: Iterable[StoredReply]) -> None:
    """Writes stored replies that come from another copy of this ledger.

    Raises:
        asyncpg.DataError, asyncpg.IntegrityConstraintViolationError: PostgreSQL cannot store one of the replies.
    """
    columns = ["ledger_id", "principal", "key", "request_hash", "status", "body", "position"]
    records = [(ledger_id, *msgspec.structs.astuple(reply)) for reply in replies]
    await driver.copy_records_to_table("idempotency_keys", records=records, columns=columns)
