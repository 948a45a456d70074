"""Creates the tables of seals (signed roots of the Merkle tree over a ledger's events) and of the stored tree nodes."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE seals (
        ledger_id text        NOT NULL,
        position  bigint      NOT NULL,
        root      bytea       NOT NULL,
        signature bytea       NOT NULL,
        key_id    text        NOT NULL,
        sealed_at timestamptz NOT NULL,
        CONSTRAINT seals_pkey PRIMARY KEY (ledger_id, position)
    )
    """,
    """
    CREATE TABLE seal_nodes (
        ledger_id text     NOT NULL,
        level     smallint NOT NULL,
        number    bigint   NOT NULL,
        hash      bytea    NOT NULL,
        CONSTRAINT seal_nodes_pkey PRIMARY KEY (ledger_id, level, number)
    )
    """,
)
APPEND_ONLY = """
    CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""
GRANTS = (
    "GRANT SELECT ON seals, seal_nodes TO daybook_projector, daybook_query",
    "GRANT INSERT ON seals, seal_nodes TO daybook_projector",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    for table in ("seals", "seal_nodes"):
        op.execute(APPEND_ONLY.format(table=table))
    for statement in GRANTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops all seals. Published seals stay valid. After the next upgrade, the worker seals the whole log again."""
    op.execute("DROP TABLE seals, seal_nodes")
