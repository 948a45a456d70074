"""Opens connections to all stores together: the three that every Daybook has, and the optional ones that are configured."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any, NamedTuple

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SettingsInvalid
from shared.optional_stores import OPTIONAL_STORES, OptionalStoreKind
from shared.settings import Settings
from shared.stores.mongo import MongoDatabase, open_mongo
from shared.stores.postgres import Role, open_postgres
from shared.stores.redis import open_redis


class Stores(NamedTuple):
    """Connections to PostgreSQL, MongoDB and Redis, and the opened optional stores by name."""

    engine: AsyncEngine
    mongo: MongoDatabase
    redis: "Redis"
    optional: Mapping[str, Any]
    """See `shared.read_models.stored_state.OptionalStore`."""


@asynccontextmanager
async def open_stores(settings: Settings, role: Role) -> AsyncIterator[Stores]:
    """Opens all stores with long timeouts, for processes that write read models in batches.

    This sends nothing to the stores, so it succeeds even if a store is down.
    """
    async with (
        open_postgres(settings, role) as engine,
        open_mongo(settings, role=role) as mongo,
        open_redis(settings, settings.redis_timeout_ms * 5) as redis,
        open_optional_stores(settings) as optional,
    ):
        yield Stores(engine, mongo, redis, optional)


@asynccontextmanager
async def open_optional_stores(settings: Settings, *, read_only: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Opens the optional stores whose URL is set, and yields them by name.

    With `read_only`, the stores refuse every write, and are opened with the login that may only read, if there is one.

    Raises:
        SettingsInvalid: a URL cannot be read, or the packages of its store are not installed.
    """
    async with AsyncExitStack() as exits:
        opened = {}
        for kind in OPTIONAL_STORES:
            if kind.is_configured(settings, read_only=read_only):
                store = module_of(kind, kind.module).open_store(settings, read_only=read_only)
                opened[kind.name] = await exits.enter_async_context(store)
        yield opened


def module_of(kind: OptionalStoreKind, name: str) -> Any:
    """Imports a module that needs the packages of an optional store.

    Raises:
        SettingsInvalid: they are not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[{kind.extra}]'`"
        raise SettingsInvalid([f"{kind.variable}: {problem}"]) from None
