"""Reads the events of a ledger, of a stream or of a type. Each function returns events in order and leaves none out.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import UnknownEvent
from shared.log.encoding import NO_KEYS, DecryptionKeys, canonical, decode, people_in_data
from shared.log.events import RecordedEvent
from shared.log.hash_chain import event_hash
from shared.privacy.encryption import KeysByPerson
from shared.stores.postgres import Driver
from shared.timestamps import timestamp

READ_EVENTS_MAX: Final = 2_000

# Daybook never records a time outside Python's range. If somebody changed a stored time to such a value, the query moves it into
# the range, so that the event can be read; the event's hash then shows the change.
_EVENT_COLUMNS: Final = """
    e.ledger_id, e.position, CAST(e.event_id AS text), e.type, e.schema_version, CAST(e.data AS text), CAST(e.metadata AS text),
    least(greatest(e.recorded_at, timestamptz '0001-01-02 00:00Z'), timestamptz '9999-12-30 00:00Z'), e.hash
"""

READ_ALL: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.ledger_id = :ledger_id AND e.position > :after
    ORDER BY e.position LIMIT :limit
""")  # noqa: S608 # built of constants

READ_NEXT: Final = f"""
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.ledger_id = $1 AND e.position > $2
    ORDER BY e.position LIMIT $3
"""  # noqa: S608 # built of constants

READ_TYPE: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.ledger_id = :ledger_id AND e.type = :type AND e.position > :after
    ORDER BY e.position LIMIT :limit
""")  # noqa: S608 # built of constants

READ_STREAM: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM stream_events s
    JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    WHERE s.ledger_id = :ledger_id AND s.stream_id = :stream_id AND s.version > :after AND s.position > :after_position
    AND (CAST(:type AS text) IS NULL OR e.type = :type)
    ORDER BY s.version LIMIT :limit
""")  # noqa: S608 # built of constants

READ_LAST: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM stream_events s
    JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    WHERE s.ledger_id = :ledger_id AND s.stream_id = :stream_id AND e.type = ANY (CAST(:types AS text[]))
    ORDER BY s.version DESC LIMIT 1
""")  # noqa: S608 # built of constants

READ_VERSIONS: Final = text("""
    SELECT stream_id, version FROM streams
    WHERE ledger_id = :ledger_id AND stream_id = ANY (CAST(:stream_ids AS text[])) ORDER BY version, stream_id
""")

READ_STREAMS: Final = text(f"""
    SELECT s.stream_id, {_EVENT_COLUMNS} FROM stream_events s
    JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    WHERE s.ledger_id = :ledger_id AND s.stream_id = ANY (CAST(:stream_ids AS text[]))
    ORDER BY s.stream_id, s.version
""")  # noqa: S608 # built of constants

READ_FIRST: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM stream_events s
    JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    WHERE s.ledger_id = :ledger_id AND s.stream_id = ANY (CAST(:stream_ids AS text[])) AND s.version = 1
""")  # noqa: S608 # built of constants

READ_AT: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.ledger_id = :ledger_id AND e.position = ANY (CAST(:positions AS bigint[])) ORDER BY e.position
""")  # noqa: S608 # built of constants

COUNT_TYPES: Final = text("""
    SELECT type, count(*) FROM events WHERE ledger_id = :ledger_id AND position > :after AND position <= :up_to GROUP BY type
""")

# The limit is applied before the joins, so that the cost does not depend on the size of the tables.
READ_MEMBERS: Final = text("""
    SELECT s.stream_id, s.version, s.position, CAST(e.event_id AS text), e.type, e.schema_version, CAST(e.data AS text),
           h.version, h.position,
           h.fold_version, CASE WHEN h.version = s.version THEN CAST(h.snapshot AS text) END
    FROM (
        SELECT ledger_id, stream_id, version, position FROM stream_events
        WHERE ledger_id = :ledger_id AND (stream_id, version) > (:stream_id, :version)
        ORDER BY stream_id, version LIMIT :limit
    ) s
    LEFT JOIN events e ON e.ledger_id = s.ledger_id AND e.position = s.position
    LEFT JOIN streams h ON h.ledger_id = s.ledger_id AND h.stream_id = s.stream_id
    ORDER BY s.stream_id, s.version
""")

FIND_EVENTS: Final = text("""
    SELECT CAST(event_id AS text) FROM events WHERE ledger_id = :ledger_id AND event_id = ANY (CAST(:event_ids AS uuid[]))
""")

READ_STREAM_IDS: Final = text("""
    SELECT h.stream_id, EXISTS (
        SELECT FROM stream_events s WHERE s.ledger_id = h.ledger_id AND s.stream_id = h.stream_id AND s.version = 1
    )
    FROM streams h
    WHERE h.ledger_id = :ledger_id AND h.stream_id > :after
    ORDER BY h.stream_id LIMIT :limit
