"""The tables of the log, of access, of seals and of people's keys, as SQLAlchemy sees them.

Migrations make them; `alembic check` compares.
`ledger_id` leads every key: a ledger is a tenant and an ordered log of its own. Each index answers one question:

    events            one event by position; one by id; those of a type in order
    stream_events     one stream in order; and it refuses a version that is taken
    streams           the head of a stream, with what it folds to
    log_heads         the end of a ledger's log
    idempotency_keys  what a caller was answered
    api_keys          who a caller is; the keys of a name
    seals             one ledger's seals in order
    seal_nodes        some nodes of a level of the Merkle tree, in order
    person_keys       what a person's data are sealed with; those that an older master key wraps
    passwords         what a user logs in with
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA_REVISION: Final = "0005"
"""The migration that this code was written for; a test holds it against the newest one."""

metadata = MetaData()

log_heads = Table(
    "log_heads",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", name="log_heads_pkey"),
)

events = Table(
    "events",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", SmallInteger, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("ledger_id", "position", name="events_pkey"),
    UniqueConstraint("ledger_id", "event_id", name="events_event_id_key"),
    Index("events_type_idx", "ledger_id", "type", "position"),
)

stream_events = Table(
    "stream_events",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("stream_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("ledger_id", "stream_id", "version", name="stream_events_pkey"),
)

streams = Table(
    "streams",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("stream_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("fold_version", SmallInteger, nullable=False),
    Column("snapshot", JSONB, nullable=False),
    PrimaryKeyConstraint("ledger_id", "stream_id", name="streams_pkey"),
    postgresql_with={"fillfactor": 60},
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("position", BigInteger, nullable=True),
    PrimaryKeyConstraint("ledger_id", "principal", "key", name="idempotency_keys_pkey"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, nullable=False),
    Column("ledger_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("user_id", Text, nullable=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True), nullable=True),
    Column("revoked_at", DateTime(timezone=True), nullable=True),
    PrimaryKeyConstraint("key_id", name="api_keys_pkey"),
    Index("api_keys_principal_idx", "ledger_id", "principal"),
)

seals = Table(
    "seals",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("sealed_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "position", name="seals_pkey"),
)

seal_nodes = Table(
    "seal_nodes",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("ledger_id", "level", "number", name="seal_nodes_pkey"),
)

# Of its own, because it is the only one that rows are deleted from: vacuumed at once, and left out of backups that are kept long.
person_keys = Table(
    "person_keys",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("person_id", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("master_key_id", Text, nullable=False),
    PrimaryKeyConstraint("ledger_id", "person_id", name="person_keys_pkey"),
    Index("person_keys_master_key_id_idx", "master_key_id"),
)

passwords = Table(
    "passwords",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("version", Uuid, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "user_id", name="passwords_pkey"),
)
