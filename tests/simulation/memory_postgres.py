"""A PostgreSQL in memory as a client reaches it: sessions, a driver and an engine over a network that loses messages.

For the simulation alone. The driver has those methods of asyncpg, and the engine those of SQLAlchemy, that the log needs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from tests.simulation.memory_log import LOCKS, Fence, Lock, MemoryLog, Row, Tables, Transaction
from tests.simulation.virtual_time import Process, VirtualLoop, this_process
from tests.simulation.weather import Loss, Weather

COMMAND_SECONDS: Final = 2.5
"""The driver's time limit for one statement."""
POOL_SIZE: Final = 10

Work = Callable[["Session", Transaction], list[Row]]
Reply = asyncio.Future[list[Row]]


class MemoryServer:
    """The server's process. A crash loses every transaction that is not committed, and nothing else."""

    def __init__(self, tables: Tables, weather: Weather, *, unique_keys: bool = True, fence: Fence = "head") -> None:
        self.log = MemoryLog(tables, unique_keys=unique_keys, fence=fence)
        self.weather = weather
        self.process = Process("PostgreSQL")
        self.sessions: dict[Session, None] = {}

    def crash(self, loop: VirtualLoop) -> None:
        loop.kill(self.process)
        self.log.crash()
        sessions, self.sessions = self.sessions, {}
        for session in sessions:
            session.end()

    def restart(self) -> None:
        self.process = Process("PostgreSQL")


class Session:
    """One connection, as the server sees it. The client sends one request after another."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.process = this_process()
        self.transaction: Transaction | None = None
        """The transaction that BEGIN began. Without one, each statement has its own."""
        self.is_ended = False
        self._reply: Reply | None = None
        self._is_busy = False
        self._is_hung_up = False
        server.sessions[self] = None

    def send(self, work: Work, lock: Lock | None = None) -> Reply:
        """Sends a request. It arrives and is done although the client may die before it has the reply."""
        self._reply = reply = asyncio.get_running_loop().create_future()
        self._is_busy = True
        self._after_travel(self._arrive, work, lock, reply)
        return reply

    def _after_travel(self, act: Callable[..., None], *arguments: Any) -> None:
        self.server.process.call_later(self.server.weather.seconds(), act, *arguments)

    def _arrive(self, work: Work, lock: Lock | None, reply: Reply) -> None:
        loss = self.server.weather.loss()
        if loss == "request":
            self.end()
        if self.is_ended:
            return
        transaction = self.transaction or Transaction(self.process)
        if lock:
            self.server.log.lock(lock, transaction, lambda: self._act(work, transaction, reply, loss))
        else:
            self._act(work, transaction, reply, loss)

    def _act(self, work: Work, transaction: Transaction, reply: Reply, loss: Loss) -> None:
        result: list[Row] | Exception
        try:
            result = work(self, transaction)
        except asyncpg.PostgresError as error:
            result = error
        if self.transaction is not transaction:
            self.server.log.commit(transaction)  # a statement without BEGIN; after a COMMIT or ROLLBACK there is nothing left
        self._is_busy = False
        if loss == "reply" or self._is_hung_up:
            self.end()
        elif loss == "silence":
            self.server.process.call_later(COMMAND_SECONDS, _settle, reply, TimeoutError())
        else:
            self._after_travel(_settle, reply, result)

    def end(self) -> None:
        """The connection is gone: what is not committed is rolled back, and the client hears of it."""
        self.is_ended = True
        self.server.sessions.pop(self, None)
        if self.transaction:
            self.server.log.roll_back(self.transaction)
            self.transaction = None
        if self._reply:
            _settle(self._reply, asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))

    def hang_up(self) -> None:
        """The client's side is closed. The server sees that after the request that is on its way."""
        self._is_hung_up = True
        if not self._is_busy and not self.is_ended:
            self._after_travel(self.end)


def _settle(reply: Reply, result: list[Row] | Exception) -> None:
    if reply.done():
        return
    if isinstance(result, Exception):
        reply.set_exception(result)
        reply.exception()  # its client may be dead
    else:
        reply.set_result(result)


def _begin(session: Session, _: Transaction) -> list[Row]:
    session.transaction = Transaction(session.process)
    return []


def _commit(session: Session, transaction: Transaction) -> list[Row]:
    session.server.log.commit(transaction)
    session.transaction = None
    return []


