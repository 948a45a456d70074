"""Opens the database of SQL reporting, and reads what it says of its generations. `projector.sinks.sql` writes to it.

SQLite, MariaDB (or MySQL) and PostgreSQL are used through SQLAlchemy, with the same statements. A transaction that reads sees one
moment. A transaction that writes begins with a write, so that two of them wait for each other and never fail halfway. In a store
that was opened to read only, the database refuses every write, whatever its login may do.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from sqlalchemy import ColumnElement, Row, and_, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import SchemaMismatch, SettingsInvalid
from shared.read_models.dead_letters import DeadLetter, DeadLetterSummary
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer
from shared.reporting.tables import METADATA
from shared.settings import Settings
from shared.stores.postgres import postgres_address
from shared.stores.store_errors import reading_url

REPORTING_REVISION: Final = "0003"
"""The revision of the reporting tables that this code was written for. A test compares it with the newest migration."""
VERSION_TABLE: Final = "reporting_version"
WRITE_SECONDS_MAX: Final = 60.0
"""The longest time of a transaction that writes. A server that does not answer at all is noticed by it."""

URL_VARIABLE: Final = "DAYBOOK_REPORTING_URL"
READ_URL_VARIABLE: Final = "DAYBOOK_REPORTING_READ_URL"
_DRIVERS: Final = ("sqlite+aiosqlite", "mysql+aiomysql", "postgresql+asyncpg")
_GENERATIONS: Final = METADATA.tables["generations"]
_POINTERS: Final = METADATA.tables["pointers"]
_NOTES: Final = METADATA.tables["notes"]
_LETTERS: Final = METADATA.tables["dead_letters"]
_PARKED: Final = METADATA.tables["parked_streams"]
_SKIPS: Final = METADATA.tables["skipped_events"]


@asynccontextmanager
async def open_store(settings: Settings, *, read_only: bool) -> AsyncIterator["ReportingStore"]:
    """Yields the store that DAYBOOK_REPORTING_URL or, to read only, DAYBOOK_REPORTING_READ_URL names. Sends nothing to it.

    Raises:
        SettingsInvalid: the URL cannot be read, its driver is not one of ours, or is not installed.
    """
    seconds, read_url = settings.reporting_timeout_ms / 1000, settings.reporting_read_url
    if read_only and read_url:
        engine = make_engine(read_url, seconds, read_only=True, variable=READ_URL_VARIABLE)
    else:
        engine = make_engine(settings.reporting_url or "", seconds, read_only=read_only)
    try:
        yield ReportingStore(engine, seconds)
    finally:
        await engine.dispose()


def make_engine(url: str, seconds: float, *, read_only: bool = False, variable: str = URL_VARIABLE) -> AsyncEngine:
    """Returns an engine for the database at a URL, which the variable has. `seconds` limits a connection attempt.

    With `read_only`, the database refuses every write of the engine's transactions. Raises the errors of `open_store`.
    """
    address, options = reporting_address(url, seconds, variable)
    kind = address.get_backend_name()
    if read_only and kind == "sqlite":
        address = _sqlite_to_read(address)
    if read_only and kind == "postgresql":
        options["server_settings"]["default_transaction_read_only"] = "on"
    if read_only and kind == "mysql":
        # Not by START TRANSACTION READ ONLY: a DROP TABLE would commit that transaction, and then run in one that writes.
        options["init_command"] = "SET SESSION TRANSACTION READ ONLY"
    try:
        engine = create_async_engine(address, pool_pre_ping=True, hide_parameters=True, connect_args=options)
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[sql]'`"
        raise SettingsInvalid([f"{variable}: {problem}"]) from None
    if kind == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite_to_read if read_only else _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def reporting_address(url: str, seconds: float, variable: str = URL_VARIABLE) -> tuple[URL, dict[str, Any]]:
    """Splits the URL of the reporting database into its address and the options of its driver.

    Raises:
        SettingsInvalid: the URL cannot be read, or names a driver that is not one of ours or a database in memory.
    """
    with reading_url(variable):
        address = make_url(url)
        if address.drivername == "postgresql+asyncpg":
            address, tls = postgres_address(url)
            return address, tls | {"timeout": seconds, "server_settings": {"application_name": "daybook-reporting", "jit": "off"}}
    if address.drivername not in _DRIVERS:
        raise SettingsInvalid([f"{variable}: must begin with {', '.join(f'{each}://' for each in _DRIVERS)}"])
    if address.drivername == "mysql+aiomysql":
        return address.set(query={"charset": "utf8mb4", **address.query}), {"connect_timeout": seconds}
    if address.database in {None, "", ":memory:"}:
        raise SettingsInvalid([f"{variable}: must name a file, because several processes use the database"])
    return address, {"timeout": seconds}


def _sqlite_to_read(address: URL) -> URL:
    """Returns the address of the same file, which SQLite then neither makes nor opens for writing."""
    file = str(address.database)
    if not address.query.get("uri"):
        file = f"file:{quote(str(Path(file).absolute()))}"
    return address.set(database=file, query={**address.query, "uri": "true", "mode": "ro"})


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Makes SQLite as strict and as durable as the other databases, and lets readers go on while somebody writes."""
    # secure_delete: an erased person's name must not stay in a free part of the file.
    _run_pragmas(connection, "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON")


