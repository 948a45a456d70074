"""Audit records: what was done to credentials and limits, by whom, from where and when. They are append-only and hash-chained.

Events in the log say what was done to money and users. These acts are not in the log, because passwords, keys and sessions are
not part of the ledger. Each record is written in the transaction of its act. An act in Redis, such as the begin of a session, has
no transaction with PostgreSQL: its record is committed first. So an act without a record is impossible, while the last record
before a failure may tell of an act that did not come about.

A record holds ids, scopes and times, and the network in the short form that events use. It must never hold a password, a token,
an e-mail address or a name, because it is kept for ever.

The functions use the connection in their argument, and never begin or commit a transaction. All SQL on the table is in this file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.identity.access import ALL_LEDGERS, Principal
from shared.identity.client_addresses import truncated_network
from shared.log.encoding import canonical

Act = Literal[
    "key-made",
    "key-rotated",
    "key-revoked",
    "reset-token-issued",
    "password-set",
    "password-denied",
    "login-denied",
    "session-begun",
    "session-ended",
    "sessions-ended",
    "limits-changed",
    "webhook-made",
    "webhook-changed",
    "webhook-deleted",
    "webhook-secret-rotated",
    "operation-requested",
    "verification-requested",
    "verification-cancelled",
]
ACTS: Final[tuple[Act, ...]] = get_args(Act)
NO_LEDGER: Final = "-"
"""The chain of acts on ledgers that do not exist: denied logins. It is no valid ledger id, so it never belongs to a ledger."""
FIRST_HASH: Final = b""
"""The hash before the first record of a chain."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = "position, act, CAST(data AS text), CAST(metadata AS text), recorded_at, hash"

# Each chain has a lock. A transaction takes it after all its other locks, so deadlocks are impossible.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('daybook audit of ' || :ledger_id, 0))")
_LAST: Final = text("""
    SELECT position, hash, greatest(clock_timestamp(), recorded_at) FROM (
        (SELECT position, hash, recorded_at FROM audit_records WHERE ledger_id = :ledger_id ORDER BY position DESC LIMIT 1)
        UNION ALL SELECT 0, CAST('' AS bytea), to_timestamp(0)
    ) last
    ORDER BY position DESC LIMIT 1
""")
_ENDS: Final = text("""
    SELECT h.ledger_id, coalesce((SELECT max(a.position) FROM audit_records a WHERE a.ledger_id = h.ledger_id), 0)
    FROM (SELECT ledger_id FROM log_heads UNION ALL SELECT :no_ledger) h
""")
_LEDGER: Final = text("SELECT coalesce(max(ledger_id), :missing) FROM log_heads WHERE ledger_id = :ledger_id")
_INSERT: Final = text("""
    INSERT INTO audit_records (ledger_id, position, act, data, metadata, recorded_at, hash)
    VALUES (:ledger_id, :position, :act, CAST(:data AS jsonb), CAST(:metadata AS jsonb), :recorded_at, :hash)
""")
_READ_BEFORE: Final = text(f"""
    SELECT {_COLUMNS} FROM audit_records WHERE ledger_id = :ledger_id AND position < :before ORDER BY position DESC LIMIT :limit
""")  # noqa: S608 # built of constants
_READ_AFTER: Final = text(f"""
    SELECT {_COLUMNS} FROM audit_records WHERE ledger_id = :ledger_id AND position > :after ORDER BY position LIMIT :limit
""")  # noqa: S608 # built of constants
_LAST_OF_ACT: Final = text("""
    SELECT CAST(data AS text) FROM audit_records WHERE ledger_id = :ledger_id AND act = :act ORDER BY position DESC LIMIT 1
""")


class AuditHead(NamedTuple):
    """The end of a chain: the position and the hash of its last record, and PostgreSQL's clock."""

    position: int
    hash: bytes
    now: datetime


class ActCaller(msgspec.Struct, frozen=True):
    """The caller of an act, in the form of an event's metadata. A member is None if it is unknown or does not exist."""

    principal: str | None
    key_id: str | None = None
    network: str | None = None
    request_id: str | None = None

    @classmethod
    def of_request(cls, principal: Principal | None, address: str, request_id: str) -> "ActCaller":
        """Returns the caller of a request. `principal` is None if the request needs no credential."""
        name, key_id = (principal.principal, principal.key_id) if principal else (None, None)
        return cls(name, key_id, truncated_network(address), request_id)

    @classmethod
    def operator(cls, login: str) -> "ActCaller":
        """Returns the caller of a `daybook` command. `login` is the operator's login name on the machine."""
        return cls(f"operator:{login}")


