"""`daybook status`: what runs, and how far the read models are."""

import asyncio
from contextlib import suppress
from typing import Any, Final

import httpx2
import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from dev.seed import bearer, list_projections
from shared.connections import STORE_ERRORS, open_postgres, open_redis
from shared.errors import SettingsInvalid, StackError
from shared.locks import Holder, read_holders
from shared.read_models import HEALTH_KEY
from shared.settings import Settings, read_settings

READY: Final = "ready"
WAIT_SECONDS: Final = 0.5
"""A session that waits for another one for less is at work."""


def status() -> None:
    """Show whether each process is ready, how far each read model is, and why it is not further.

    Names what is in the way: a paused or failing read model, events that were put aside, a missing worker, a slow store or
    projection, a session of PostgreSQL that holds a lock. Exit code 1 when a process does not answer.

    Example: daybook status
    """
    try:
        settings = read_settings()
    except SettingsInvalid as invalid:
        raise StackError(f"no stack runs here (`daybook dev` starts one), and none is configured: {invalid}") from None
    processes, projections, holders = asyncio.run(_look(settings))
    console = Console(soft_wrap=True)
    console.print(_table(("process", "state", "where"), processes))
    if projections:
        columns = ("name", "generation", "state", "position", "lag_events", "lag_seconds", "dead_letters", "cause")
        console.print(_table(columns, [[_cell(each.get(column)) for column in columns] for each in projections]))
    for holder in holders:
        waiting = f"{holder.waiting} waits: " if holder.waiting else ""
        console.print(f"{waiting}{holder}", markup=False)
    if any(state != READY for _, state, _ in processes):
        raise typer.Exit(1)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


async def _look(settings: Settings) -> tuple[list[tuple[str, str, str]], list[dict[str, Any]], list[Holder]]:
    headers = bearer(settings.api_key.get_secret_value() if settings.api_key else "")
    async with httpx2.AsyncClient(headers=headers, timeout=settings.query_wait_max_ms / 1000, trust_env=False) as client:
        return (
            [
                ("command API", await _api_state(client, settings.command_url), settings.command_url),
                ("query API", await _api_state(client, settings.query_url), settings.query_url),
                ("worker", await _worker_state(settings), f"Redis key {HEALTH_KEY}"),
            ],
            await list_projections(client, settings.query_url),
            await _holders(settings),
        )


async def _holders(settings: Settings) -> list[Holder]:
    """Sessions of PostgreSQL that keep Daybook waiting; none where it does not answer, which the processes tell."""
    with suppress(*STORE_ERRORS):
        async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
            return [
                holder for holder in await read_holders(connection) if holder.seconds is None or holder.seconds > WAIT_SECONDS
            ]
    return []


async def _api_state(client: httpx2.AsyncClient, url: str) -> str:
    try:
        answer = await client.get(f"{url}/readyz")
    except httpx2.TransportError as error:
        return f"does not answer ({type(error).__name__})"
    return READY if answer.is_success else f"not ready ({answer.status_code})"


async def _worker_state(settings: Settings) -> str:
    try:
        async with open_redis(settings) as redis:
            return READY if await redis.exists(HEALTH_KEY) else "gives no sign of life"
    except (RedisError, OSError) as error:
        return f"cannot tell: Redis does not answer ({type(error).__name__})"


def _table(columns: tuple[str, ...], rows: list[Any]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    return table
