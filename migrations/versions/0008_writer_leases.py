"""Creates the table of writer leases, which names the command process that writes to each ledger."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A lease is renewed several times a second, so its page has room for new versions of its row.
LEASES = """
    CREATE TABLE writer_leases (
        ledger_id  text        NOT NULL,
        term       bigint      NOT NULL,
        process_id text        NOT NULL,
        address    text        NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT writer_leases_pkey PRIMARY KEY (ledger_id)
    ) WITH (fillfactor = 20)
"""
GRANT = "GRANT SELECT, INSERT, UPDATE ON writer_leases TO daybook_command"


def upgrade() -> None:
    op.execute(LEASES)
    op.execute(GRANT)


def downgrade() -> None:
    """Drops the leases. Command processes then write for themselves."""
    op.execute("DROP TABLE writer_leases")
