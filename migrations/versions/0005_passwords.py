"""Passwords of users who log in. Outside the log, and never a part of it."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# As with the keys of people: what is deleted is to be gone from the table's pages as soon as may be.
TABLE = """
    CREATE TABLE passwords (
        ledger_id  text        NOT NULL,
        user_id    text        NOT NULL,
        hash       text        NOT NULL,
        version    uuid        NOT NULL,
        changed_at timestamptz NOT NULL,
        CONSTRAINT passwords_pkey PRIMARY KEY (ledger_id, user_id)
    ) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)
"""
# Who only recognises sessions never sees a hash.
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON passwords TO daybook_command",
    "GRANT SELECT (ledger_id, user_id, version) ON passwords TO daybook_query",
)


def upgrade() -> None:
    op.execute(TABLE)
    for grant in GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Everybody must be given a password anew."""
    op.execute("DROP TABLE passwords")
