"""Creates the log: events, their streams, heads and idempotency keys. Also creates the PostgreSQL roles of the processes."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE log_heads (
        ledger_id   text        NOT NULL,
        position    bigint      NOT NULL,
        hash        bytea       NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT log_heads_pkey PRIMARY KEY (ledger_id)
    ) WITH (fillfactor = 10)
    """,
    """
    CREATE TABLE events (
        ledger_id      text        NOT NULL,
        position       bigint      NOT NULL,
        event_id       uuid        NOT NULL,
        type           text        NOT NULL,
        schema_version smallint    NOT NULL,
        data           jsonb       NOT NULL,
        metadata       jsonb       NOT NULL,
        recorded_at    timestamptz NOT NULL,
        hash           bytea       NOT NULL,
        CONSTRAINT events_pkey PRIMARY KEY (ledger_id, position),
        CONSTRAINT events_event_id_key UNIQUE (ledger_id, event_id)
    )
    """,
    "CREATE INDEX events_type_idx ON events (ledger_id, type, position)",
    """
    CREATE TABLE stream_events (
        ledger_id text   NOT NULL,
        stream_id text   NOT NULL,
        version   bigint NOT NULL,
        position  bigint NOT NULL,
        CONSTRAINT stream_events_pkey PRIMARY KEY (ledger_id, stream_id, version)
    )
    """,
    # Part of each table page stays free. A changed row then fits on the same page, so no index changes (a heap-only update).
    """
    CREATE TABLE streams (
        ledger_id    text     NOT NULL,
        stream_id    text     NOT NULL,
        version      bigint   NOT NULL,
        position     bigint   NOT NULL,
        fold_version smallint NOT NULL,
        snapshot     jsonb    NOT NULL,
        CONSTRAINT streams_pkey PRIMARY KEY (ledger_id, stream_id)
    ) WITH (fillfactor = 60)
    """,
    """
    CREATE TABLE idempotency_keys (
        ledger_id    text     NOT NULL,
        principal    text     NOT NULL,
        key          text     NOT NULL,
        request_hash bytea    NOT NULL,
        status       smallint NOT NULL,
        body         bytea    NOT NULL,
        position     bigint,
        CONSTRAINT idempotency_keys_pkey PRIMARY KEY (ledger_id, principal, key)
    )
    """,
)

# The grants keep the processes from changing the log. The triggers keep the owner of the tables from it too. Nothing can stop a
# superuser, but the hash chain shows such a change to `daybook verify`.
REFUSE_CHANGE = """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% on % refused: the log is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
"""
APPEND_ONLY = """
    CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""

ROLES = ("daybook_command", "daybook_projector", "daybook_query")

# Roles belong to the whole PostgreSQL cluster, so the migrations of another database may have made them, or make them now.
MAKE_ROLE = """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$
"""
JOIN_ROLE = """
    DO $$ BEGIN
        IF NOT pg_has_role(current_user, '{role}', 'SET') THEN
            GRANT {role} TO CURRENT_USER;
        END IF;
    EXCEPTION WHEN unique_violation THEN NULL;
    END $$
"""
GRANTS = (
    "GRANT SELECT ON log_heads, events, stream_events, streams TO daybook_command, daybook_projector, daybook_query",
    "GRANT INSERT ON events, stream_events TO daybook_command",
    "GRANT INSERT, UPDATE ON streams, log_heads TO daybook_command",
    "GRANT SELECT, INSERT ON idempotency_keys TO daybook_command",
    "GRANT SELECT ON alembic_version TO daybook_command, daybook_projector, daybook_query",
)

FIRST_LEDGER = "INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES ('main', 0, '', now())"


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    op.execute(REFUSE_CHANGE)
    for table in ("events", "stream_events"):
        op.execute(APPEND_ONLY.format(table=table))
    for role in ROLES:
        op.execute(MAKE_ROLE.format(role=role))
        op.execute(JOIN_ROLE.format(role=role))
    for statement in GRANTS:
        op.execute(statement)
    op.execute(FIRST_LEDGER)


def downgrade() -> None:
    """Drops the tables and revokes all rights of the roles. Keeps the roles, because another database may use them."""
    op.execute("REVOKE SELECT ON alembic_version FROM daybook_command, daybook_projector, daybook_query")
    op.execute("DROP TABLE idempotency_keys, streams, stream_events, events, log_heads")
    op.execute("DROP FUNCTION refuse_change()")
