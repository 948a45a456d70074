"""Connections to PostgreSQL. Each process uses one database role, and every statement has a time limit."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import UnsafeStore
from shared.http_values import PORT_MAX
from shared.settings import Settings
from shared.stores.pooled_connection import POOLED_OPTIONS, WITHOUT_NAMES, pooled_connection_class
from shared.stores.store_errors import reading_url, requiring_answer

Role = Literal["daybook_command", "daybook_projector", "daybook_query", "daybook_admin"]

DURABLE: Final = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_apply")}
_LIBPQ_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_SCHEMES: Final = {"postgresql", "postgres"}
_OPTIONS: Final = {"host", "port", "target_session_attrs", "prepared_statement_cache_size"}
"""The options, besides those of TLS, that a URL can have and that the driver takes as text."""
_PORT: Final = 5432
_WITHOUT_CHECK: Final = {"disable", "allow", "prefer", "require"}

Driver: TypeAlias = asyncpg.Connection
"""A connection of the driver asyncpg, without SQLAlchemy."""


@asynccontextmanager
async def open_postgres(
    settings: Settings, role: Role, connections_max: int | None = None, *, keeps_session: bool = False
) -> AsyncIterator[AsyncEngine]:
    """Yields an engine whose connections act as `role` and have only the permissions of that role.

    The settings say how many connections there are, or `connections_max` if it is given. The connections go through the pooler,
    if there is one. With `keeps_session` they do not: what is set or locked on a session then stays until it ends.
    """
    pooler_url = None if keeps_session else settings.pooler_url
    with reading_url("DAYBOOK_POOLER_URL" if pooler_url else "DAYBOOK_DATABASE_URL"):
        url, tls = postgres_address(pooler_url or settings.database_url)
    session_settings = _session_settings(settings, role)
    engine = create_async_engine(
        url,
        pool_size=connections_max or settings.database_pool_size,
        max_overflow=0 if connections_max else settings.database_pool_overflow_max,
        pool_timeout=settings.database_pool_timeout_ms / 1000,
        pool_recycle=settings.database_pool_recycle_seconds,
        pool_pre_ping=settings.database_pool_pre_ping,
        hide_parameters=True,  # otherwise the text of errors would contain ids and amounts
        connect_args=tls
        | {
            "timeout": settings.database_connect_timeout_ms / 1000,
            # PostgreSQL's own time limit comes first. This longer one is for a server that does not answer at all.
            "command_timeout": settings.database_statement_timeout_ms / 1000 + 0.5,
            "server_settings": {"application_name": role.replace("_", "-")} | ({} if pooler_url else session_settings),
        }
        | (WITHOUT_NAMES | {"connection_class": pooled_connection_class(session_settings)} if pooler_url else {}),
        execution_options=POOLED_OPTIONS if pooler_url else {},
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def _session_settings(settings: Settings, role: Role) -> dict[str, str]:
    """Returns the role and the time limits that each session has, or through a pooler each transaction."""
    is_writer = role == "daybook_command"
    idle = settings.writer_idle_in_transaction_timeout_ms if is_writer else settings.database_idle_in_transaction_timeout_ms
    return {
        "role": role,
        "jit": "off",
        "statement_timeout": str(settings.database_statement_timeout_ms),
        "lock_timeout": str(settings.database_lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(idle),
    }


@asynccontextmanager
async def open_postgres_as_owner(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Yields an engine that acts as the owner of the tables. Only `daybook` commands of operators use it, never an API."""
    with reading_url("DAYBOOK_MIGRATION_DATABASE_URL"):
        url, tls = postgres_address(settings.migration_database_url or settings.database_url)
    server_settings = {"application_name": "daybook-owner", "lock_timeout": str(settings.database_lock_timeout_ms)}
    connect_args = tls | {"timeout": settings.database_connect_timeout_ms / 1000, "server_settings": server_settings}
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args)
    try:
        yield engine
    finally:
        await engine.dispose()


def postgres_address(url: str) -> tuple[URL, dict[str, Any]]:
    """Splits a URL of PostgreSQL into the address and the TLS options for asyncpg.

    The URL has the options of libpq, which asyncpg does not understand: `sslmode`, `sslrootcert`, `sslcert` and `sslkey`. The
    URL decides alone: variables such as PGHOST are ignored.

    Raises:
        ValueError, ArgumentError, OSError: the text is not a URL, or it names an option, a mode or a file that does not exist.
    """
    ignore_libpq_variables()
    parsed = make_url(url)
    if parsed.drivername.partition("+")[0] not in _SCHEMES or not 0 < (parsed.port or _PORT) <= PORT_MAX:
        raise ValueError(parsed.drivername)
    parsed = parsed.set(drivername="postgresql+asyncpg")
    asked = {name: str(parsed.query[name]) for name in _LIBPQ_TLS if name in parsed.query}
    parsed = parsed.difference_update_query(_LIBPQ_TLS)
    if not parsed.query.keys() <= _OPTIONS:
        raise ValueError("option")
    mode = asked.get("sslmode", "verify-full" if asked else None)
    if mode is None or mode in _WITHOUT_CHECK:
        return parsed, {} if mode is None else {"ssl": False if mode == "disable" else mode}
    if mode not in {"verify-ca", "verify-full"}:
        raise ValueError(mode)
    context = ssl.create_default_context(cafile=asked.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if "sslcert" in asked:
        context.load_cert_chain(asked["sslcert"], asked.get("sslkey"))
    return parsed, {"ssl": context}


def ignore_libpq_variables() -> None:
    """Removes PGHOST, PGSSLMODE and all other variables of libpq from the environment, because the driver would read them."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


async def driver_of(connection: AsyncConnection) -> Driver:
    """Returns the driver's connection inside SQLAlchemy's. Statements on it belong to the transaction that SQLAlchemy began."""
    driver: Driver = (await connection.get_raw_connection()).driver_connection
    return driver


async def require_durable_postgres(engine: AsyncEngine) -> None:
    """Checks that PostgreSQL is configured so that an acknowledged command survives a loss of power.

    Raises:
        UnsafeStore: an acknowledged command could be lost.
        StoreUnavailable: PostgreSQL does not answer.
    """
    with requiring_answer("PostgreSQL"):
        async with engine.connect() as connection:
            values = {name: await connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) for name in DURABLE}
    for name, value in values.items():
        if value not in DURABLE[name]:
            msg = f"PostgreSQL runs with {name} = {value}: acknowledged commands could be lost; set it to on"
            raise UnsafeStore(msg)
