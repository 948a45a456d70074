"""Reads events for queries from the log instead of a read model.

The log is never rebuilt and never behind. A query waits only if its minimum position is one that the log has not reached yet. A
replica that has what is asked for is read in place of the log. It may be behind, and the position of the answer tells that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.reading import POLL_SECONDS, CallerView
from shared.log.heads import read_head
from shared.log.read import StoredEvent, read_stored, read_stream, read_type

T = TypeVar("T")

ReadEvents = Callable[[AsyncConnection], Awaitable[Sequence[StoredEvent]]]


class EventFilter(msgspec.Struct, frozen=True):
    """A filter for the events of a ledger: all events, or only those of a type, of a stream, or of both."""

    type: str | None = None
    stream: str | None = None

    async def read(self, connection: AsyncConnection, ledger_id: str, after: int, limit: int) -> Sequence[StoredEvent]:
        """Returns up to `limit` matching events after the position `after`, in order."""
        if self.stream:
            return await read_stream(connection, ledger_id, self.stream, 0, limit, after, self.type)
        if self.type:
            return await read_type(connection, ledger_id, self.type, after, limit)
        return await read_stored(connection, ledger_id, after, limit)


async def ask_log(view: CallerView, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Asks about what never changes once it is there: a replica that has it, or else PostgreSQL itself."""
    found = await view.reader.replica.ask(question)
    if found is not None:
        return found
    async with view.reader.postgres.connect() as connection:
        return await question(connection)


async def read_log(view: CallerView, read: ReadEvents) -> tuple[int, Sequence[StoredEvent]]:
    """Reads events. Returns them with a position up to which no matching event is missing.

    Without a replica that can tell, first waits, for a bounded time, until the log has reached the caller's minimum position.
    Events are committed in the order of their positions, so a reader that sees an event also sees all events before it.
    """
    reader = view.reader

    async def read_replica(connection: AsyncConnection) -> tuple[int, Sequence[StoredEvent]] | None:
        head = (await read_head(connection, view.ledger_id)).position
        events = await read(connection) if head >= view.freshness.min_position else ()
        return (max(head, events[-1].position), events) if events else None

    if found := await reader.replica.ask(read_replica):
        return found
    head = await reader.require_ledger(view.ledger_id)
    end = asyncio.get_running_loop().time() + view.freshness.wait_seconds
    while head < view.freshness.min_position and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(POLL_SECONDS)
        head = await reader.require_ledger(view.ledger_id)
    async with reader.postgres.connect() as connection:
        events = await read(connection)
    return max(head, *(event.position for event in events[-1:]), 0), events
