"""What tests run for real: the three servers, and the three processes on top of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from dev.children import Child
from dev.processes import Api, command_api, query_api, start_processes, worker
from dev.servers import Mongo, Postgres, Redis, free_port, stop_all
from shared.settings import Settings


@dataclass(frozen=True)
class Servers:
    postgres: Postgres
    mongo: Mongo
    redis: Redis


@dataclass(frozen=True)
class Stack:
    """Two APIs and a worker. Each can be killed, frozen, thawed and started again, on the same port."""

    command: Api
    query: Api
    worker: Child
    settings: Settings


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that make a process read these very settings."""
    dumped = settings.model_dump(exclude_none=True)
    values = {name: v.get_secret_value() if isinstance(v, SecretStr) else v for name, v in dumped.items()}
    return {f"DAYBOOK_{name.upper()}": str(value) for name, value in values.items()}


@asynccontextmanager
async def run_stack(settings: Settings, folder: Path, **more: str) -> AsyncIterator[Stack]:
    """Yields when both APIs are ready; logs go to `folder`. `more` are environment variables on top of the settings."""
    ports = free_port(), free_port()
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
