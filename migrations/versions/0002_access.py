"""Creates the table of API keys, and the PostgreSQL role that makes keys."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = """
    CREATE TABLE api_keys (
        key_id       text        NOT NULL,
        ledger_id    text        NOT NULL,
        principal    text        NOT NULL,
        user_id      text,
        scopes       text[]      NOT NULL,
        token_hash   bytea       NOT NULL,
        expires_at   timestamptz,
        created_at   timestamptz NOT NULL,
        last_used_at timestamptz,
        revoked_at   timestamptz,
        CONSTRAINT api_keys_pkey PRIMARY KEY (key_id)
    )
"""
INDEX = "CREATE INDEX api_keys_principal_idx ON api_keys (ledger_id, principal)"

# Roles belong to the whole PostgreSQL cluster, so the migrations of another database may have made them, or make them now.
MAKE_ROLE = """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'daybook_admin') THEN
            CREATE ROLE daybook_admin NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$
"""
JOIN_ROLE = """
    DO $$ BEGIN
        IF NOT pg_has_role(current_user, 'daybook_admin', 'SET') THEN
            GRANT daybook_admin TO CURRENT_USER;
        END IF;
    EXCEPTION WHEN unique_violation THEN NULL;
    END $$
"""
# The APIs can check keys. They cannot make a key, add scopes to a key, or extend its validity.
GRANTS = (
    "GRANT SELECT, UPDATE (last_used_at) ON api_keys TO daybook_command, daybook_query",
    "GRANT SELECT, INSERT, UPDATE ON api_keys TO daybook_admin",
    "GRANT SELECT ON log_heads, alembic_version TO daybook_admin",
)


def upgrade() -> None:
    for statement in (TABLE, INDEX, MAKE_ROLE, JOIN_ROLE, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drops the table and revokes all rights of the role. Keeps the role, because another database may use it."""
    op.execute("REVOKE SELECT ON log_heads, alembic_version FROM daybook_admin")
    op.execute("DROP TABLE api_keys")
