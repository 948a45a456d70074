"""A connection to PostgreSQL that one object keeps between its transactions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.stores.pooled_connection import is_pooled
from shared.stores.postgres import Driver, driver_of

KEPT_SECONDS: Final = 5

_UNUSABLE: Final = (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError)
"""Errors after which a connection no longer answers. It can neither roll back nor begin another transaction."""


class KeptConnection:
    """A connection from the pool that is kept between transactions and is used without SQLAlchemy.

    Use it for many short transactions. For these, the pool and SQLAlchemy's part in BEGIN, a statement and COMMIT cost more than
    the transaction itself. The connection goes back to the pool after `kept_seconds` without use. If more than half of the pool
    is in use, it goes back right after each transaction.
    """

    def __init__(self, engine: AsyncEngine, kept_seconds: float = KEPT_SECONDS) -> None:
        self._engine = engine
        self._kept_seconds = kept_seconds
        self._connection: AsyncConnection | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Driver]:
        """Yields the connection for reads, without a transaction unless a pooler needs one.

        Raises:
            TimeoutError, one of ASYNCPG_ERRORS, sqlalchemy.exc.SQLAlchemyError: PostgreSQL does not answer or reports an error.
        """
        async with self.begin() if is_pooled(self._engine) else self._taken() as driver:
            yield driver

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Driver]:
        driver = await self._open()
        try:
            yield driver
        except _UNUSABLE:
            driver.terminate()
            raise
        finally:
            await self._keep(driver)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Driver]:
        """Yields the connection in a transaction, which commits at the end of the block and rolls back on an error.

        Raises:
            TimeoutError, one of ASYNCPG_ERRORS, sqlalchemy.exc.SQLAlchemyError: nothing was committed, unless COMMIT was sent.
        """
        async with self._taken() as driver:
            transaction = driver.transaction()
            await transaction.start()
            try:
                yield driver
            except _UNUSABLE:
                raise
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()

    async def _open(self) -> Driver:
        if self._idle:
            self._idle.cancel()
        if self._connection is None:
            self._connection = await self._engine.connect()
        return await driver_of(self._connection)

    async def _keep(self, driver: Driver) -> None:
        pool: Any = self._engine.pool
        if driver.is_closed() or pool.checkedout() > pool.size() // 2:
            await self.release()
        else:
            self._idle = asyncio.get_running_loop().call_later(self._kept_seconds, self._release_soon)

    def _release_soon(self) -> None:
        self._releasing = asyncio.create_task(self._give_back(self._take()))

    async def release(self) -> None:
        """Gives the connection back to the pool. The next transaction takes a connection from the pool again."""
        await self._give_back(self._take())
        if self._releasing:
            await self._releasing

    def _take(self) -> AsyncConnection | None:
        """Removes the connection from this object and returns it. A transaction that begins now takes another connection."""
        connection, self._connection = self._connection, None
        return connection

    async def _give_back(self, connection: AsyncConnection | None) -> None:
        if connection is None:
            return
        if (await driver_of(connection)).is_closed():
            await connection.invalidate()
        await connection.close()
