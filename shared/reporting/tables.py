"""The tables of SQL reporting, as SQLModel classes.

A table holds the rows of all ledgers and generations. The primary key begins with `generation_id`: the `id` of a row of
`generations`. A query reads one generation, the live one (see `pointers`). Money is BIGINT in minor units. Times are RFC 3339 in
UTC, always 27 characters, so that all databases store, compare and sort them alike. The columns of a row come from the fields of
the read model `reports`; a column whose `info` says `part_of_id` comes from the row's id, split at its slashes.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
_MYSQL: Final = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_BIG_KEY: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself
ID_CHARACTERS: Final = 36


class ReportingTable(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """The base of all tables. Its `metadata` is what the migrations are compared with."""


def _text(characters: int, *, primary_key: bool = False, nullable: bool = False, part_of_id: int | None = None) -> Any:
    info = {} if part_of_id is None else {"part_of_id": part_of_id}
    return Field(sa_column_kwargs={"info": info}, sa_type=_sized(characters), primary_key=primary_key, nullable=nullable)


def _sized(characters: int) -> Any:
    return String(characters)


def _number(*, nullable: bool = False, primary_key: bool = False) -> Any:
    return Field(sa_type=BigInteger, nullable=nullable, primary_key=primary_key, sa_column_kwargs={"autoincrement": False})


def _moment(*, nullable: bool = False) -> Any:
    return _text(27, nullable=nullable)


def _metadata() -> Any:
    """Returns a field for pairs as JSON text. Its class has another name for it, because SQLAlchemy reserves `metadata`."""
    return Field(default=None, sa_column=Column("metadata", Text, nullable=True))


def _of_generation() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["generation_id"], ["generations.id"])


def _to(column: str, table: str) -> ForeignKeyConstraint:
    """Returns a foreign key to a row of the same generation."""
    return ForeignKeyConstraint(["generation_id", column], [f"{table}.generation_id", f"{table}.id"])


# ── the read model ───────────────────────────────────────────────────────────────────────────────────────────────────


class ReportedUser(ReportingTable, table=True):
    """A user. Of an erased one, `name` and `email` are empty and `metadata` is NULL. `status` is active, inactive or erased."""

    __tablename__ = "users"
    __table_args__ = (
        _of_generation(),
        Index(None, "generation_id", "name", "id"),
        Index(None, "generation_id", "created_at", "id"),
        Index(None, "generation_id", "email"),
        _MYSQL,
    )

    generation_id: int = _number(primary_key=True)
    id: str = _text(ID_CHARACTERS, primary_key=True)
    name: str = _text(200)
    email: str = _text(254)
    status: str = _text(8)
    created_at: str = _moment()
    changed_at: str = _moment()
    version: int = _number()
    position: int = _number()
    pairs: str | None = _metadata()


class ReportedAccount(ReportingTable, table=True):
    """An account. `owner_id` is a user's id. It is no foreign key: the events of the user are in another stream."""

    __tablename__ = "accounts"
    __table_args__ = (
        _of_generation(),
        Index(None, "generation_id", "owner_id", "currency"),
        Index(None, "generation_id", "currency", "posted"),
        _MYSQL,
    )

    generation_id: int = _number(primary_key=True)
    id: str = _text(ID_CHARACTERS, primary_key=True)
    owner_id: str = _text(ID_CHARACTERS)
    currency: str = _text(3)
    status: str = _text(6)
    overdraft_limit: int = _number()
    posted: int = _number()
    holds: int = _number()
    opened_at: str = _moment()
    changed_at: str = _moment()
    version: int = _number()
    position: int = _number()
    pairs: str | None = _metadata()


class ReportedHold(ReportingTable, table=True):
    """A hold on an account's money. `remaining` is what it still holds."""

    __tablename__ = "holds"
    __table_args__ = (
        _of_generation(),
        _to("account_id", "accounts"),
        Index(None, "generation_id", "account_id"),
        Index(None, "generation_id", "status", "placed_at"),
        _MYSQL,
    )

    generation_id: int = _number(primary_key=True)
    id: str = _text(ID_CHARACTERS, primary_key=True)
    account_id: str = _text(ID_CHARACTERS)
    to_account_id: str | None = _text(ID_CHARACTERS, nullable=True)
    amount: int = _number()
    captured: int = _number()
    remaining: int = _number()
    currency: str = _text(3)
    status: str = _text(8)
    expires_at: str | None = _moment(nullable=True)
    placed_at: str = _moment()
    changed_at: str = _moment()
    reference: str | None = _text(140, nullable=True)
    version: int = _number()
    position: int = _number()


class ReportedTransfer(ReportingTable, table=True):
    """A movement of money. An account of NULL is the outside world, or one of several: see the entries of the transfer."""

    __tablename__ = "transfers"
    __table_args__ = (
        _of_generation(),
        _to("from_account_id", "accounts"),
        _to("to_account_id", "accounts"),
        _to("hold_id", "holds"),
        Index(None, "generation_id", "from_account_id"),
        Index(None, "generation_id", "to_account_id"),
        Index(None, "generation_id", "hold_id"),
        Index(None, "generation_id", "occurred_at"),
        _MYSQL,
    )

    generation_id: int = _number(primary_key=True)
    id: str = _text(ID_CHARACTERS, primary_key=True)
    kind: str = _text(10)
    from_account_id: str | None = _text(ID_CHARACTERS, nullable=True)
    to_account_id: str | None = _text(ID_CHARACTERS, nullable=True)
    amount: int = _number()
    currency: str = _text(3)
    occurred_at: str = _moment()
    recorded_at: str = _moment()
    reference: str | None = _text(140, nullable=True)
    hold_id: str | None = _text(ID_CHARACTERS, nullable=True)
    reverses: str | None = _text(ID_CHARACTERS, nullable=True)
    position: int = _number()
    pairs: str | None = _metadata()


