"""OpenSearch for tests: one server, in which each test has indexes of its own."""

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from dev.engine_jars import class_path
from dev.opensearch_server import OpenSearchServer
from dev.programs import find_program
from dev.servers import start_all, stop_all
from shared.errors import StackError
from shared.search.store import SearchStore
from shared.settings import Settings

_NUMBERS: Final = itertools.count(1)


@contextmanager
def running_opensearch(folder: Path) -> Iterator[OpenSearchServer]:
    """Runs an OpenSearch. Skips the test if its jars or Java are missing. Has an event loop of its own, so any test can ask."""
    try:
        class_path("opensearch")
        find_program("java")
    except StackError as missing:
        pytest.skip(str(missing))
    server = OpenSearchServer("opensearch", folder)
    # The thread stays until the end: a child process ends with the thread that started it.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, start_all(server)).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, stop_all(server)).result()


def with_search(settings: Settings, server: OpenSearchServer) -> Settings:
    """Returns the settings with search in this server, in indexes that no other test has."""
    own = {"search_url": server.url, "search_prefix": f"t{next(_NUMBERS)}", "search_timeout_ms": 20_000}
    return settings.model_copy(update=own)


async def empty_search(store: SearchStore) -> None:
    """Deletes all indexes of these settings, as if OpenSearch had been made anew."""
    await store.client.indices.delete(index=f"{store.prefix}.*")
