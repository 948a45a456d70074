"""Cassandra for tests: one server, in which each test has a keyspace of its own."""

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from dev.cassandra_server import CassandraServer
from dev.engine_jars import class_path
from dev.programs import find_program
from dev.servers import start_all, stop_all
from shared.errors import StackError
from shared.settings import Settings
from shared.timeline.store import TimelineStore

_NUMBERS: Final = itertools.count(1)


@contextmanager
def running_cassandra(folder: Path) -> Iterator[CassandraServer]:
    """Runs a Cassandra. Skips the test if its jars or Java are missing. Has an event loop of its own, so any test can ask."""
    try:
        class_path("cassandra")
        find_program("java")
    except StackError as missing:
        pytest.skip(str(missing))
    server = CassandraServer("cassandra", folder)
    # The thread stays until the end: a child process ends with the thread that started it.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, start_all(server)).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, stop_all(server)).result()


def with_timeline(settings: Settings, server: CassandraServer) -> Settings:
    """Returns the settings with the timeline in this server, in a keyspace that no other test has."""
    own = {"timeline_url": f"{server.url.rpartition('/')[0]}/t{next(_NUMBERS)}", "timeline_timeout_ms": 20_000}
    return settings.model_copy(update=own)


async def empty_timeline(store: TimelineStore) -> None:
    """Deletes the keyspace of these settings, as if Cassandra had been made anew."""
    await store.change(f"DROP KEYSPACE IF EXISTS {store.keyspace}")