class AuditRecord(msgspec.Struct, frozen=True):
    """A record as it is stored. `data` and `metadata` are JSON texts."""

    position: int
    act: str
    data: str
    metadata: str
    recorded_at: datetime
    hash: bytes

    def computed_hash(self, ledger_id: str, hash_before: bytes) -> bytes:
        """Returns the hash that the record must have after the record with `hash_before`.

        Raises:
            ValueError: `data` or `metadata` is not JSON.
        """
        stored = [msgspec.json.decode(column) for column in (self.data, self.metadata)]
        return record_hash(hash_before, ledger_id, self.position, self.act, stored[0], stored[1], self.recorded_at)


def record_hash(  # a record has that many parts, and the hash covers each of them
    hash_before: bytes, ledger_id: str, position: int, act: str, data: Any, metadata: Any, recorded_at: datetime
) -> bytes:
    """Returns the hash of one record.

    It is the SHA-256 of the previous hash followed by `["daybook-audit-1",ledger,position,act,data,metadata,microseconds]`.
    """
    microseconds = (recorded_at - _EPOCH) // timedelta(microseconds=1)
    content = canonical(("daybook-audit-1", ledger_id, position, act, data, metadata, microseconds))
    return hashlib.sha256(hash_before + content).digest()


async def read_audit_head(connection: AsyncConnection, ledger_id: str) -> AuditHead:
    """Returns the end of a chain. Its position is 0 if there are no records."""
    return AuditHead(*(await connection.execute(_LAST, {"ledger_id": ledger_id})).one())


async def read_audit_ends(connection: AsyncConnection) -> dict[str, int]:
    """Returns the last position of every chain, 0 for one without records."""
    return {row[0]: row[1] for row in await connection.execute(_ENDS, {"no_ledger": NO_LEDGER})}


async def record(connection: AsyncConnection, ledger_id: str, act: Act, data: Mapping[str, Any], caller: ActCaller) -> None:
    """Appends a record to the chain of a ledger. Call it last in a transaction, because it takes the lock of the chain."""
    await connection.execute(_LOCK, {"ledger_id": ledger_id})
    position, hash_before, now = await read_audit_head(connection, ledger_id)
    metadata = msgspec.structs.asdict(caller)
    row = {
        "ledger_id": ledger_id,
        "position": position + 1,
        "act": act,
        "data": canonical(data).decode(),
        "metadata": canonical(metadata).decode(),
        "recorded_at": now,
        "hash": record_hash(hash_before, ledger_id, position + 1, act, data, metadata, now),
    }
    await connection.execute(_INSERT, row)


async def record_anywhere(
    connection: AsyncConnection, ledger_id: str, act: Act, data: Mapping[str, Any], caller: ActCaller
) -> None:
    """Appends a record to the chain of a ledger that may not exist. Then the record goes to the chain `NO_LEDGER`.

    The statements are the same in both cases, so their time does not tell which ledgers exist.
    """
    chain = await connection.scalar(_LEDGER, {"ledger_id": ledger_id, "missing": NO_LEDGER})
    await record(connection, str(chain), act, data, caller)


async def read_before(connection: AsyncConnection, ledger_id: str, before: int, limit: int) -> list[AuditRecord]:
    """Returns the records at positions before `before`, newest first."""
    rows = await connection.execute(_READ_BEFORE, {"ledger_id": ledger_id, "before": before, "limit": limit})
    return [AuditRecord(*row) for row in rows]


async def read_after(connection: AsyncConnection, ledger_id: str, after: int, limit: int) -> Sequence[AuditRecord]:
    """Returns the records at positions after `after`, in order."""
    rows = await connection.execute(_READ_AFTER, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [AuditRecord(*row) for row in rows]


async def record_limits(connection: AsyncConnection, limits: Mapping[str, int], caller: ActCaller) -> None:
    """Records the limits of this process in each ledger whose last record of limits has others, or that has none."""
    for ledger_id in await _all_ledgers(connection):
        await connection.execute(_LOCK, {"ledger_id": ledger_id})
        last = await connection.scalar(_LAST_OF_ACT, {"ledger_id": ledger_id, "act": "limits-changed"})
        if last is None or msgspec.json.decode(last) != dict(limits):
            await record(connection, ledger_id, "limits-changed", limits, caller)


async def record_everywhere(
    connection: AsyncConnection, ledger_id: str, act: Act, data: Mapping[str, Any], caller: ActCaller
) -> None:
    """Records an act on a key: in the ledger of the key, or in each ledger if the key is for `ALL_LEDGERS`."""
    for each in await _all_ledgers(connection) if ledger_id == ALL_LEDGERS else [ledger_id]:
        await record(connection, each, act, data, caller)


async def _all_ledgers(connection: AsyncConnection) -> Sequence[str]:
    """Returns the ids of all ledgers. Their chains are locked in this order, so that deadlocks are impossible."""
    return (await connection.execute(text("SELECT ledger_id FROM log_heads ORDER BY ledger_id"))).scalars().all()
