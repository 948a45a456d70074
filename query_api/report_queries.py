"""Asks the tables of SQL reporting. Each question sees one moment: the live generation, its position, and the rows.

The number of statements of a question never depends on the number of rows: what belongs to the rows of a page is asked for all of
them together. Imported only where DAYBOOK_REPORTING_URL is set.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.errors import Rebuilding, SchemaMismatch, StoreUnavailable
from shared.read_models.shapes import REPORTS, search_words
from shared.reporting.store import ReportingStore
from shared.reporting.tables import (
    DATA_TABLES,
    ReportedAccount,
    ReportedEntry,
    ReportedUser,
    StoredGeneration,
    StoredPointer,
)

STREAM_SECONDS_MAX: Final = 600.0
"""How long a file may take to be sent."""
ROWS_AT_ONCE: Final = 1_000
_UNIT: Final = 10**9

_USERS: Final = DATA_TABLES[str(ReportedUser.__tablename__)].c
_ACCOUNTS: Final = DATA_TABLES[str(ReportedAccount.__tablename__)].c
_ENTRIES: Final = DATA_TABLES[str(ReportedEntry.__tablename__)].c
_GENERATIONS: Final = StoredGeneration.metadata.tables[str(StoredGeneration.__tablename__)].c
_POINTERS: Final = StoredPointer.metadata.tables[str(StoredPointer.__tablename__)].c
_ENTRY_FIELDS: Final = (
    *("account_id", "transfer_id", "kind", "amount", "balance", "currency", "counterparty_account_id"),
    *("occurred_at", "recorded_at", "month", "reference", "position"),
)
_USER_FIELDS: Final = ("id", "name", "email", "status", "created_at")


class ReportPage(NamedTuple):
    """A page of a report, and how many items the report has on all pages."""

    items: list[JsonObject]
    total: int


class PageNumber(NamedTuple):
    """A page counted from 1, and how many items a page has."""

    number: int
    size: int


class ReportQueries:
    """The questions that reports ask."""

    page = PageNumber

    def __init__(self, store: ReportingStore) -> None:
        self._store = store

    # ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def users(self, view: CallerView, asked: Mapping[str, Any], page: PageNumber) -> AsOf[ReportPage]:
        """Returns users, each with the number of the accounts and their sum in each currency. Takes five statements."""

        async def look(connection: AsyncConnection, generation_id: int) -> ReportPage:
            query = _users(generation_id, asked)
            total = await _total(connection, query)
            found = await connection.execute(_paged(query.order_by(*_user_order(generation_id, asked["sort"])), page))
            users = [{name: row[name] or None for name in _USER_FIELDS} for row in found.mappings()]
            lines = await self._account_sums(connection, generation_id, [user["id"] for user in users])
            return ReportPage([user | _with_accounts(lines.get(str(user["id"]), [])) for user in users], total)

        return await self._look(view, look)

    async def _account_sums(
        self, connection: AsyncConnection, generation_id: int, owner_ids: Sequence[Any]
    ) -> dict[str, list[JsonObject]]:
        query = select(
            _ACCOUNTS.owner_id, _ACCOUNTS.currency, func.count().label("accounts"), *self._sum("sum", _ACCOUNTS.posted)
        )
        query = query.where(_ACCOUNTS.generation_id == generation_id, _ACCOUNTS.owner_id.in_(owner_ids))
        lines: dict[str, list[JsonObject]] = {}
        for row in (
            await connection.execute(query.group_by(_ACCOUNTS.owner_id, _ACCOUNTS.currency).order_by(_ACCOUNTS.currency))
        ).mappings():
            line = {"currency": row["currency"], "accounts": row["accounts"], "sum": _added_up(row, "sum")}
            lines.setdefault(row["owner_id"], []).append(line)
        return lines

    # ── totals ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def totals(self, view: CallerView, asked: Mapping[str, Any], page: PageNumber) -> AsOf[ReportPage]:
        """Returns what came in and went out, by currency and by owner or month. Takes three statements."""

        async def look(connection: AsyncConnection, generation_id: int) -> ReportPage:
            query, groups = self._totals(generation_id, asked)
            total = await _total(connection, query)
            rows = (await connection.execute(_paged(query.order_by(*groups), page))).mappings()
            return ReportPage([_total_line(row, groups) for row in rows], total)

        return await self._look(view, look)

    def _totals(self, generation_id: int, asked: Mapping[str, Any]) -> tuple[Select[Any], list[Any]]:
        groups = {"owner": [_ACCOUNTS.owner_id], "month": [_ENTRIES.month], "currency": []}[asked["by"]] + [_ENTRIES.currency]
        paid_in = case((_ENTRIES.amount > 0, _ENTRIES.amount), else_=0)
        paid_out = case((_ENTRIES.amount < 0, -_ENTRIES.amount), else_=0)
        columns = [*groups, func.count().label("entries"), *self._sum("paid_in", paid_in), *self._sum("paid_out", paid_out)]
        return _entries(columns, generation_id, asked).group_by(*groups), groups

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def entries(self, view: CallerView, asked: Mapping[str, Any], page: PageNumber) -> AsOf[ReportPage]:
        async def look(connection: AsyncConnection, generation_id: int) -> ReportPage:
            query = _entries([_ENTRIES[name] for name in _ENTRY_FIELDS], generation_id, asked)
            total = await _total(connection, query)
            rows = (await connection.execute(_paged(query.order_by(*_entry_order(asked["sort"])), page))).mappings()
            return ReportPage([dict(row) for row in rows], total)

        return await self._look(view, look)

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def rows(self, view: CallerView, report: str, asked: Mapping[str, Any]) -> AsyncIterator[list[JsonObject]]:
        """Yields all rows of a report, some at a time, as of one moment. A user has a row for each currency."""
        async with self._connected(STREAM_SECONDS_MAX) as connection:
            generation_id, _ = await _live(connection, view.ledger_id)
            query, shown = self._file(report, generation_id, asked)
            found = await connection.stream(query.execution_options(yield_per=ROWS_AT_ONCE))
            async for rows in found.mappings().partitions():
                yield [shown(row) for row in rows]

    def _file(self, report: str, generation_id: int, asked: Mapping[str, Any]) -> tuple[Select[Any], Any]:
        if report == "entries":
            query = _entries([_ENTRIES[name] for name in _ENTRY_FIELDS], generation_id, asked)
            return query.order_by(*_entry_order(asked["sort"])), dict
        if report == "totals":
            query, groups = self._totals(generation_id, asked)
            return query.order_by(*groups), lambda row: _total_line(row, groups)
        users = _users(generation_id, asked).order_by(None).subquery()
        is_own = and_(_ACCOUNTS.generation_id == generation_id, _ACCOUNTS.owner_id == users.c.id)
        columns = [*(users.c[name] for name in _USER_FIELDS), _ACCOUNTS.currency, func.count(_ACCOUNTS.id).label("accounts")]
        joined = select(*columns, *self._sum("sum", _ACCOUNTS.posted)).select_from(users).outerjoin(_ACCOUNTS.id.table, is_own)
        grouped = joined.group_by(*(users.c[name] for name in _USER_FIELDS), _ACCOUNTS.currency)
        return grouped.order_by(users.c.id, _ACCOUNTS.currency), _user_line

    # ── what all questions share ─────────────────────────────────────────────────────────────────────────────────────

    async def _look(self, view: CallerView, look: Any) -> AsOf[ReportPage]:
        async def once() -> AsOf[ReportPage]:
            try:
                async with self._connected() as connection:
                    generation_id, position = await _live(connection, view.ledger_id)
                    return AsOf(position, await look(connection, generation_id))
            except Rebuilding:
                await view.reader.require_ledger(view.ledger_id)
                raise

        return await view.fresh(REPORTS, once)

    @asynccontextmanager
    async def _connected(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._store.reading(seconds) as connection:
                yield connection
        except SchemaMismatch as mismatch:
            raise StoreUnavailable(f"The reporting database cannot be read: {mismatch.detail}.") from mismatch

    def _sum(self, name: str, column: Any) -> list[Any]:
        """Returns the columns of a sum that may be larger than a BIGINT. `_added_up` reads them.

        Only SQLite would fail at such a sum, so only there it is made of two.
        """
        if self._store.dialect != "sqlite":
            return [literal(0).label(f"{name}_billions"), func.coalesce(func.sum(column), 0).label(f"{name}_rest")]
        parts = {f"{name}_billions": column // _UNIT, f"{name}_rest": column % _UNIT}
        return [func.coalesce(func.sum(part), 0).label(label) for label, part in parts.items()]


async def _live(connection: AsyncConnection, ledger_id: str) -> tuple[int, int]:
    """Returns the id of the live generation, which its rows begin with, and its position.

    Raises:
        Rebuilding: no generation is live.
    """
    is_live = and_(
        _POINTERS.ledger_id == _GENERATIONS.ledger_id,
        _POINTERS.model == _GENERATIONS.model,
        _POINTERS.live == _GENERATIONS.number,
    )
    query = select(_GENERATIONS.id, _GENERATIONS.position).join(_POINTERS.live.table, is_live)
    found = (
        await connection.execute(query.where(_GENERATIONS.ledger_id == ledger_id, _GENERATIONS.model == REPORTS.name))
    ).first()
    if found is None:
        raise rebuilding(REPORTS)
    return found.id, found.position


async def _total(connection: AsyncConnection, query: Select[Any]) -> int:
    return await connection.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0


def _paged(query: Select[Any], page: PageNumber) -> Select[Any]:
    return query.limit(page.size).offset((page.number - 1) * page.size)


def _added_up(row: Any, name: str) -> str:
    return str(int(row[f"{name}_billions"]) * _UNIT + int(row[f"{name}_rest"]))


def _users(generation_id: int, asked: Mapping[str, Any]) -> Select[Any]:
    query = select(*(_USERS[name] for name in _USER_FIELDS)).where(_USERS.generation_id == generation_id)
    if status := asked.get("status"):
        query = query.where(_USERS.status == status)
    for word in search_words(asked.get("search") or ""):
        has_word = (func.lower(column).contains(word, autoescape=True) for column in (_USERS.name, _USERS.email))
        query = query.where(or_(*has_word))
    if currency := asked.get("currency"):
        own = select(_ACCOUNTS.id).where(_ACCOUNTS.generation_id == generation_id, _ACCOUNTS.owner_id == _USERS.id)
        query = query.where(own.where(_ACCOUNTS.currency == currency).exists())
    return query


def _user_order(generation_id: int, sort: str) -> list[Any]:
    number = select(func.count()).where(_ACCOUNTS.generation_id == generation_id, _ACCOUNTS.owner_id == _USERS.id)
    name = sort.removeprefix("-")
    column: Any = number.scalar_subquery() if name == "accounts" else _USERS[name]
    return [column.desc(), _USERS.id.desc()] if sort.startswith("-") else [column, _USERS.id]


def _with_accounts(lines: list[JsonObject]) -> JsonObject:
    return {"accounts": sum(line["accounts"] for line in lines), "sums": lines}


def _user_line(row: Any) -> JsonObject:
    line = {name: row[name] for name in (*_USER_FIELDS, "currency", "accounts")}
    return line | {"sum": _added_up(row, "sum") if row["currency"] else None}


def _entries(columns: Sequence[Any], generation_id: int, asked: Mapping[str, Any]) -> Select[Any]:
    is_its_account = and_(_ACCOUNTS.generation_id == _ENTRIES.generation_id, _ACCOUNTS.id == _ENTRIES.account_id)
    query = select(*columns).select_from(_ENTRIES.id.table).join(_ACCOUNTS.id.table, is_its_account)
    conditions: list[ColumnElement[bool]] = [_ENTRIES.generation_id == generation_id]
    for name, column in {
        "account_id": _ENTRIES.account_id,
        "owner_id": _ACCOUNTS.owner_id,
        "currency": _ENTRIES.currency,
        "kind": _ENTRIES.kind,
    }.items():
        if value := asked.get(name):
            conditions.append(column == value)
    if first := asked.get("month_gte"):
        conditions.append(_ENTRIES.month >= first)
    if last := asked.get("month_lte"):
        conditions.append(_ENTRIES.month <= last)
    return query.where(*conditions)


def _entry_order(sort: str) -> list[Any]:
    column = _ENTRIES[sort.removeprefix("-")]
    return [column.desc(), _ENTRIES.id.desc()] if sort.startswith("-") else [column, _ENTRIES.id]


def _total_line(row: Any, groups: Sequence[Any]) -> JsonObject:
    line = {column.name: row[column.name] for column in groups} | {"entries": row["entries"]}
    paid_in, paid_out = _added_up(row, "paid_in"), _added_up(row, "paid_out")
    return line | {"paid_in": paid_in, "paid_out": paid_out, "sum": str(int(paid_in) - int(paid_out))}
