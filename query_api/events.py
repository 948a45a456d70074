"""Questions about events themselves: the only ones that the log answers instead of a read model.

The log is never rebuilt and never behind, unless it is asked for a position that it has yet to reach.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.parameters import EventParameters, StreamParameters
from query_api.queries import Key, Page
from query_api.reading import POLL_SECONDS, AsOf, Document, View, as_fresh_as_can_be
from shared.event_store import StoredEvent, read_stored, read_stream, read_type
from shared.events import timestamp

Read = Callable[[AsyncConnection], Awaitable[Sequence[StoredEvent]]]


async def list_events(view: View, parameters: EventParameters, key: Key | None) -> AsOf[Page]:
    """Events of a ledger, of a type or of a stream, in order. A page goes on after the position of its last event."""
    after = parameters.after if key is None else key[0]
    ledger_id, limit = view.ledger_id, parameters.limit + 1

    async def read(connection: AsyncConnection) -> Sequence[StoredEvent]:
        if parameters.stream:
            return await read_stream(connection, ledger_id, parameters.stream, 0, limit, after, parameters.type)
        if parameters.type:
            return await read_type(connection, ledger_id, parameters.type, after, limit)
        return await read_stored(connection, ledger_id, after, limit)

    position, events = await read_log(view, read)
    page = events[: parameters.limit]
    next_key = [page[-1].position] if len(events) > parameters.limit else None
    return as_fresh_as_can_be(AsOf(position, Page([event_item(event) for event in page], next_key)), view.freshness)


async def list_stream(view: View, stream_id: str, parameters: StreamParameters, key: Key | None) -> AsOf[Page | None]:
    """Events of a stream with their versions; None where there is no such stream."""
    after = parameters.after if key is None else key[0]
    position, events = await read_log(
        view, lambda connection: read_stream(connection, view.ledger_id, stream_id, after, parameters.limit + 1)
    )
    page = [{"version": version, **event_item(event)} for version, event in enumerate(events, after + 1)][: parameters.limit]
    next_key = [page[-1]["version"]] if len(events) > parameters.limit else None
    found = Page(page, next_key) if page or after else None
    return as_fresh_as_can_be(AsOf(position, found), view.freshness)


async def read_log(view: View, read: Read) -> tuple[int, Sequence[StoredEvent]]:
    """What was read, and a position up to which nothing is missing.

    Events are committed in the order of their positions: whoever sees one sees all before it.
    """
    reader = view.reader
    head = await reader.require_ledger(view.ledger_id)
    end = asyncio.get_running_loop().time() + view.freshness.wait_seconds
    while head < view.freshness.min_position and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(POLL_SECONDS)
        head = await reader.require_ledger(view.ledger_id)
    async with reader.postgres.connect() as connection:
        events = await read(connection)
    return max(head, *(event.position for event in events[-1:]), 0), events


def event_item(event: StoredEvent) -> Document:
    """The data are as they were stored: an old schema version is not brought up to date, an unknown one not refused."""
    item: dict[str, Any] = {
        "position": event.position,
        "event_id": event.event_id,
        "type": event.type,
        "schema_version": event.schema_version,
        "data": orjson.Fragment(event.data),
        "metadata": orjson.Fragment(event.metadata),
        "recorded_at": timestamp(event.recorded_at),
        "hash": event.hash.hex(),
    }
    return item
