"""`daybook status`: what runs, and how far the read models are."""

import asyncio
from typing import Any, Final

import httpx2
import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from dev.seed import list_projections
from shared.connections import open_redis
from shared.errors import SettingsInvalid, StackError
from shared.read_models import HEALTH_KEY
from shared.settings import Settings, read_settings

READY: Final = "ready"


def status() -> None:
    """Show whether each process is ready and how far each read model is; exit code 1 when something does not answer.

    Example: daybook status
    """
    try:
        settings = read_settings()
    except SettingsInvalid as invalid:
        raise StackError(f"no stack runs here (`daybook dev` starts one), and none is configured: {invalid}") from None
    processes, projections = asyncio.run(_look(settings))
    console = Console(soft_wrap=True)
    console.print(_table(("process", "state", "where"), processes))
    if projections:
        columns = ("name", "generation", "state", "position", "lag_events", "lag_seconds")
        console.print(_table(columns, [[str(each.get(column, "")) for column in columns] for each in projections]))
    if any(state != READY for _, state, _ in processes):
        raise typer.Exit(1)


async def _look(settings: Settings) -> tuple[list[tuple[str, str, str]], list[dict[str, Any]]]:
    async with httpx2.AsyncClient(timeout=settings.query_wait_max_ms / 1000, trust_env=False) as client:
        return [
            ("command API", await _api_state(client, settings.command_url), settings.command_url),
            ("query API", await _api_state(client, settings.query_url), settings.query_url),
            ("worker", await _worker_state(settings), f"Redis key {HEALTH_KEY}"),
        ], await list_projections(client, settings.query_url)


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
