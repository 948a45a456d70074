"""Creates the tables of webhooks and of their deliveries. They say where events are sent, and are never part of the log."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WEBHOOKS = """
    CREATE TABLE webhooks (
        ledger_id       text        NOT NULL,
        webhook_id      text        NOT NULL,
        url             text        NOT NULL,
        types           text[]      NOT NULL,
        streams         text[]      NOT NULL,
        status          text        NOT NULL,
        notice          text,
        position        bigint      NOT NULL,
        failures        integer     NOT NULL,
        failing_since   timestamptz,
        next_attempt_at timestamptz NOT NULL,
        created_at      timestamptz NOT NULL,
        secret          bytea       NOT NULL,
        master_key_id   text        NOT NULL,
        old_secret      bytea,
        old_master_key_id text,
        old_secret_until timestamptz,
        CONSTRAINT webhooks_pkey PRIMARY KEY (ledger_id, webhook_id)
    ) WITH (fillfactor = 70)
"""
DELIVERIES = """
    CREATE TABLE webhook_deliveries (
        ledger_id   text        NOT NULL,
        webhook_id  text        NOT NULL,
        delivery_id text        NOT NULL,
        number      bigint      GENERATED ALWAYS AS IDENTITY,
        position    bigint,
        type        text        NOT NULL,
        status      text        NOT NULL,
        attempts    integer     NOT NULL,
        outcome     text,
        changed_at  timestamptz NOT NULL,
        CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (ledger_id, webhook_id, delivery_id),
        CONSTRAINT webhook_deliveries_number_key UNIQUE (ledger_id, webhook_id, number),
        CONSTRAINT webhook_deliveries_webhook_fkey FOREIGN KEY (ledger_id, webhook_id) REFERENCES webhooks ON DELETE CASCADE
    )
"""
AGE = "CREATE INDEX webhook_deliveries_changed_at_idx ON webhook_deliveries (changed_at)"
# The query API shows webhooks. It cannot read a secret.
SHOWN = (
    "ledger_id, webhook_id, url, types, streams, status, notice, position, failures, failing_since, next_attempt_at, created_at"
)
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks, webhook_deliveries TO daybook_command",
    "GRANT SELECT, UPDATE ON webhooks TO daybook_projector",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO daybook_projector",
    f"GRANT SELECT ({SHOWN}, old_secret_until) ON webhooks TO daybook_query",
    "GRANT SELECT ON webhook_deliveries TO daybook_query",
)


def upgrade() -> None:
    for statement in (WEBHOOKS, DELIVERIES, AGE, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Deletes all webhooks, and what was sent to them."""
    op.execute("DROP TABLE webhook_deliveries, webhooks")
