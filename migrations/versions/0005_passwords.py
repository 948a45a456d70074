"""Creates the table of password hashes of users. Passwords are never part of the log."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A deleted row must disappear from the table's file as soon as possible, as for person keys.
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
# The query API reads the version to check sessions. It cannot read a password hash.
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON passwords TO daybook_command",
    "GRANT SELECT (ledger_id, user_id, version) ON passwords TO daybook_query",
)


def upgrade() -> None:
    op.execute(TABLE)
    for grant in GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Deletes all passwords. Afterwards, every user needs a new password."""
    op.execute("DROP TABLE passwords")
