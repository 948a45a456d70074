"""The keys that personal data are sealed with, one for each person; deleting one erases the person."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A deleted key is to be gone from the table's pages as soon as may be: every dead row calls for a vacuum.
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
# Nobody may change a key but the owner, who rewraps them.
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
    """Refused by nothing, and final: without the keys, every name and address in the log is erased."""
    op.execute("DROP TABLE person_keys")
