"""Creates the tables of audit records and of reset tokens. Gives each password its scopes and the key that it comes from."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

AUDIT_RECORDS = """
    CREATE TABLE audit_records (
        ledger_id   text        NOT NULL,
        position    bigint      NOT NULL,
        act         text        NOT NULL,
        data        jsonb       NOT NULL,
        metadata    jsonb       NOT NULL,
        recorded_at timestamptz NOT NULL,
        hash        bytea       NOT NULL,
        CONSTRAINT audit_records_pkey PRIMARY KEY (ledger_id, position)
    )
"""
ACTS = "CREATE INDEX audit_records_act_idx ON audit_records (ledger_id, act, position)"
APPEND_ONLY = """
    CREATE TRIGGER audit_records_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""
# A deleted row must disappear from the table's file as soon as possible, as for passwords.
RESETS = """
    CREATE TABLE password_resets (
        ledger_id     text        NOT NULL,
        user_id       text        NOT NULL,
        token_hash    bytea       NOT NULL,
        scopes        text[]      NOT NULL,
        origin_key_id text        NOT NULL,
        expires_at    timestamptz NOT NULL,
        CONSTRAINT password_resets_pkey PRIMARY KEY (ledger_id, user_id),
        CONSTRAINT password_resets_token_hash_key UNIQUE (token_hash)
    ) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)
"""
# Nobody knows which key has set the passwords that exist, so nobody can say which scopes their sessions may have.
NO_PASSWORDS = "DELETE FROM passwords"
ORIGIN = "ALTER TABLE passwords ADD COLUMN scopes text[] NOT NULL, ADD COLUMN origin_key_id text NOT NULL"
GRANTS = (
    "GRANT SELECT, INSERT ON audit_records TO daybook_command, daybook_admin",
    "GRANT SELECT ON audit_records TO daybook_projector, daybook_query",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON password_resets TO daybook_command",
    "GRANT SELECT (scopes, origin_key_id) ON passwords TO daybook_query",
)


def upgrade() -> None:
    """Deletes all passwords. Afterwards, every user needs a reset token."""
    for statement in (AUDIT_RECORDS, ACTS, APPEND_ONLY, RESETS, NO_PASSWORDS, ORIGIN, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drops the audit records and the reset tokens for good."""
    op.execute("ALTER TABLE passwords DROP COLUMN scopes, DROP COLUMN origin_key_id")
    op.execute("DROP TABLE password_resets, audit_records")