class ReportedEntry(ReportingTable, table=True):
    """A line of an account. `amount` is below 0 if the money left it. `month` is that of `occurred_at`, such as 2026-11."""

    __tablename__ = "entries"
    __table_args__ = (
        _of_generation(),
        _to("account_id", "accounts"),
        _to("transfer_id", "transfers"),
        Index(None, "generation_id", "account_id", "month"),
        Index(None, "generation_id", "transfer_id"),
        Index(None, "generation_id", "currency", "month"),
        Index(None, "generation_id", "position"),
        _MYSQL,
    )

    generation_id: int = _number(primary_key=True)
    id: str = _text(53, primary_key=True)
    account_id: str = _text(ID_CHARACTERS)
    transfer_id: str = _text(ID_CHARACTERS)
    kind: str = _text(10)
    amount: int = _number()
    balance: int = _number()
    currency: str = _text(3)
    counterparty_account_id: str | None = _text(ID_CHARACTERS, nullable=True)
    occurred_at: str = _moment()
    recorded_at: str = _moment()
    month: str = _text(7)
    reference: str | None = _text(140, nullable=True)
    position: int = _number()


class ReportedDay(ReportingTable, table=True):
    """What moved on a day, by currency and kind: `amount_billions` · 10⁹ + `amount_rest` minor units, which have no limit."""

    __tablename__ = "days"
    __table_args__ = (_of_generation(), Index(None, "generation_id", "day"), _MYSQL)

    generation_id: int = _number(primary_key=True)
    id: str = _text(40, primary_key=True)
    day: str = _text(10, part_of_id=0)
    currency: str = _text(3, part_of_id=1)
    kind: str = _text(10, part_of_id=2)
    transfers: int = _number()
    amount_billions: int = _number()
    amount_rest: int = _number()


# ── its state ────────────────────────────────────────────────────────────────────────────────────────────────────────


class StoredGeneration(ReportingTable, table=True):
    """A generation and its checkpoint: see `shared.read_models.generations`. `id` is what the rows of its data begin with."""

    __tablename__ = "generations"
    __table_args__ = (Index(None, "ledger_id", "model", "number", unique=True), _MYSQL)

    id: int | None = Field(default=None, sa_column=Column("id", _BIG_KEY, primary_key=True, autoincrement=True))
    ledger_id: str = _text(31)
    model: str = _text(63)
    number: int = _number()
    position: int = _number()
    log_hash: str = _text(64)
    model_version: int = _number()
    retired: bool = Field(sa_type=Boolean)
    paused: bool = Field(sa_type=Boolean)
    letters: int = _number()
    parked: int = _number()
    put_aside: int = _number()


class StoredPointer(ReportingTable, table=True):
    """The numbers of the generations of a read model: the live one, that which is being built, and the previous one."""

    __tablename__ = "pointers"
    __table_args__ = (_MYSQL,)

    ledger_id: str = _text(31, primary_key=True)
    model: str = _text(63, primary_key=True)
    live: int | None = _number(nullable=True)
    building: int | None = _number(nullable=True)
    previous: int | None = _number(nullable=True)


class StoredNote(ReportingTable, table=True):
    """A note beside a pointer."""

    __tablename__ = "notes"
    __table_args__ = (_MYSQL,)

    ledger_id: str = _text(31, primary_key=True)
    model: str = _text(63, primary_key=True)
    name: str = _text(20, primary_key=True)
    value: str = _text(100)


class StoredLetter(ReportingTable, table=True):
    """A dead letter, as JSON."""

    __tablename__ = "dead_letters"
    __table_args__ = (_of_generation(), _MYSQL)

    generation_id: int = _number(primary_key=True)
    position: int = _number(primary_key=True)
    letter: str = Field(sa_type=Text, nullable=False)


class StoredParkedStream(ReportingTable, table=True):
    """A stream that is parked, and the position of the event that parked it."""

    __tablename__ = "parked_streams"
    __table_args__ = (_of_generation(), _MYSQL)

    generation_id: int = _number(primary_key=True)
    stream_id: str = _text(100, primary_key=True)
    position: int = _number()


class StoredSkip(ReportingTable, table=True):
    """The position of an event that an operator left out."""

    __tablename__ = "skipped_events"
    __table_args__ = (_of_generation(), _MYSQL)

    generation_id: int = _number(primary_key=True)
    position: int = _number(primary_key=True)


METADATA: Final = ReportingTable.metadata
DATA_TABLES: Final[dict[str, Table]] = {
    name: METADATA.tables[name] for name in ("users", "accounts", "holds", "transfers", "entries", "days")
}
"""The tables of the read model's rows. A table comes after those that its foreign keys name."""
