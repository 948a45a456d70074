"""Creates the table of the operations on read models that operators ask for over HTTP. The worker does them."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OPERATIONS = """
    CREATE TABLE read_model_operations (
        ledger_id      text        NOT NULL,
        operation_id   text        NOT NULL,
        read_model     text        NOT NULL,
        kind           text        NOT NULL,
        event_position bigint,
        reason         text        NOT NULL,
        principal      text        NOT NULL,
        status         text        NOT NULL,
        events_done    bigint      NOT NULL,
        events_total   bigint      NOT NULL,
        code           text,
        outcome        text,
        requested_at   timestamptz NOT NULL,
        changed_at     timestamptz NOT NULL,
        CONSTRAINT read_model_operations_pkey PRIMARY KEY (ledger_id, operation_id)
    )
"""
STATUS = "CREATE INDEX read_model_operations_status_idx ON read_model_operations (status, changed_at)"
GRANTS = (
    "GRANT SELECT, INSERT ON read_model_operations TO daybook_command",
    "GRANT SELECT, UPDATE, DELETE ON read_model_operations TO daybook_projector",
    "GRANT SELECT ON read_model_operations TO daybook_query",
)


def upgrade() -> None:
    for statement in (OPERATIONS, STATUS, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Deletes the list of operations. Their audit records stay."""
    op.execute("DROP TABLE read_model_operations")
