"""Collects the status of a running stack: if each process is ready, how far the read models are, and who holds locks."""

from contextlib import suppress
from typing import Any, Final, NamedTuple

import httpx2
from redis.exceptions import RedisError

from shared.publishing.checkpoints import PublishedLedger, read_published
from shared.read_models.worker_reports import HEALTH_KEY
from shared.settings import Settings
from shared.stores.lock_holders import LockHolder, read_lock_holders
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.web.api_client import bearer, list_projections

READY: Final = "ready"
HELD_SECONDS_MIN: Final = 0.5
"""A PostgreSQL connection that has kept others waiting for a shorter time is normal and not shown, unless it locks a table."""


class ProcessStatus(NamedTuple):
    """The status of one process. `state` describes it in words, and `where` is the URL or Redis key that was checked."""

    name: str
    is_ready: bool
    state: str
    where: str


class StackStatus(NamedTuple):
    """The status of the stack. `projections` has the items of `GET /v1/projections`, or none if the query API did not answer.

    `published` is empty if nothing is published, or if PostgreSQL does not answer.
    """

    processes: list[ProcessStatus]
    projections: list[dict[str, Any]]
    lock_holders: list[LockHolder]
    published: list[PublishedLedger]


async def look_at_stack(settings: Settings) -> StackStatus:
    headers = bearer(settings.api_key.get_secret_value() if settings.api_key else "")
    async with httpx2.AsyncClient(headers=headers, timeout=settings.query_wait_max_ms / 1000, trust_env=False) as client:
        processes = [
            await _api_status(client, "command API", settings.command_url),
            await _api_status(client, "query API", settings.query_url),
            await _worker_status(settings),
        ]
        projections = await list_projections(client, settings.query_url)
        return StackStatus(processes, projections, await _lock_holders(settings), await _published(settings))


async def _api_status(client: httpx2.AsyncClient, name: str, url: str) -> ProcessStatus:
    try:
        response = await client.get(f"{url}/readyz")
    except httpx2.TransportError as error:
        return ProcessStatus(name, is_ready=False, state=f"does not answer ({type(error).__name__})", where=url)
    state = READY if response.is_success else f"not ready ({response.status_code})"
    return ProcessStatus(name, response.is_success, state, url)


async def _worker_status(settings: Settings) -> ProcessStatus:
    try:
        async with open_redis(settings) as redis:
            is_ready = bool(await redis.exists(HEALTH_KEY))
            state = READY if is_ready else "gives no sign of life"
    except (RedisError, OSError) as error:
        is_ready, state = False, f"unknown, because Redis does not answer ({type(error).__name__})"
    return ProcessStatus("worker", is_ready, state, f"Redis key {HEALTH_KEY}")


async def _lock_holders(settings: Settings) -> list[LockHolder]:
    """Returns the PostgreSQL connections whose locks keep Daybook waiting, or an empty list if PostgreSQL does not answer.

    If PostgreSQL does not answer, the status of the processes already shows it.
    """
    with suppress(*POSTGRES_AND_REDIS_ERRORS):
        async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
            return [holder for holder in await read_lock_holders(connection) if _is_shown(holder)]
    return []


async def _published(settings: Settings) -> list[PublishedLedger]:
    if settings.publish_url:
        with suppress(*POSTGRES_AND_REDIS_ERRORS):
            async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
                return await read_published(connection)
    return []


def _is_shown(holder: LockHolder) -> bool:
    return holder.locks_table or holder.seconds is None or holder.seconds > HELD_SECONDS_MIN