def _prepare_sqlite_to_read(connection: Any, _: object) -> None:
    _run_pragmas(connection, "query_only = ON")


def _run_pragmas(connection: Any, *pragmas: str) -> None:
    connection.isolation_level = None  # otherwise the driver itself would begin transactions, and only before a write
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class ReportingStore:
    """An opened reporting database. Implements `shared.read_models.stored_state.OptionalStore`."""

    def __init__(self, engine: AsyncEngine, read_seconds: float) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._read_seconds = read_seconds
        # The other databases do that by default.
        self._reading = engine.execution_options(isolation_level="REPEATABLE READ") if self.dialect == "postgresql" else engine
        self._is_checked = False

    @asynccontextmanager
    async def reading(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Yields a connection that sees one moment, for `seconds` at most, by default DAYBOOK_REPORTING_TIMEOUT_MS.

        Raises:
            SchemaMismatch: the migrations of this code have not run.
            TimeoutError: the time has passed.
        """
        self._require_file()
        async with asyncio.timeout(seconds or self._read_seconds), self._reading.begin() as connection:
            await self._require_schema(connection)
            yield connection

    def _require_file(self) -> None:
        """To read only, SQLite does not make its file. Looks before the driver does, because the driver's thread fails badly."""
        address = self.engine.url
        if address.query.get("mode") == "ro" and not Path(unquote(str(address.database).removeprefix("file:"))).exists():
            raise SchemaMismatch("the file of the reporting database does not exist: run `daybook migrate`")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Yields a connection in a transaction that is committed at the end. Its first statement must be a write.

        Raises:
            TimeoutError: after `WRITE_SECONDS_MAX`. Nothing is written, unless the commit itself got no answer.
        """
        async with asyncio.timeout(WRITE_SECONDS_MAX), self.engine.begin() as connection:
            yield connection

    async def _require_schema(self, connection: AsyncConnection) -> None:
        if self._is_checked:
            return
        try:
            found = await connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 # a constant
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            found = None
        if found != REPORTING_REVISION:
            what = f"the reporting tables are {found or 'missing'}, this code needs {REPORTING_REVISION}"
            raise SchemaMismatch(f"{what}: run `daybook migrate`")
        self._is_checked = True

    # ── what the store says of a read model ──────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        async with self.reading() as connection:
            return await pointer_in(connection, model, ledger_id)

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        query = select(_NOTES.c.name, _NOTES.c.value).where(_NOTES.c.ledger_id == ledger_id, _NOTES.c.model == model.name)
        async with self.reading() as connection:
            return {row.name: row.value for row in await connection.execute(query)}

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        async with self.reading() as connection:
            found = await generation_in(connection, generation)
            if found is None:
                return None
            query = select(_SKIPS.c.position).where(_SKIPS.c.generation_id == found.id)
            skipped = frozenset(await connection.scalars(query))
        aside = DeadLetterSummary(found.letters, found.parked, found.put_aside, skipped)
        return Checkpoint(found.position, found.log_hash, found.model_version, aside)

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        query = select(_LETTERS.c.letter).where(of_generation(_LETTERS, generation)).order_by(_LETTERS.c.position)
        async with self.reading() as connection:
            return [msgspec.json.decode(letter, type=DeadLetter) for letter in await connection.scalars(query)]

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        query = select(_PARKED.c.stream_id, _PARKED.c.position).where(of_generation(_PARKED, generation))
        async with self.reading() as connection:
            return {row.stream_id: row.position for row in await connection.execute(query)}

    async def read_numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """Returns the numbers of all generations."""
        query = select(_GENERATIONS.c.number).where(_GENERATIONS.c.ledger_id == ledger_id, _GENERATIONS.c.model == model.name)
        async with self.reading() as connection:
            return {*await connection.scalars(query)}


async def pointer_in(connection: AsyncConnection, model: ReadModel, ledger_id: str) -> Pointer:
    query = select(_POINTERS.c.live, _POINTERS.c.building, _POINTERS.c.previous)
    found = (await connection.execute(query.where(_POINTERS.c.ledger_id == ledger_id, _POINTERS.c.model == model.name))).first()
    return Pointer(*found) if found else Pointer()


async def generation_in(connection: AsyncConnection, generation: Generation) -> Row[Any] | None:
    """Returns the row of a generation in the table `generations`, or None."""
    return (await connection.execute(select(_GENERATIONS).where(is_generation(generation)))).first()


async def id_of_generation(connection: AsyncConnection, generation: Generation) -> int:
    """Returns the id that the rows of a generation begin with. The generation must exist."""
    return int((await connection.execute(select(_GENERATIONS.c.id).where(is_generation(generation)))).scalar_one())


def is_generation(generation: Generation) -> ColumnElement[bool]:
    """Returns the condition for the row of a generation in the table `generations`."""
    columns = _GENERATIONS.c
    return and_(
        columns.ledger_id == generation.ledger_id,
        columns.model == generation.model.name,
        columns.number == generation.number,
    )


def of_generation(table: Any, generation: Generation) -> ColumnElement[bool]:
    """Returns the condition for the rows of a generation in another table."""
    found: ColumnElement[bool] = (
        table.c.generation_id == select(_GENERATIONS.c.id).where(is_generation(generation)).scalar_subquery()
    )
    return found
