"""The time by which the query API decides whether a hold has expired, and the times of the log: all by PostgreSQL's clock.

For the time of now, PostgreSQL is asked once in `ASK_SECONDS`, and in between, the seconds of this machine are added. If it does
not answer, the last time that it told goes on. Only a process that PostgreSQL has never answered uses the clock of its own
machine. Questions about the times of the log that arrive together share one statement.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.log.moments import read_moments, read_positions_at
from shared.stores.database_clock import DatabaseClock
from shared.stores.shared_round_trips import SharedRoundTrips
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

ASK_SECONDS: Final = 30.0
ANSWER_SECONDS_MAX: Final = 0.5
QUESTIONS_MAX: Final = 100
"""How many questions about the times of a log share a statement."""


class LogClock:
    """Tells the time by PostgreSQL's clock."""

    def __init__(self, postgres: AsyncEngine) -> None:
        self._postgres = postgres
        self._clock: DatabaseClock | None = None
        self._ask_at = 0.0
        self._positions: dict[str, SharedRoundTrips[datetime, int | None]] = {}
        self._moments: dict[str, SharedRoundTrips[int, str | None]] = {}

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

    async def position_at(self, ledger_id: str, moment: str) -> int | None:
        """Returns the position of the last event that was recorded up to a moment, or 0, or None if there is no such ledger."""
        rounds = self._positions.get(ledger_id)
        if rounds is None:
            rounds = self._positions[ledger_id] = SharedRoundTrips(partial(self._find_positions, ledger_id), QUESTIONS_MAX)
        return await rounds.ask(datetime.fromisoformat(moment))

    async def moment_of(self, ledger_id: str, position: int) -> str | None:
        """Returns when the event at a position was recorded, or None if the log has not reached the position."""
        rounds = self._moments.get(ledger_id)
        if rounds is None:
            rounds = self._moments[ledger_id] = SharedRoundTrips(partial(self._find_moments, ledger_id), QUESTIONS_MAX)
        return await rounds.ask(position)

    async def _find_positions(self, ledger_id: str, moments: Sequence[datetime]) -> Sequence[int | None]:
        async with self._postgres.connect() as connection:
            return await read_positions_at(connection, ledger_id, moments) or [None] * len(moments)

    async def _find_moments(self, ledger_id: str, positions: Sequence[int]) -> Sequence[str | None]:
        async with self._postgres.connect() as connection:
            found = await read_moments(connection, ledger_id, positions)
        return [timestamp(found[position]) if position in found else None for position in positions]
