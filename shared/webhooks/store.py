"""Reads and writes webhooks and their deliveries in PostgreSQL. All SQL on both tables is in this file.

A webhook has a checkpoint: `position`, up to which all its events were delivered. Only a delivery that the receiver accepted
moves it, in the transaction that records the delivery. So a process can be killed at any moment and no event is lost.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

WEBHOOKS_MAX: Final = 20
"""Per ledger."""
DELIVERIES_KEPT_DAYS: Final = 30
OUTCOME_CHARACTERS_MAX: Final = 200

_SHOWN: Final = (
    "webhook_id, url, types, streams, status, notice, position, failures, failing_since, next_attempt_at, created_at, "
    "CASE WHEN old_secret_until > now() THEN old_secret_until END"
)
_DELIVERY: Final = "delivery_id, number, position, type, status, attempts, outcome, changed_at"

_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('daybook webhooks of ' || :ledger_id, 0))")
_COUNT: Final = text("SELECT count(*) FROM webhooks WHERE ledger_id = :ledger_id")
_INSERT: Final = text("""
    INSERT INTO webhooks (ledger_id, webhook_id, url, types, streams, status, position, failures, next_attempt_at, created_at,
                          secret, master_key_id)
    SELECT ledger_id, :webhook_id, :url, :types, :streams, 'active', position, 0, now(), now(), :secret, :master_key_id
    FROM log_heads WHERE ledger_id = :ledger_id
    ON CONFLICT DO NOTHING
