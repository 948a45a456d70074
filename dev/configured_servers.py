"""Checks that the servers which the environment names answer, before a development stack starts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import StackError
from shared.stores.postgres import postgres_address
from shared.stores.redis import redis_tls
from shared.stores.redis_cluster import names_cluster, read_cluster_url
from shared.stores.store_errors import reading_url

ANSWER_SECONDS: Final = 5


async def require_answers(configured: Mapping[str, str]) -> None:
    """Checks that each server answers. `configured` has the URL of each server by the name of its environment variable.

    Raises:
        StackError: a server does not answer. The message names the variable, which may be left over from a stack that has ended.
        SettingsInvalid: a URL cannot be read.
    """
    for variable, url in configured.items():
        try:
            await _ASK[variable](url)
        except (OSError, TimeoutError, SQLAlchemyError, PyMongoError, RedisError) as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0].partition(", Timeout:")[0]
            raise StackError(
                f"{variable} names a server that does not answer ({reason or type(error).__name__}): start that server, "
                f'or run `unset {variable}` to have one started here; `eval "$(daybook env --unset)"` removes all variables of a '
                "stack that has ended"
            ) from None


async def _ask_postgres(url: str) -> None:
    with reading_url("DAYBOOK_DATABASE_URL"):
        address, tls = postgres_address(url)
    engine = create_async_engine(
        address, poolclass=NullPool, hide_parameters=True, connect_args=tls | {"timeout": ANSWER_SECONDS}
    )
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _ask_mongo(url: str) -> None:
    with reading_url("DAYBOOK_MONGO_URL"):
        client = AsyncMongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=ANSWER_SECONDS * 1000)
    async with client:
        await client.admin.command("ping")


async def _ask_redis(url: str) -> None:
    with reading_url("DAYBOOK_REDIS_URL"):
        places, url_of = read_cluster_url(url) if names_cluster(url) else ([("", 0)], lambda _: url)
        clients = [
            Redis.from_url(
                url_of(place), socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, **redis_tls(url_of(place))
            )
            for place in places
        ]
    for client in clients:
        async with client:
            await client.ping()


_ASK: Final[Mapping[str, Callable[[str], Awaitable[None]]]] = {
    "DAYBOOK_DATABASE_URL": _ask_postgres,
    "DAYBOOK_MONGO_URL": _ask_mongo,
    "DAYBOOK_REDIS_URL": _ask_redis,
}
