"""Starts the three servers and Daybook's three processes for tests."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from dev.child_processes import Child
from dev.daybook_processes import ApiProcess, command_api, query_api, start_processes, worker
from dev.ports import free_port
from dev.servers import Mongo, Postgres, Redis, stop_all
from shared.settings import Settings

PATIENT: Final[dict[str, Any]] = {
    "database_pool_timeout_ms": 20_000,
    "database_connect_timeout_ms": 20_000,
    "database_statement_timeout_ms": 20_000,
    "database_lock_timeout_ms": 15_000,
    "database_idle_in_transaction_timeout_ms": 30_000,
    "writer_idle_in_transaction_timeout_ms": 30_000,
    "command_deadline_ms": 20_000,
    "mongo_timeout_ms": 10_000,
    "redis_timeout_ms": 10_000,
}
"""Time limits for tests that are not about time limits. A busy machine or a slow disk can pass the defaults for a moment."""


def with_default_limits(settings: Settings) -> Settings:
    """Returns the settings with the time limits that users get, for tests of what happens when a store does not answer."""
    return settings.model_copy(update={name: Settings.model_fields[name].default for name in PATIENT})


@dataclass(frozen=True)
class Servers:
    postgres: Postgres
    mongo: Mongo
    redis: Redis


@dataclass(frozen=True)
class Stack:
    """Both APIs and a worker as processes. A test can kill, freeze, thaw and restart each of them on the same port."""

    command: ApiProcess
    query: ApiProcess
    worker: Child
    settings: Settings


def environment_of(settings: Settings) -> dict[str, str]:
    """Returns the environment variables that give a process these settings."""
    values = settings.model_dump(exclude_none=True)
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}
    return {f"DAYBOOK_{name.upper()}": str(value) for name, value in plain.items()}


@asynccontextmanager
async def run_stack(settings: Settings, folder: Path, query_port: int | None = None, **more: str) -> AsyncIterator[Stack]:
    """Starts the processes and yields when both APIs are ready. `more` are additional environment variables.

    The log lines are written to `folder`. Without `query_port`, the query API takes a free port.
    """
    ports = free_port(), query_port or free_port()
    urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(("command_url", "query_url"), ports, strict=True)}
    settings = settings.model_copy(update=urls)
    environment: Mapping[str, str] = environment_of(settings) | more
    stack = Stack(
        command_api(folder, ports[0], environment),
        query_api(folder, ports[1], environment),
        worker(folder, environment),
        settings,
    )
    processes = (stack.command, stack.query, stack.worker)
    try:
        await start_processes(*processes)
        yield stack
    finally:
        await stop_all(*processes)
