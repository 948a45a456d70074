"""Runs one statement that a person wrote, and gives its rows to a writer in parts. The database refuses every write.

A statement is never edited. The text of an error is the database's own, so that a person can correct the statement.
"""

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import SettingsInvalid, StoreUnavailable
from shared.reporting.store import ReportingStore, make_engine
from shared.reporting_errors import StatementDenied, StatementInvalid
from shared.stores.store_errors import POSTGRES_ERRORS

CONNECT_SECONDS_MAX: Final = 10.0
ROWS_AT_ONCE: Final = 1_000
NOT_UNDERSTOOD: Final = "the reporting database does not understand this"
_DENIED: Final = frozenset(
    (
        *("25006", "28000", "28P01", "42501"),  # PostgreSQL: read-only transaction, login, password, privilege
        *(1044, 1045, 1142, 1143, 1227, 1698, 1792),  # MariaDB: database, login, table, column, privilege, login, read-only
        *("8",),  # SQLite: read-only
    )
)
_DATABASE_MISSING: Final = frozenset(("3D000", 1049))
_BUSY: Final = frozenset((1040, 1053, 1205, 1213, 1927, 1969, 3024, "5", "6", "10", "13", "14"))
"""MariaDB: too many connections, shutdown, lock, deadlock, killed, time, time. SQLite: busy, locked, I/O, full, cannot open."""
_BUSY_STATES: Final = ("08", "40", "53", "55", "57", "58")
_CLIENT_ERRORS: Final = range(2_000, 3_000)
"""The numbers of MariaDB for connections that broke."""


class RowWriter(Protocol):
    """Takes the answer of a statement: the names of its columns, then its rows, then the end."""

    def begin(self, columns: Sequence[str]) -> None: ...

    def rows(self, rows: Sequence[Sequence[Any]]) -> None:
        """Takes some rows. A cell is an int, a str, a bool, a float or None. Whole numbers are ints, however large."""

    def end(self) -> None: ...


@asynccontextmanager
async def open_to_read(url: str, variable: str) -> AsyncIterator[ReportingStore]:
    """Yields the database at a URL, which the variable has. It refuses every write. Raises the errors of `open_store`."""
    engine = make_engine(url, CONNECT_SECONDS_MAX, read_only=True, variable=variable)
    try:
        yield ReportingStore(engine, CONNECT_SECONDS_MAX)
    finally:
        await engine.dispose()


async def run_statement(store: ReportingStore, statement: str, seconds: float, writer: RowWriter) -> bool:
    """Runs one statement for `seconds` at most. Returns False, and calls no method of the writer, if it returns no rows.

    Raises:
        StatementInvalid: the database does not understand the statement, or it is several.
        StatementDenied: the statement writes, or the login may not do this.
        SettingsInvalid: there is no such database.
        SchemaMismatch: the migrations have not run.
        StoreUnavailable: the database does not answer, or not in time.
    """
    try:
        with _errors_explained():
            async with store.reading(seconds) as connection:
                return await _finished(connection, statement, writer)
    except TimeoutError:
        raise StoreUnavailable(f"the reporting database did not answer within {seconds:g} s") from None


async def _finished(connection: AsyncConnection, statement: str, writer: RowWriter) -> bool:
    """Runs the statement until its end, or until this task is cancelled."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    running = asyncio.ensure_future(connection.run_sync(_run, statement, writer))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if connection.dialect.name == "sqlite":
            await driver.interrupt()  # its statement runs in a thread, and closing the connection would wait for its end
        else:
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        raise


def _run(connection: Connection, statement: str, writer: RowWriter) -> bool:
    if connection.dialect.name == "mysql":
        # The driver takes several statements in a text, and one of them could end the transaction. PREPARE takes only one.
        connection.exec_driver_sql("PREPARE asked FROM %s", (statement,))
        statement = "EXECUTE asked"
    with connection.exec_driver_sql(statement, execution_options={"stream_results": True}) as found:
        if found.returns_rows:
            writer.begin([*found.keys()])
            for rows in found.partitions(ROWS_AT_ONCE):
                writer.rows([[_plain(cell) for cell in row] for row in rows])
            writer.end()
            return True
    # The driver of PostgreSQL does not run a streamed statement before its first row is asked for. So run it, to be refused.
    connection.exec_driver_sql(statement).close()
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except sqlite3.Warning as several:  # the driver of SQLite does so for several statements, and it is no error of SQLAlchemy
        raise StatementInvalid(f"{NOT_UNDERSTOOD}: {several}") from several
    except (*POSTGRES_ERRORS, OSError) as error:  # the errors of SQLAlchemy too
        _explain(error)


def _explain(error: BaseException) -> NoReturn:
    driver = getattr(error, "orig", None) or error
    code, reason = _code(driver), _reason(driver)
    if code in _DENIED:
        raise StatementDenied(f"the reporting database denied this: {reason}") from error
    if code in _DATABASE_MISSING:
        raise SettingsInvalid([f"the reporting database does not exist: {reason}"]) from error
    is_connected = isinstance(error, DBAPIError) and not error.connection_invalidated
    is_busy = code in _BUSY or code in _CLIENT_ERRORS or (isinstance(code, str) and code.startswith(_BUSY_STATES))
    if is_connected and not is_busy:
        raise StatementInvalid(f"{NOT_UNDERSTOOD}: {reason}") from error
    raise StoreUnavailable(f"the reporting database cannot do this now: {reason}; run the same command again") from error


def _code(driver: Any) -> str | int | None:
    """Returns the SQLSTATE of PostgreSQL, the number of MariaDB, or the number of SQLite as a text."""
    if state := getattr(driver, "sqlstate", None):
        return str(state)
    if number := getattr(driver, "sqlite_errorcode", None):
        return str(number & 0xFF)  # the rest says more about the same error
    return driver.args[0] if driver.args and isinstance(driver.args[0], int) else None


def _reason(driver: Any) -> str:
    text = str(driver.args[-1] if driver.args else driver)
    return text.rpartition(">: ")[2].partition("\n")[0] or type(driver).__name__