""")
# A webhook that is enabled again goes on after its checkpoint, so it gets everything that was recorded meanwhile.
_CHANGE: Final = text("""
    UPDATE webhooks SET url = :url, types = :types, streams = :streams, status = :status, notice = NULL, failures = 0,
           failing_since = NULL, next_attempt_at = now()
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")
_DELETE: Final = text("DELETE FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id")
_ROTATE: Final = text("""
    UPDATE webhooks SET old_secret = secret, old_master_key_id = master_key_id,
           old_secret_until = now() + make_interval(secs => :overlap_seconds), secret = :secret, master_key_id = :master_key_id
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
    RETURNING old_secret_until
""")
_READ: Final = text(f"""
    SELECT {_SHOWN} FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id > :after ORDER BY webhook_id LIMIT :limit
""")  # noqa: S608 # built of constants
_FIND: Final = text(f"""
    SELECT {_SHOWN} FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")  # noqa: S608 # built of constants
_READ_DELIVERIES: Final = text(f"""
    SELECT {_DELIVERY} FROM webhook_deliveries
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND number < :before ORDER BY number DESC LIMIT :limit
""")  # noqa: S608 # built of constants
_REQUEST: Final = text("""
    INSERT INTO webhook_deliveries (ledger_id, webhook_id, delivery_id, type, status, attempts, changed_at)
    SELECT ledger_id, webhook_id, :delivery_id, :type, 'requested', 0, now()
    FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")
_REPEAT: Final = text("""
    UPDATE webhook_deliveries SET status = 'requested', changed_at = now()
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND delivery_id = :delivery_id AND status <> 'retrying'
""")

# ── for the sender ───────────────────────────────────────────────────────────────────────────────────────────────────

# Whether two workers run does not matter: the lock belongs to one connection, and ends with it.
_LEAD: Final = text("SELECT pg_try_advisory_lock(hashtextextended('daybook sender of webhooks', 0))")
_DUE: Final = text("""
    SELECT w.ledger_id, w.webhook_id FROM webhooks w JOIN log_heads h ON h.ledger_id = w.ledger_id
    WHERE (w.status = 'active' AND w.position < h.position AND w.next_attempt_at <= now())
       OR EXISTS (SELECT FROM webhook_deliveries d
                  WHERE d.ledger_id = w.ledger_id AND d.webhook_id = w.webhook_id AND d.status = 'requested')
""")
_FIND_DUE: Final = text(f"""
    SELECT {_SHOWN} FROM webhooks
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND status = 'active' AND next_attempt_at <= now()
""")  # noqa: S608 # built of constants
_READ_RECEIVER: Final = text("""
    SELECT url, secret, master_key_id, CASE WHEN old_secret_until > now() THEN old_secret END, old_master_key_id
    FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")
_READ_REQUESTED: Final = text(f"""
    SELECT {_DELIVERY} FROM webhook_deliveries
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND status = 'requested' ORDER BY number LIMIT :limit
""")  # noqa: S608 # built of constants
_MATCHING: Final = text("""
    SELECT DISTINCT position FROM stream_events WHERE ledger_id = :ledger_id
    AND stream_id = ANY (CAST(:streams AS text[])) AND position > :after AND position <= :up_to
""")
_MOVE: Final = text("""
    UPDATE webhooks SET position = :position, failures = 0, failing_since = NULL, next_attempt_at = now()
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND position < :position
    RETURNING status = 'active'
""")
_POSTPONE: Final = text("""
    UPDATE webhooks SET failures = failures + 1, failing_since = coalesce(failing_since, now()),
           next_attempt_at = now() + make_interval(secs => :pause_seconds)
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id AND status = 'active'
    RETURNING extract(epoch FROM now() - failing_since)
""")
_DISABLE: Final = text("""
    UPDATE webhooks SET status = 'disabled', notice = :notice WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")
_RECORD: Final = text("""
    INSERT INTO webhook_deliveries (ledger_id, webhook_id, delivery_id, position, type, status, attempts, outcome, changed_at)
    SELECT ledger_id, webhook_id, :delivery_id, :position, :type, :status, 1, :outcome, now()
    FROM webhooks WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
    ON CONFLICT (ledger_id, webhook_id, delivery_id) DO UPDATE
    SET status = excluded.status, attempts = webhook_deliveries.attempts + 1, outcome = excluded.outcome, changed_at = now()
""")
_FORGET_OLD: Final = text("""
    DELETE FROM webhook_deliveries WHERE changed_at < now() - make_interval(days => :days) AND status <> 'retrying'
""")

# ── for the rotation of master keys ──────────────────────────────────────────────────────────────────────────────────

_READ_OLD_KEYS: Final = text("""
    SELECT ledger_id, webhook_id, secret, master_key_id, old_secret, old_master_key_id FROM webhooks
    WHERE master_key_id <> :master_key_id OR old_master_key_id <> :master_key_id LIMIT :limit FOR UPDATE
""")
_REWRAP: Final = text("""
    UPDATE webhooks SET secret = :secret, old_secret = :old_secret, master_key_id = :master_key_id,
           old_master_key_id = CASE WHEN CAST(:old_secret AS bytea) IS NOT NULL THEN :master_key_id END
    WHERE ledger_id = :ledger_id AND webhook_id = :webhook_id
""")

DeliveryStatus = Literal["delivered", "retrying", "failed", "requested"]


class WebhookPlace(msgspec.Struct, frozen=True):
    """Names a webhook."""

    ledger_id: str
    webhook_id: str

    def values(self, **more: Any) -> dict[str, Any]:
        return {"ledger_id": self.ledger_id, "webhook_id": self.webhook_id, **more}


class Webhook(msgspec.Struct, frozen=True):
    """A webhook without its secrets. With no `types` it gets events of all types, and with no `streams` those of all streams."""

    id: str
    url: str
    types: list[str]
    streams: list[str]
    status: str
    notice: str | None
    position: int
    failures: int
    failing_since: datetime | None
    next_attempt_at: datetime
    created_at: datetime
    old_secret_until: datetime | None


class Delivery(msgspec.Struct, frozen=True):
    """A delivery, and how its last attempt ended. `position` is None for a test, which is about no event."""

    id: str
    number: int
    position: int | None
    type: str
    status: DeliveryStatus
    attempts: int
    outcome: str | None
    changed_at: datetime


class Receiver(msgspec.Struct, frozen=True):
    """Where deliveries go, and what signs them, at this moment."""

    url: str
    secrets: "WrappedSecrets"


class WrappedSecrets(msgspec.Struct, frozen=True):
    """The secret of a webhook and, while it is rotated, the one before. Each is wrapped by the master key beside it."""

    secret: bytes
    master_key_id: str
    old_secret: bytes | None
    old_master_key_id: str | None


async def count_locked(connection: AsyncConnection, ledger_id: str) -> int:
    """Returns how many webhooks the ledger has. No other transaction can add one before this one ends."""
    await connection.execute(_LOCK, {"ledger_id": ledger_id})
    return int(await connection.scalar(_COUNT, {"ledger_id": ledger_id}) or 0)


async def insert(
    connection: AsyncConnection,
    place: WebhookPlace,
    url: str,
    types: Sequence[str],
    streams: Sequence[str],
    secret: bytes,
    key_id: str,
) -> bool:
    """Adds a webhook that gets the events after the last one. Returns False if the id is taken or there is no such ledger."""
    values = place.values(url=url, types=[*types], streams=[*streams], secret=secret, master_key_id=key_id)
    return (await connection.execute(_INSERT, values)).rowcount == 1


async def change(
    connection: AsyncConnection, place: WebhookPlace, url: str, types: Sequence[str], streams: Sequence[str], status: str
) -> None:
    await connection.execute(_CHANGE, place.values(url=url, types=[*types], streams=[*streams], status=status))


async def delete(connection: AsyncConnection, place: WebhookPlace) -> bool:
    """Deletes a webhook with its deliveries. Returns False if there is none."""
    return (await connection.execute(_DELETE, place.values())).rowcount == 1


async def rotate(
    connection: AsyncConnection, place: WebhookPlace, secret: bytes, key_id: str, overlap_seconds: int
) -> datetime | None:
    """Replaces the secret. Returns when the old one ends, or None if there is no such webhook."""
    values = place.values(secret=secret, master_key_id=key_id, overlap_seconds=overlap_seconds)
    until: datetime | None = await connection.scalar(_ROTATE, values)
    return until


async def read(connection: AsyncConnection, ledger_id: str, after: str, limit: int) -> list[Webhook]:
    """Returns the webhooks of a ledger in the order of their ids."""
    rows = await connection.execute(_READ, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [Webhook(*row) for row in rows]


async def find(connection: AsyncConnection, place: WebhookPlace) -> Webhook | None:
    row = (await connection.execute(_FIND, place.values())).one_or_none()
    return Webhook(*row) if row else None


async def read_deliveries(connection: AsyncConnection, place: WebhookPlace, before: int, limit: int) -> list[Delivery]:
    """Returns the deliveries of a webhook whose number is smaller than `before`, newest first."""
    rows = await connection.execute(_READ_DELIVERIES, place.values(before=before, limit=limit))
    return [Delivery(*row) for row in rows]


async def request_delivery(connection: AsyncConnection, place: WebhookPlace, delivery_id: str, type_name: str) -> bool:
    """Asks the worker for a delivery that is about no event. Returns False if there is no such webhook."""
    return (await connection.execute(_REQUEST, place.values(delivery_id=delivery_id, type=type_name))).rowcount == 1


async def repeat_delivery(connection: AsyncConnection, place: WebhookPlace, delivery_id: str) -> bool:
    """Asks the worker to send a delivery once more. False: there is no such delivery, or it will be anyway."""
    return (await connection.execute(_REPEAT, place.values(delivery_id=delivery_id))).rowcount == 1


async def lead(connection: AsyncConnection) -> bool:
    """Makes this connection the only one that sends, as long as it lives. Returns False if another one is."""
    return bool(await connection.scalar(_LEAD))


async def read_due(connection: AsyncConnection) -> list[WebhookPlace]:
    """Returns the webhooks of all ledgers that have something to send now."""
    return [WebhookPlace(*row) for row in await connection.execute(_DUE)]


async def find_due(connection: AsyncConnection, place: WebhookPlace) -> Webhook | None:
    """Returns the webhook if it is active and not waiting for its next attempt."""
    row = (await connection.execute(_FIND_DUE, place.values())).one_or_none()
    return Webhook(*row) if row else None


async def read_receiver(connection: AsyncConnection, place: WebhookPlace) -> Receiver | None:
    row = (await connection.execute(_READ_RECEIVER, place.values())).one_or_none()
    return Receiver(row[0], WrappedSecrets(*row[1:])) if row else None


async def read_requested(connection: AsyncConnection, place: WebhookPlace, limit: int) -> list[Delivery]:
    """Returns the deliveries that somebody asked for, oldest first."""
    return [Delivery(*row) for row in await connection.execute(_READ_REQUESTED, place.values(limit=limit))]


async def positions_in_streams(
    connection: AsyncConnection, ledger_id: str, streams: Sequence[str], after: int, up_to: int
) -> set[int]:
    """Returns the positions of the events between two positions that belong to one of these streams."""
    values = {"ledger_id": ledger_id, "streams": [*streams], "after": after, "up_to": up_to}
    return set((await connection.execute(_MATCHING, values)).scalars())


async def move(connection: AsyncConnection, place: WebhookPlace, position: int) -> bool:
    """Moves the checkpoint. Returns False if the webhook was deleted or disabled meanwhile.

    The checkpoint of a disabled one moves too: what was delivered must not be sent again when it is enabled.
    """
    return bool(await connection.scalar(_MOVE, place.values(position=position)))


async def postpone(connection: AsyncConnection, place: WebhookPlace, pause_seconds: float) -> float:
    """Plans the next attempt. Returns for how many seconds the webhook has failed."""
    return float(await connection.scalar(_POSTPONE, place.values(pause_seconds=pause_seconds)) or 0)


async def disable(connection: AsyncConnection, place: WebhookPlace, notice: str) -> None:
    await connection.execute(_DISABLE, place.values(notice=notice))


async def record_attempt(
    connection: AsyncConnection,
    place: WebhookPlace,
    delivery_id: str,
    position: int | None,
    type_name: str,
    status: DeliveryStatus,
    outcome: str,
) -> None:
    """Records how an attempt ended. `outcome` is the status of the answer, or the kind of the error."""
    values = place.values(delivery_id=delivery_id, position=position, type=type_name, status=status)
    await connection.execute(_RECORD, values | {"outcome": outcome[:OUTCOME_CHARACTERS_MAX]})


async def forget_old_deliveries(connection: AsyncConnection) -> None:
    await connection.execute(_FORGET_OLD, {"days": DELIVERIES_KEPT_DAYS})


async def read_old_secrets(
    connection: AsyncConnection, master_key_id: str, limit: int
) -> list[tuple[WebhookPlace, WrappedSecrets]]:
    """Returns webhooks of which a secret is not wrapped by this master key. Their rows stay locked."""
    rows = await connection.execute(_READ_OLD_KEYS, {"master_key_id": master_key_id, "limit": limit})
    return [(WebhookPlace(*row[:2]), WrappedSecrets(*row[2:])) for row in rows]


async def replace_secrets(
    connection: AsyncConnection, place: WebhookPlace, secret: bytes, old_secret: bytes | None, master_key_id: str
) -> None:
    """Stores the same secrets, wrapped by another master key."""
    await connection.execute(_REWRAP, place.values(secret=secret, old_secret=old_secret, master_key_id=master_key_id))
