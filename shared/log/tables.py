"""All tables of PostgreSQL, defined for SQLAlchemy. The migrations create them; `alembic check` compares both definitions.

`ledger_id` is the first column of nearly every primary key, because a ledger is a tenant with a log of its own. The primary keys
and indexes of each table serve these reads:

    events            an event by position, an event by id, the events of a type in order
    stream_events     the events of a stream in order; its primary key rejects a version that is taken
    streams           the head of a stream and its snapshot
    log_heads         the end of a ledger's log
    writer_leases     the process that writes to a ledger
    idempotency_keys  a stored reply, the replies about some events
    api_keys          an API key by id, the keys of a principal, the keys that a key has made
    seals             a ledger's seals in order
    seal_nodes        a range of nodes of one level of the Merkle tree
    person_keys       the key of a person, the keys that an older master key wraps
    passwords         the password of a user
    password_resets   the pending reset of a user's password, a reset by its token
    audit_records     a ledger's records in order, the last record of an act
    webhooks          a webhook by id, the webhooks of a ledger
    webhook_deliveries  the deliveries of a webhook in order, one of them, those that are old
    read_model_operations  the operations of a ledger in order, one of them, those that are open or old
    verifications     the verifications of a ledger in order, one of them, those that are open or old
    publishing        how far a ledger's events are published
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

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

# A row is updated several times a second while its ledger is used, so its page has room for new versions of it.
writer_leases = Table(
    "writer_leases",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("process_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", name="writer_leases_pkey"),
    postgresql_with={"fillfactor": 20},
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
    Index("idempotency_keys_position_idx", "ledger_id", "position"),
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
    Column("origin_key_id", Text, nullable=True),
    PrimaryKeyConstraint("key_id", name="api_keys_pkey"),
    Index("api_keys_principal_idx", "ledger_id", "principal"),
    Index("api_keys_origin_idx", "origin_key_id", postgresql_where=text("origin_key_id IS NOT NULL")),
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

# Person keys have a separate table because they are deleted: it is vacuumed right after, and long-lived backups leave it out.
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
    Column("scopes", ARRAY(Text), nullable=False),
    Column("origin_key_id", Text, nullable=False),
    PrimaryKeyConstraint("ledger_id", "user_id", name="passwords_pkey"),
)

password_resets = Table(
    "password_resets",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("origin_key_id", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "user_id", name="password_resets_pkey"),
    UniqueConstraint("token_hash", name="password_resets_token_hash_key"),
)

audit_records = Table(
    "audit_records",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("act", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("ledger_id", "position", name="audit_records_pkey"),
    Index("audit_records_act_idx", "ledger_id", "act", "position"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("webhook_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("types", ARRAY(Text), nullable=False),
    Column("streams", ARRAY(Text), nullable=False),
    Column("status", Text, nullable=False),
    Column("notice", Text, nullable=True),
    Column("position", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", DateTime(timezone=True), nullable=True),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("master_key_id", Text, nullable=False),
    Column("old_secret", LargeBinary, nullable=True),
    Column("old_master_key_id", Text, nullable=True),
    Column("old_secret_until", DateTime(timezone=True), nullable=True),
    PrimaryKeyConstraint("ledger_id", "webhook_id", name="webhooks_pkey"),
    postgresql_with={"fillfactor": 70},
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("webhook_id", Text, nullable=False),
    Column("delivery_id", Text, nullable=False),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("position", BigInteger, nullable=True),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("outcome", Text, nullable=True),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "webhook_id", "delivery_id", name="webhook_deliveries_pkey"),
    UniqueConstraint("ledger_id", "webhook_id", "number", name="webhook_deliveries_number_key"),
    ForeignKeyConstraint(
        ["ledger_id", "webhook_id"],
        ["webhooks.ledger_id", "webhooks.webhook_id"],
        name="webhook_deliveries_webhook_fkey",
        ondelete="CASCADE",
    ),
    Index("webhook_deliveries_changed_at_idx", "changed_at"),
)

read_model_operations = Table(
    "read_model_operations",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("operation_id", Text, nullable=False),
    Column("read_model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("event_position", BigInteger, nullable=True),
    Column("reason", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("events_done", BigInteger, nullable=False),
    Column("events_total", BigInteger, nullable=False),
    Column("code", Text, nullable=True),
    Column("outcome", Text, nullable=True),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "operation_id", name="read_model_operations_pkey"),
    Index("read_model_operations_status_idx", "status", "changed_at"),
)

verifications = Table(
    "verifications",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("verification_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("step", Text, nullable=True),
    Column("events_done", BigInteger, nullable=False),
    Column("events_total", BigInteger, nullable=False),
    Column("checks", JSONB, nullable=False),
    Column("outcome", Text, nullable=True),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", "verification_id", name="verifications_pkey"),
    Index("verifications_status_idx", "status", "changed_at"),
)

publishing = Table(
    "publishing",
    metadata,
    Column("ledger_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", DateTime(timezone=True), nullable=True),
    Column("cause", Text, nullable=True),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("ledger_id", name="publishing_pkey"),
    postgresql_with={"fillfactor": 70},
)
