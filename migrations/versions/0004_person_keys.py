"""Creates the table of person keys, which encrypt personal fields. Deleting a key erases the person."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A deleted key must disappear from the table's file as soon as possible, so a single dead row is enough to start a vacuum.
TABLE = """
    CREATE TABLE person_keys (
        ledger_id     text  NOT NULL,
        person_id     text  NOT NULL,
        wrapped_key   bytea NOT NULL,
        master_key_id text  NOT NULL,
        CONSTRAINT person_keys_pkey PRIMARY KEY (ledger_id, person_id)
    ) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)
"""
INDEX = "CREATE INDEX person_keys_master_key_id_idx ON person_keys (master_key_id)"
# Only the owner of the table may update a row, which wraps a key with a new master key.
GRANTS = (
    "GRANT SELECT, INSERT, DELETE ON person_keys TO daybook_command",
    "GRANT SELECT ON person_keys TO daybook_projector, daybook_query",
)


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(INDEX)
    for grant in GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Deletes all person keys, without asking. All names and e-mail addresses in the log become unreadable permanently."""
    op.execute("DROP TABLE person_keys")
