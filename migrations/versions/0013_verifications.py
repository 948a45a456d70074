"""Creates the table of the verifications of a ledger that operators ask for over HTTP. The worker does them."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

VERIFICATIONS = """
    CREATE TABLE verifications (
        ledger_id       text        NOT NULL,
        verification_id text        NOT NULL,
        reason          text        NOT NULL,
        principal       text        NOT NULL,
        status          text        NOT NULL,
        step            text,
        events_done     bigint      NOT NULL,
        events_total    bigint      NOT NULL,
        checks          jsonb       NOT NULL,
        outcome         text,
        requested_at    timestamptz NOT NULL,
        changed_at      timestamptz NOT NULL,
        CONSTRAINT verifications_pkey PRIMARY KEY (ledger_id, verification_id)
    )
"""
STATUS = "CREATE INDEX verifications_status_idx ON verifications (status, changed_at)"
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE (status, changed_at) ON verifications TO daybook_command",
    "GRANT SELECT, UPDATE, DELETE ON verifications TO daybook_projector",
    "GRANT SELECT ON verifications TO daybook_query",
)


def upgrade() -> None:
    for statement in (VERIFICATIONS, STATUS, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Deletes the list of verifications. Their audit records stay."""
    op.execute("DROP TABLE verifications")
