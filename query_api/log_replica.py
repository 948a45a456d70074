"""Asks a replica of PostgreSQL about the log, so that long reads take nothing from the server that writes.

A replica may be behind. So it answers only what it can answer as well as PostgreSQL itself: whatever it lacks, refuses or is too
slow for is asked of PostgreSQL itself. No decision, no credential and no personal data are read from a replica.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import DaybookError
from shared.logs import kind_of
from shared.settings import Settings
from shared.stores.postgres import open_postgres, postgres_address
from shared.stores.store_errors import ASYNCPG_ERRORS, POSTGRES_AND_REDIS_ERRORS, reading_url

log = structlog.get_logger()

T = TypeVar("T")

ANSWER_SECONDS_MAX: Final = 1.0
"""After this time, the question goes to PostgreSQL itself."""
AWAY_SECONDS: Final = 5.0
"""A replica that has failed is not asked for this long, so that not every query waits for it."""


class LogReplica:
    """The replica, or nothing to ask if `engine` is None."""

    def __init__(self, engine: AsyncEngine | None) -> None:
        self._engine = engine
        self._away_until = 0.0

    async def ask(self, question: Callable[[AsyncConnection], Awaitable[T | None]]) -> T | None:
        """Returns the answer, or None if PostgreSQL itself must be asked. `question` returns None for what it cannot tell."""
        loop = asyncio.get_running_loop()
        if self._engine is None or loop.time() < self._away_until:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX), self._engine.connect() as connection:
                return await question(connection)
        except DaybookError:
            return None  # what is missing there may only be late
        except (*POSTGRES_AND_REDIS_ERRORS, *ASYNCPG_ERRORS) as error:
            self._away_until = loop.time() + AWAY_SECONDS
            log.warning("the replica of PostgreSQL does not answer", error=kind_of(error), asked_again_after_s=AWAY_SECONDS)
            return None


@asynccontextmanager
async def open_replica(settings: Settings) -> AsyncIterator[LogReplica]:
    """Yields the replica that the settings name, or one that is never asked."""
    if settings.replica_url is None:
        yield LogReplica(None)
        return
    with reading_url("DAYBOOK_REPLICA_URL"):
        postgres_address(settings.replica_url)
    there = settings.model_copy(update={"database_url": settings.replica_url, "pooler_url": None})
    async with open_postgres(there, "daybook_query") as engine:
        yield LogReplica(engine)