def _roll_back(session: Session, transaction: Transaction) -> list[Row]:
    session.server.log.roll_back(transaction)
    session.transaction = None
    return []


def _statement(statement: str, values: Any) -> Work:
    return lambda session, transaction: session.server.log.run(transaction, statement, values)


class MemoryDriver:
    """The client's side of a connection: those methods of asyncpg that the log uses."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_closed = False
        self._in_transaction = False
        self._process = this_process()
        self._process.at_death[self] = self.terminate

    async def ask(self, work: Work, lock: Lock | None = None) -> list[Row]:
        if self.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        try:
            return await self._session.send(work, lock)
        except (asyncio.CancelledError, TimeoutError):
            self.terminate()
            raise

    async def fetch(self, statement: str, *values: Any) -> list[Row]:
        return await self.ask(_statement(statement, values), LOCKS.get(statement))

    async def fetchval(self, statement: str, *values: Any) -> Any:
        rows = await self.fetch(statement, *values)
        return rows[0][0] if rows else None

    def transaction(self) -> "MemoryDriver":
        return self

    async def start(self) -> None:
        await self.ask(_begin)
        self._in_transaction = True

    async def commit(self) -> None:
        self._in_transaction = False
        await self.ask(_commit)

    async def rollback(self) -> None:
        self._in_transaction = False
        await self.ask(_roll_back)

    def is_in_transaction(self) -> bool:
        return self._in_transaction

    def is_closed(self) -> bool:
        return self._is_closed or self._session.is_ended

    def terminate(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._process.at_death.pop(self, None)
            self._session.hang_up()


class Rows(list[Row]):
    """The result of a statement, with those methods of SQLAlchemy that the log uses."""

    def all(self) -> list[Row]:
        return self

    def one_or_none(self) -> Row | None:
        return self[0] if self else None

    one = one_or_none


class MemoryConnection:
    """Those methods of an `AsyncConnection` that the log uses."""

    def __init__(self, driver: MemoryDriver) -> None:
        self._driver = driver
        self.driver_connection = driver

    async def get_raw_connection(self) -> "MemoryConnection":
        return self

    async def execute(self, statement: Any, values: Any = None) -> Rows:
        return Rows(await self._asked(_statement(statement.text, values), LOCKS.get(statement.text)))

    async def scalar(self, statement: Any, values: Any = None) -> Any:
        rows = await self.execute(statement, values)
        return rows[0][0] if rows else None

    async def begin(self) -> None:
        await self._asked(_begin)
        self._driver._in_transaction = True  # noqa: SLF001 # one connection in two files of asyncpg and SQLAlchemy

    async def commit(self) -> None:
        await self._asked(_commit)

    async def rollback(self) -> None:
        if not self._driver.is_closed():
            await self._asked(_roll_back)

    async def invalidate(self) -> None:
        self._driver.terminate()

    async def close(self) -> None:
        self._driver.terminate()

    async def _asked(self, work: Work, lock: Lock | None = None) -> list[Row]:
        try:
            return await self._driver.ask(work, lock)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DBAPIError("statement", {}, error, connection_invalidated=self._driver.is_closed()) from error


class MemoryEngine:
    """Those methods of an `AsyncEngine` that the log uses. Each connection is new, so there is no pool to run out of."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.pool = SimpleNamespace(size=lambda: POOL_SIZE, checkedout=lambda: 0)

    @property
    def sync_engine(self) -> "MemoryEngine":
        return self

    def get_execution_options(self) -> dict[str, Any]:
        return {}

    def execution_options(self, **_: Any) -> "MemoryEngine":
        return self

    def connect(self) -> "_Connecting":
        return _Connecting(self._server)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[MemoryConnection]:
        async with self.connect() as connection:
            await connection.begin()
            try:
                yield connection
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()


class _Connecting:
    """What `engine.connect()` returns: it is awaited or entered."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._connection: MemoryConnection | None = None

    def __await__(self) -> Generator[Any, Any, MemoryConnection]:
        return self._open().__await__()

    async def _open(self) -> MemoryConnection:
        if not self._server.process.alive:
            raise ConnectionRefusedError
        return MemoryConnection(MemoryDriver(Session(self._server)))

    async def __aenter__(self) -> MemoryConnection:
        self._connection = await self._open()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection:
            await self._connection.close()
