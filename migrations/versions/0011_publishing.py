"""Creates the table that says how far each ledger's events are published. It is never part of the log."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

PUBLISHING = """
    CREATE TABLE publishing (
        ledger_id       text        NOT NULL,
        position        bigint      NOT NULL,
        failures        integer     NOT NULL,
        failing_since   timestamptz,
        cause           text,
        next_attempt_at timestamptz NOT NULL,
        CONSTRAINT publishing_pkey PRIMARY KEY (ledger_id)
    ) WITH (fillfactor = 70)
"""
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE ON publishing TO daybook_projector",
    "GRANT SELECT ON publishing TO daybook_query",
)


def upgrade() -> None:
    for statement in (PUBLISHING, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Forgets what was published. After the next upgrade, everything is published again."""
    op.execute("DROP TABLE publishing")
