"""Lets `daybook verify` read stored replies, in the order of the events that they are about."""

from alembic import op

from shared.stores.concurrent_index import create_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# New replies have the highest positions, so an insert changes only the last page of the index.
INDEX = "idempotency_keys_position_idx"
GRANT = "GRANT SELECT ON idempotency_keys TO daybook_projector"


def upgrade() -> None:
    create_index(INDEX, on="idempotency_keys (ledger_id, position)")
    op.execute(GRANT)


def downgrade() -> None:
    """Drops the index. Stored replies stay as they are."""
    op.execute("REVOKE SELECT ON idempotency_keys FROM daybook_projector")
    op.execute(f"DROP INDEX {INDEX}")
