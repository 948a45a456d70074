"""Cassandra for tests: one server, in which each test has a keyspace of its own."""

import itertools
from typing import Final

from dev.cassandra_server import CassandraServer
from shared.settings import Settings
from shared.timeline.store import TimelineStore

_NUMBERS: Final = itertools.count(1)


def with_timeline(settings: Settings, server: CassandraServer) -> Settings:
    """Returns the settings with the timeline in this server, in a keyspace that no other test has."""
    own = {"timeline_url": f"{server.url.rpartition('/')[0]}/t{next(_NUMBERS)}", "timeline_timeout_ms": 20_000}
    return settings.model_copy(update=own)


async def empty_timeline(store: TimelineStore) -> None:
    """Deletes the keyspace of these settings, as if Cassandra had been made anew."""
    await store.change(f"DROP KEYSPACE IF EXISTS {store.keyspace}")