""")


class StreamMember(msgspec.Struct, frozen=True):
    """One version of a stream, the event that it refers to, and the stream's head, all read by one statement.

    `event_id`, `type`, `schema_version` and `data` are None if the log has no event at this position. `head_version`,
    `head_position` and `fold_version` are None if the stream has no head. Only the last version has a `snapshot`.
    """

    stream_id: str
    version: int
    position: int
    event_id: str | None
    type: str | None
    schema_version: int | None
    data: str | None
    head_version: int | None
    head_position: int | None
    fold_version: int | None
    snapshot: str | None


class StoredEvent(msgspec.Struct, frozen=True):
    """An undecoded row of the table `events`. `data` and `metadata` are JSON as PostgreSQL prints it."""

    ledger_id: str
    position: int
    event_id: str
    type: str
    schema_version: int
    data: str
    metadata: str
    recorded_at: datetime
    hash: bytes

    def decoded(self, keys: KeysByPerson) -> RecordedEvent:
        """Returns the event with its personal fields decrypted. The fields of a person without a key in `keys` read as `ERASED`.

        Raises:
            UnknownEvent: this code cannot read the event. The message says which event it is.
        """
        try:
            event = decode(self.type, self.schema_version, self.data, DecryptionKeys(self.ledger_id, self.event_id, keys))
        except UnknownEvent as unknown:
            msg = f"position {self.position} of ledger {self.ledger_id!r} (event {self.event_id}): {unknown.detail}"
            raise UnknownEvent(msg, position=self.position, event_id=self.event_id) from unknown
        return RecordedEvent(
            ledger_id=self.ledger_id,
            position=self.position,
            event_id=self.event_id,
            event=event,
            metadata=msgspec.json.decode(self.metadata),
            recorded_at=self.recorded_at,
            hash=self.hash,
        )

    def members(self) -> dict[str, Any]:
        """Returns the members of the event as `GET /v1/events` shows it, for orjson. Personal fields are encrypted.

        Data of an old schema version are not upgraded. An event with an unknown schema version has members too.
        """
        return {
            "position": self.position,
            "event_id": self.event_id,
            "type": self.type,
            "schema_version": self.schema_version,
            "data": orjson.Fragment(self.data),
            "metadata": orjson.Fragment(self.metadata),
            "recorded_at": timestamp(self.recorded_at),
            "hash": self.hash.hex(),
        }

    def computed_hash(self, hash_before: bytes) -> bytes:
        """Returns the hash of this event, computed from its fields and the hash of the previous event.

        If it differs from the stored hash, the event or an earlier one was changed.
        """
        data, metadata = (canonical(msgspec.json.decode(part)).decode() for part in (self.data, self.metadata))
        return event_hash(
            hash_before,
            self.ledger_id,
            self.position,
            self.event_id,
            self.type,
            self.schema_version,
            data,
            metadata,
            self.recorded_at,
        )


async def read_stored(connection: AsyncConnection, ledger_id: str, after: int, limit: int = READ_EVENTS_MAX) -> list[StoredEvent]:
    """Returns the next events of the ledger after a position, undecoded."""
    rows = await connection.execute(READ_ALL, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [StoredEvent(*row) for row in rows]


async def read_next(driver: Driver, ledger_id: str, after: int, limit: int) -> list[StoredEvent]:
    """Returns the next events after a position, as `read_stored` does, but without SQLAlchemy, which costs more than the query.

    Readers that are notified of each event use this function.
    """
    return [StoredEvent(*row) for row in await driver.fetch(READ_NEXT, ledger_id, after, limit)]


async def read_all(connection: AsyncConnection, ledger_id: str, after: int, limit: int = READ_EVENTS_MAX) -> list[RecordedEvent]:
    """Returns the next events of the ledger after a position, decoded without keys: all personal fields read as `ERASED`.

    Raises:
        UnknownEvent: this code cannot read one of the events.
    """
    return [stored.decoded(NO_KEYS.keys) for stored in await read_stored(connection, ledger_id, after, limit)]


async def read_type(connection: AsyncConnection, ledger_id: str, type_name: str, after: int, limit: int) -> list[StoredEvent]:
    """Returns the next events of one type after a position, undecoded."""
    rows = await connection.execute(READ_TYPE, {"ledger_id": ledger_id, "type": type_name, "after": after, "limit": limit})
    return [StoredEvent(*row) for row in rows]


async def read_stream(
    connection: AsyncConnection,
    ledger_id: str,
    stream_id: str,
    after_version: int = 0,
    limit: int = READ_EVENTS_MAX,
    after_position: int = 0,
    type_name: str | None = None,
) -> list[StoredEvent]:
    """Returns the next events of one stream after a version. The first has version `after_version + 1`, and none is missing.

    Two filters can leave events out: `after_position` skips events up to that position, and `type_name` skips other types.
    """
    rows = await connection.execute(
        READ_STREAM,
        {
            "ledger_id": ledger_id,
            "stream_id": stream_id,
            "after": after_version,
            "after_position": after_position,
            "type": type_name,
            "limit": limit,
        },
    )
    return [StoredEvent(*row) for row in rows]


async def read_last(connection: AsyncConnection, ledger_id: str, stream_id: str, types: Sequence[str]) -> StoredEvent | None:
    """Returns the last event of the stream that has one of these types; None if there is no such event."""
    parameters = {"ledger_id": ledger_id, "stream_id": stream_id, "types": types}
    row = (await connection.execute(READ_LAST, parameters)).one_or_none()
    return StoredEvent(*row) if row else None


async def read_streams(
    connection: AsyncConnection, ledger_id: str, stream_ids: Iterable[str], events_max: int
) -> dict[str, list[StoredEvent]]:
    """Returns all events of these streams, by stream id, in the order of their versions.

    If the streams have more than `events_max` events in total, the longest streams are left out.
    """
    asked = {"ledger_id": ledger_id, "stream_ids": list(stream_ids)}
    streams: dict[str, list[StoredEvent]] = {stream_id: [] for stream_id in asked["stream_ids"]}
    total = 0
    for stream_id, version in await connection.execute(READ_VERSIONS, asked):
        total += version
        if total > events_max:
            del streams[stream_id]
    for row in await connection.execute(READ_STREAMS, asked | {"stream_ids": list(streams)}):
        streams[row[0]].append(StoredEvent(*row[1:]))
    return streams


async def read_first(connection: AsyncConnection, ledger_id: str, stream_ids: Iterable[str]) -> list[StoredEvent]:
    """Returns the first event of each of these streams, in any order. A stream without events is left out."""
    rows = await connection.execute(READ_FIRST, {"ledger_id": ledger_id, "stream_ids": list(stream_ids)})
    return [StoredEvent(*row) for row in rows]


async def read_at(connection: AsyncConnection, ledger_id: str, positions: Iterable[int]) -> list[StoredEvent]:
    """Returns the events at these positions, in order. A position without an event is left out."""
    return [
        StoredEvent(*row) for row in await connection.execute(READ_AT, {"ledger_id": ledger_id, "positions": list(positions)})
    ]


async def count_types(connection: AsyncConnection, ledger_id: str, after: int, up_to: int) -> dict[str, int]:
    """Returns the number of events of each type, by type. It counts the positions after `after` up to and including `up_to`."""
    rows = await connection.execute(COUNT_TYPES, {"ledger_id": ledger_id, "after": after, "up_to": up_to})
    return {row[0]: row[1] for row in rows}


async def read_members(
    connection: AsyncConnection, ledger_id: str, after: tuple[str, int], limit: int = READ_EVENTS_MAX
) -> list[StreamMember]:
    """Returns the next rows of `stream_events` after a (stream, version), with their events, ordered by stream and version."""
    parameters = {"ledger_id": ledger_id, "stream_id": after[0], "version": after[1], "limit": limit}
    return [StreamMember(*row) for row in await connection.execute(READ_MEMBERS, parameters)]


async def read_stream_ids(
    connection: AsyncConnection, ledger_id: str, after: str, limit: int = READ_EVENTS_MAX
) -> list[tuple[str, bool]]:
    """Returns the next streams that have a head, in order. Each comes with True if an event has version 1 of the stream."""
    rows = await connection.execute(READ_STREAM_IDS, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [(row[0], row[1]) for row in rows]


async def read_recorded_at(connection: AsyncConnection, ledger_id: str, positions: Iterable[int]) -> dict[int, datetime]:
    """Returns when the events at these positions were recorded, by position. Positions without an event are left out."""
    rows = await connection.execute(
        text("SELECT position, recorded_at FROM events WHERE ledger_id = :ledger_id AND position = ANY (:positions)"),
        {"ledger_id": ledger_id, "positions": list(positions)},
    )
    return {row[0]: row[1] for row in rows}


async def find_events(connection: AsyncConnection, ledger_id: str, event_ids: Collection[str]) -> set[str]:
    """Returns those of the event ids that are committed. If this transaction has locked the head, that cannot change any more."""
    rows = await connection.execute(FIND_EVENTS, {"ledger_id": ledger_id, "event_ids": list(event_ids)})
    return {row[0] for row in rows}


def people_in_events(events: Iterable[StoredEvent]) -> set[str]:
    """Returns the ids of the people whose keys are needed to decode these events. Empty for most events."""
    return {person_id for stored in events for person_id in people_in_data(stored.type, stored.data)}
