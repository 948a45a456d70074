"""Adds the metadata of users, accounts and transfers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("users", "accounts", "transfers")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("metadata", sa.Text(), nullable=True))


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_column(table, "metadata")
