"""The time by which the query API decides whether a hold has expired: PostgreSQL's, like that of the log.

PostgreSQL is asked once in `ASK_SECONDS`, and in between, the seconds of this machine are added. If it does not answer, the last
time that it told goes on. Only a process that PostgreSQL has never answered uses the clock of its own machine.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.stores.database_clock import DatabaseClock
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

ASK_SECONDS: Final = 30.0
ANSWER_SECONDS_MAX: Final = 0.5


class LogClock:
    """Tells the time by PostgreSQL's clock."""

    def __init__(self, postgres: AsyncEngine) -> None:
        self._postgres = postgres
        self._clock: DatabaseClock | None = None
        self._ask_at = 0.0

    async def now(self) -> str:
        """Returns the time as RFC 3339 in UTC."""
        loop = asyncio.get_running_loop()
        clock = self._clock = self._clock or DatabaseClock(loop.time)
        if loop.time() >= self._ask_at:
            self._ask_at = loop.time() + ASK_SECONDS
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX), self._postgres.connect() as connection:
                    clock.set(await connection.scalar(text("SELECT clock_timestamp()")))
            except POSTGRES_AND_REDIS_ERRORS:
                self._ask_at = loop.time() + 1.0
        return timestamp(clock.now() or datetime.now(UTC))
