"""Connections through a pooler in transaction mode, such as PgBouncer, which gives each transaction another session.

A session there is shared with other processes and other roles. So nothing may be set on it that outlasts a transaction, no lock
may be held on it between two transactions, and no prepared statement may have a name. Each transaction begins with its own role
and time limits, in the same message as its BEGIN.
"""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

WITHOUT_NAMES: Final[dict[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,
}
"""The options with which asyncpg and SQLAlchemy prepare only the statement without a name, and keep none."""

_POOLED: Final = "is_pooled"
POOLED_OPTIONS: Final = {_POOLED: True}
"""The options of SQLAlchemy that mark an engine whose connections go through a pooler."""


def pooled_connection_class(session_settings: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Returns a class of connections whose transactions each begin with these settings, and lose them at their end."""
    settings = "".join(f" SET LOCAL {name} = '{value}';" for name, value in session_settings.items())

    class PooledConnection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
        async def execute(self, query: str, *args: Any, **options: Any) -> str:
            if not query.startswith("BEGIN"):
                return str(await super().execute(query, *args, **options))
            try:
                return str(await super().execute(query + settings, **options))
            except asyncpg.PostgresError:
                # BEGIN has succeeded. Without this, the connection would go back to its pool in a failed transaction.
                if not self.is_closed():
                    await super().execute("ROLLBACK")
                raise

    return PooledConnection


def is_pooled(engine: AsyncEngine) -> bool:
    """True if the connections of the engine go through a pooler."""
    return bool(engine.sync_engine.get_execution_options().get(_POOLED))


def for_single_reads(engine: AsyncEngine) -> AsyncEngine:
    """Returns the engine for reads that need no transaction, so that each takes a single round trip.

    Through a pooler, a read needs a transaction, because only that has a role.
    """
    return engine if is_pooled(engine) else engine.execution_options(isolation_level="AUTOCOMMIT")
