"""Makes the reporting tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    _make_generations()
    _make_notes()
    _make_pointers()
    _make_accounts()
    _make_days()
    _make_dead_letters()
    _make_parked_streams()
    _make_skipped_events()
    _make_users()
    _make_holds()
    _make_transfers()
    _make_entries()


def downgrade() -> None:
    for table in (
        "entries",
        "transfers",
        "holds",
        "users",
        "skipped_events",
        "parked_streams",
        "dead_letters",
        "days",
        "accounts",
        "pointers",
        "notes",
        "generations",
    ):
        op.drop_table(table)


def _make_generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("ledger_id", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_hash", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("letters", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parked", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("put_aside", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_generations_ledger_id_model_number"), "generations", ["ledger_id", "model", "number"], unique=True)


def _make_notes() -> None:
    op.create_table(
        "notes",
        sa.Column("ledger_id", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("value", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "model", "name", name=op.f("pk_notes")),
        **_MYSQL,
    )


def _make_pointers() -> None:
    op.create_table(
        "pointers",
        sa.Column("ledger_id", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("live", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("building", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("previous", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("ledger_id", "model", name=op.f("pk_pointers")),
        **_MYSQL,
    )


def _make_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("status", sa.String(length=6), nullable=False),
        sa.Column("overdraft_limit", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("posted", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("holds", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_at", sa.String(length=27), nullable=False),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_accounts_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_accounts")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_accounts_generation_id_currency_posted"), "accounts", ["generation_id", "currency", "posted"])
    op.create_index(op.f("ix_accounts_generation_id_owner_id_currency"), "accounts", ["generation_id", "owner_id", "currency"])


def _make_days() -> None:
    op.create_table(
        "days",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("transfers", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("amount_billions", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("amount_rest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_days_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_days")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_days_generation_id_day"), "days", ["generation_id", "day"])


def _make_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("letter", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_dead_letters_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "position", name=op.f("pk_dead_letters")),
        **_MYSQL,
    )


def _make_parked_streams() -> None:
    op.create_table(
        "parked_streams",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stream_id", sa.String(length=100), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_parked_streams_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "stream_id", name=op.f("pk_parked_streams")),
        **_MYSQL,
    )


def _make_skipped_events() -> None:
    op.create_table(
        "skipped_events",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_skipped_events_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "position", name=op.f("pk_skipped_events")),
        **_MYSQL,
    )


def _make_users() -> None:
    op.create_table(
        "users",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_users_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_users")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_users_generation_id_created_at_id"), "users", ["generation_id", "created_at", "id"])
    op.create_index(op.f("ix_users_generation_id_email"), "users", ["generation_id", "email"])
    op.create_index(op.f("ix_users_generation_id_name_id"), "users", ["generation_id", "name", "id"])


def _make_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("to_account_id", sa.String(length=36), nullable=True),
        sa.Column("amount", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("captured", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("remaining", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("expires_at", sa.String(length=27), nullable=True),
        sa.Column("placed_at", sa.String(length=27), nullable=False),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.Column("reference", sa.String(length=140), nullable=True),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id", "account_id"],
            ["accounts.generation_id", "accounts.id"],
            name=op.f("fk_holds_generation_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_holds_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_holds")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_holds_generation_id_account_id"), "holds", ["generation_id", "account_id"])
    op.create_index(op.f("ix_holds_generation_id_status_placed_at"), "holds", ["generation_id", "status", "placed_at"])


def _make_transfers() -> None:
    op.create_table(
        "transfers",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("from_account_id", sa.String(length=36), nullable=True),
        sa.Column("to_account_id", sa.String(length=36), nullable=True),
        sa.Column("amount", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("occurred_at", sa.String(length=27), nullable=False),
        sa.Column("recorded_at", sa.String(length=27), nullable=False),
        sa.Column("reference", sa.String(length=140), nullable=True),
        sa.Column("hold_id", sa.String(length=36), nullable=True),
        sa.Column("reverses", sa.String(length=36), nullable=True),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id", "from_account_id"],
            ["accounts.generation_id", "accounts.id"],
            name=op.f("fk_transfers_generation_id_from_account_id"),
        ),
        sa.ForeignKeyConstraint(
            ["generation_id", "hold_id"], ["holds.generation_id", "holds.id"], name=op.f("fk_transfers_generation_id_hold_id")
        ),
        sa.ForeignKeyConstraint(
            ["generation_id", "to_account_id"],
            ["accounts.generation_id", "accounts.id"],
            name=op.f("fk_transfers_generation_id_to_account_id"),
        ),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_transfers_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_transfers")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_transfers_generation_id_from_account_id"), "transfers", ["generation_id", "from_account_id"])
    op.create_index(op.f("ix_transfers_generation_id_hold_id"), "transfers", ["generation_id", "hold_id"])
    op.create_index(op.f("ix_transfers_generation_id_occurred_at"), "transfers", ["generation_id", "occurred_at"])
    op.create_index(op.f("ix_transfers_generation_id_to_account_id"), "transfers", ["generation_id", "to_account_id"])


def _make_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=53), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("transfer_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("amount", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("balance", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("counterparty_account_id", sa.String(length=36), nullable=True),
        sa.Column("occurred_at", sa.String(length=27), nullable=False),
        sa.Column("recorded_at", sa.String(length=27), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("reference", sa.String(length=140), nullable=True),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id", "account_id"],
            ["accounts.generation_id", "accounts.id"],
            name=op.f("fk_entries_generation_id_account_id"),
        ),
        sa.ForeignKeyConstraint(
            ["generation_id", "transfer_id"],
            ["transfers.generation_id", "transfers.id"],
            name=op.f("fk_entries_generation_id_transfer_id"),
        ),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_entries_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "id", name=op.f("pk_entries")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_entries_generation_id_account_id_month"), "entries", ["generation_id", "account_id", "month"])
    op.create_index(op.f("ix_entries_generation_id_currency_month"), "entries", ["generation_id", "currency", "month"])
    op.create_index(op.f("ix_entries_generation_id_position"), "entries", ["generation_id", "position"])
    op.create_index(op.f("ix_entries_generation_id_transfer_id"), "entries", ["generation_id", "transfer_id"])
