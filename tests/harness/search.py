"""Search stores for tests: one server of a kind, in which each test has indexes of its own."""

import itertools
from typing import Final

from dev.search_servers import SearchServer
from shared.search.store import SearchStore
from shared.settings import Settings

_NUMBERS: Final = itertools.count(1)


def with_search(settings: Settings, server: SearchServer) -> Settings:
    """Returns the settings with search in this server, in indexes that no other test has."""
    own = {"search_url": server.url, "search_prefix": f"t{next(_NUMBERS)}", "search_timeout_ms": 20_000}
    return settings.model_copy(update=own)


async def empty_search(store: SearchStore) -> None:
    """Deletes all indexes of these settings, as if the store had been made anew."""
    await store.client.indices.delete(index=f"{store.prefix}.*")
