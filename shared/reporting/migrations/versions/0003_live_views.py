"""Makes a view of each table that has only the live rows, so that nobody needs to know of generations."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = {
    "users": "id name email status created_at changed_at version position metadata",
    "accounts": "id owner_id currency status overdraft_limit posted holds opened_at changed_at version position metadata",
    "holds": (
        "id account_id to_account_id amount captured remaining currency status expires_at placed_at changed_at reference "
        "version position"
    ),
    "transfers": (
        "id kind from_account_id to_account_id amount currency occurred_at recorded_at reference hold_id reverses position "
        "metadata"
    ),
    "entries": (
        "id account_id transfer_id kind amount balance currency counterparty_account_id occurred_at recorded_at month "
        "reference position"
    ),
    "days": "id day currency kind transfers amount_billions amount_rest",
}


def upgrade() -> None:
    for table, columns in _COLUMNS.items():
        selected = ", ".join(f"{table}.{column}" for column in columns.split())
        op.execute(
            f"CREATE VIEW live_{table} AS SELECT pointers.ledger_id, {selected} FROM pointers"  # noqa: S608 # all are constants
            " JOIN generations ON generations.ledger_id = pointers.ledger_id AND generations.model = pointers.model"
            f" AND generations.number = pointers.live JOIN {table} ON {table}.generation_id = generations.id"
        )


def downgrade() -> None:
    for table in reversed(_COLUMNS):
        op.execute(f"DROP VIEW live_{table}")
