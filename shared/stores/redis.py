"""Connections to Redis, or to the servers of a Redis Cluster. Every operation ends within a timeout."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterParser
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import UnsafeStore
from shared.settings import Settings
from shared.stores.redis_cluster import ClusterRedis, Place, names_cluster, read_cluster_url
from shared.stores.store_errors import reading_url, requiring_answer

RETRIES_MAX: Final = 3
CONNECTIONS_MAX: Final = 64


@asynccontextmanager
async def open_redis(
    settings: Settings, operation_timeout_ms: int | None = None, connections_max: int = CONNECTIONS_MAX
) -> AsyncIterator["Redis"]:
    """Yields a client whose operations return or raise within the timeout. It reconnects after a restart of the server.

    If the URL names a cluster, each operation goes to the server that has its key, with so many connections to each server.
    """
    timeout = settings.redis_timeout_ms / 1000

    def pool(url: str, **more: Any) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(
            url,
            decode_responses=True,
            max_connections=connections_max,
            timeout=timeout,
            socket_timeout=(operation_timeout_ms or settings.redis_timeout_ms) / 1000,
            socket_connect_timeout=timeout,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES_MAX),
            retry_on_error=[RedisConnectionError],
            **redis_tls(url),
            **more,
        )

    with reading_url("DAYBOOK_REDIS_URL"):
        client: Redis
        if names_cluster(settings.redis_url):
            places, url_of = read_cluster_url(settings.redis_url)
            client = ClusterRedis(places, lambda place: pool(url_of(place), parser_class=ClusterParser))
        else:
            client = Redis.from_pool(pool(settings.redis_url))
    try:
        yield client
    finally:
        await client.aclose()


async def servers_of(redis: "Redis") -> "list[Redis]":
    """Returns a client for each server that holds keys: the client itself, or those of the servers of a cluster.

    Raises:
        RedisError: no server of the cluster answers.
    """
    return await redis.servers() if isinstance(redis, ClusterRedis) else [redis]


async def find_server(settings: Settings, key: str) -> Place:
    """Returns the server of a cluster that has a key, as the cluster says now.

    Raises:
        RedisError: no server of the cluster answers, or none has the key.
    """
    async with open_redis(settings, connections_max=1) as redis:
        client: Any = redis  # one of a cluster
        place: Place = await client.place_of(key)
        return place


def server_with(redis: "Redis", key: str) -> Place | None:
    """Returns the server of a cluster that has a key, as far as this process knows. Without a cluster, returns None."""
    return redis.known_place_of(key) if isinstance(redis, ClusterRedis) else None


def redis_tls(url: str) -> dict[str, Any]:
    """Returns the options that make redis-py check the host name in a `rediss://` server's certificate, not only the signer."""
    return {"ssl_check_hostname": True} if url.startswith("rediss:") else {}


async def require_lasting_redis(redis: "Redis") -> None:
    """Checks that Redis is configured never to evict keys, because some keys hold balances.

    Of a cluster, one server must answer, and each one that does is checked. So a process can start while another one is away.

    Raises:
        UnsafeStore: Redis may evict keys.
        StoreUnavailable: Redis does not answer.
    """
    with requiring_answer("Redis"):
        asked = [server.info("memory") for server in await servers_of(redis)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        if all(isinstance(each, BaseException) for each in told) and isinstance(told[0], BaseException):
            raise told[0]
    for policy in {each.get("maxmemory_policy") for each in told if not isinstance(each, BaseException)} - {"noeviction"}:
        msg = f"Redis runs with maxmemory-policy {policy}: it may evict balances; set it to noeviction"
        raise UnsafeStore(msg)
