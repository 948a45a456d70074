"""Connections to Redis. Every operation ends within a timeout."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import UnsafeStore
from shared.settings import Settings
from shared.stores.store_errors import reading_url, requiring_answer

RETRIES_MAX: Final = 3
CONNECTIONS_MAX: Final = 64


@asynccontextmanager
async def open_redis(
    settings: Settings, operation_timeout_ms: int | None = None, connections_max: int = CONNECTIONS_MAX
) -> AsyncIterator["Redis"]:
    """Yields a client whose operations return or raise within the timeout. It reconnects after a restart of the server."""
    timeout = settings.redis_timeout_ms / 1000
    with reading_url("DAYBOOK_REDIS_URL"):
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            decode_responses=True,
            max_connections=connections_max,
            timeout=timeout,
            socket_timeout=(operation_timeout_ms or settings.redis_timeout_ms) / 1000,
            socket_connect_timeout=timeout,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES_MAX),
            retry_on_error=[RedisConnectionError],
            **redis_tls(settings.redis_url),
        )
    client: Redis = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


def redis_tls(url: str) -> dict[str, Any]:
    """Returns the options that make redis-py check the host name in a `rediss://` server's certificate, not only the signer."""
    return {"ssl_check_hostname": True} if url.startswith("rediss:") else {}


async def require_lasting_redis(redis: "Redis") -> None:
    """Checks that Redis is configured never to evict keys, because some keys hold balances.

    Raises:
        UnsafeStore: Redis may evict keys.
        StoreUnavailable: Redis does not answer.
    """
    with requiring_answer("Redis"):
        policy = (await redis.info("memory")).get("maxmemory_policy")
    if policy != "noeviction":
        msg = f"Redis runs with maxmemory-policy {policy}: it may evict balances; set it to noeviction"
        raise UnsafeStore(msg)
