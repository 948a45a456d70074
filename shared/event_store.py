"""The log: append, read, lock. The only SQL on its tables, and the only place that knows how events are chained.

Appending takes one transaction, which ends by moving the ledger's head from where the batch found it. The lock on that row makes
positions dense and the same as the order of commits: whoever reads the events after a position can never miss one that
comes later with a lower number. `lock` takes it beforehand; without `lock`, `append` finds out whether the head has moved.

Every function takes the caller's connection: none of them begins or commits.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.connections import Driver
from shared.errors import NotFound, UnknownEvent
from shared.events import NO_KEYS, Event, RecordedEvent, Sealed, canonical, decode, encode
from shared.personal_data import Keys

PAGE_EVENTS: Final = 2_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Head(msgspec.Struct, frozen=True):
    """The end of a ledger's log. `now` is the database's clock, never before the event recorded last."""

    position: int
    hash: bytes
    now: datetime

    def is_same(self, other: "Head") -> bool:
        """Whether nothing stands between the two."""
        return self.position == other.position and self.hash == other.hash


class StreamHead(msgspec.Struct, frozen=True):
    """The head of a stream. `snapshot` is JSON of its folded state, as fold `fold_version` made it."""

    stream_id: str
    version: int
    position: int
    fold_version: int
    snapshot: str


class Answer(msgspec.Struct, frozen=True):
    """What a caller was answered under an idempotency key. `position` is None where nothing was recorded."""

    principal: str
    key: str
    request_hash: bytes
    status: int
    body: bytes
    position: int | None


class NewEvent(msgspec.Struct, frozen=True):
    """An event that has no position yet."""

    event_id: str
    event: Event
    metadata: dict[str, Any]


class StreamEvent(msgspec.Struct, frozen=True):
    """A stream's `version` is the event at `position`."""

    stream_id: str
    version: int
    position: int


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

FIND_ANSWERS: Final = text("""
    SELECT k.principal, k.key, k.request_hash, k.status, k.body, k.position
    FROM unnest(CAST(:principals AS text[]), CAST(:keys AS text[])) AS asked (principal, key)
    JOIN idempotency_keys k ON k.ledger_id = :ledger_id AND k.principal = asked.principal AND k.key = asked.key
""")

# The head first, as `append` does: whoever has it waits for nobody, so no two transactions can wait for each other. That it is
# counted makes PostgreSQL lock it before the streams; that these are locked, read them as they are by then.
LOCK: Final = text("""
    WITH head AS MATERIALIZED (
        SELECT position, hash, greatest(clock_timestamp(), recorded_at) FROM log_heads WHERE ledger_id = :ledger_id FOR UPDATE
    ), touched AS MATERIALIZED (
        SELECT stream_id, version, position, fold_version, CAST(snapshot AS text) AS snapshot
        FROM streams
        WHERE ledger_id = :ledger_id AND stream_id = ANY (CAST(:stream_ids AS text[])) AND (SELECT count(*) FROM head) > 0
        FOR UPDATE
    )
    SELECT * FROM head LEFT JOIN touched ON true
""")

READ_STREAM_HEADS: Final = """
    SELECT stream_id, version, position, fold_version, CAST(snapshot AS text)
    FROM streams
    WHERE ledger_id = $1 AND stream_id = ANY ($2)
"""

_HEAD: Final = """
    SELECT position, hash, greatest(clock_timestamp(), recorded_at) FROM log_heads WHERE ledger_id = :ledger_id
"""
READ_HEAD: Final = text(_HEAD)
LOCK_HEAD: Final = text(_HEAD + "FOR UPDATE")

# The driver asks of each element of an array whether it is an array itself. One text for all of them costs us next to nothing,
# and PostgreSQL no more. Keys and principals are not among these: there is nothing that they could not hold.
_SEPARATOR: Final = "\x1f"
"""JSON escapes it; ids and names of types do not have it."""


def _numbers(name: str) -> str:
    return f"CAST(CAST(:{name} AS text) AS bigint[])"


def _texts(name: str) -> str:
    return f"string_to_array(CAST(:{name} AS text), E'\\x1f')"


# One round trip for all that a batch writes, and all of it only if the head is where the batch found it. Constraints that two
# batches can race for are told apart by their names.
APPEND: Final = text(f"""
    WITH head AS (
        UPDATE log_heads
        SET position = :position + cardinality(CAST(:event_ids AS uuid[])), hash = :new_hash, recorded_at = :recorded_at
        WHERE ledger_id = :ledger_id AND position = :position AND hash = :hash
        RETURNING ledger_id
    ), new_events AS (
        INSERT INTO events (ledger_id, position, event_id, type, schema_version, data, metadata, recorded_at, hash)
        SELECT :ledger_id, :position + n, event_id, type, schema_version, CAST(data AS jsonb), CAST(metadata AS jsonb),
               :recorded_at, hash
        FROM head, unnest(CAST(:event_ids AS uuid[]), {_texts("types")}, {_numbers("schema_versions")},
                          {_texts("data")}, {_texts("metadata")}, CAST(:hashes AS bytea[]))
                   WITH ORDINALITY AS e (event_id, type, schema_version, data, metadata, hash, n)
    ), new_stream_events AS (
        INSERT INTO stream_events (ledger_id, stream_id, version, position)
        SELECT :ledger_id, stream_id, version, position
        FROM head, unnest({_texts("member_ids")}, {_numbers("member_versions")}, {_numbers("member_positions")})
                   AS m (stream_id, version, position)
    ), new_heads AS (
        INSERT INTO streams AS s (ledger_id, stream_id, version, position, fold_version, snapshot)
        SELECT :ledger_id, stream_id, version, position, fold_version, CAST(snapshot AS jsonb)
        FROM head, unnest({_texts("stream_ids")}, {_numbers("stream_versions")}, {_numbers("stream_positions")},
                          {_numbers("fold_versions")}, {_texts("snapshots")})
                   AS h (stream_id, version, position, fold_version, snapshot)
        ON CONFLICT ON CONSTRAINT streams_pkey DO UPDATE
        SET version = excluded.version, position = excluded.position,
            fold_version = excluded.fold_version, snapshot = excluded.snapshot
    ), new_keys AS (
        INSERT INTO idempotency_keys (ledger_id, principal, key, request_hash, status, body, position)
        SELECT :ledger_id, principal, key, request_hash, status, body, position
        FROM head, unnest(CAST(:principals AS text[]), CAST(:keys AS text[]), CAST(:request_hashes AS bytea[]),
                          {_numbers("statuses")}, CAST(:bodies AS bytea[]), {_numbers("key_positions")})
                   AS k (principal, key, request_hash, status, body, position)
    )
    SELECT count(*) FROM head
""")  # noqa: S608 # built of constants
# For the driver, which knows parameters by number only.
_COMPILED: Final = APPEND.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
_APPEND_SQL: Final = str(_COMPILED)
_APPEND_ORDER: Final = tuple(_COMPILED.positiontup or ())


async def find_answers(
    connection: AsyncConnection, ledger_id: str, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Answer]:
    """What was answered before, by (principal, key)."""
    pairs = list(keys)
    rows = await connection.execute(
        FIND_ANSWERS, {"ledger_id": ledger_id, "principals": [p for p, _ in pairs], "keys": [k for _, k in pairs]}
    )
    return {(row[0], row[1]): Answer(*row) for row in rows}


async def lock(connection: AsyncConnection, ledger_id: str, stream_ids: Iterable[str]) -> tuple[Head, dict[str, StreamHead]]:
    """The end of the log and the heads of those streams that exist.

    From here to the end of the transaction nobody else appends to this ledger, so what is decided on them holds.

    Raises:
        NotFound: there is no such ledger.
    """
    rows = (await connection.execute(LOCK, {"ledger_id": ledger_id, "stream_ids": list(stream_ids)})).all()
    if not rows:
        raise _no_ledger(ledger_id)
    return Head(*rows[0][:3]), {row[3]: StreamHead(*row[3:]) for row in rows if row[3] is not None}


def _no_ledger(ledger_id: str) -> NotFound:
    return NotFound(f"There is no ledger {ledger_id!r}.")


async def lock_head(connection: AsyncConnection, ledger_id: str) -> Head:
    """From here to the end of the transaction, nobody else appends to this ledger.

    Raises:
        NotFound: there is no such ledger.
    """
    row = (await connection.execute(LOCK_HEAD, {"ledger_id": ledger_id})).one_or_none()
    if row is None:
        raise _no_ledger(ledger_id)
    return Head(*row)


async def read_stream_heads(driver: Driver, ledger_id: str, stream_ids: Iterable[str]) -> dict[str, StreamHead]:
    """The committed heads of those streams that exist. Only an `append` after it can say whether they still hold."""
    rows = await driver.fetch(READ_STREAM_HEADS, ledger_id, list(stream_ids))
    return {row[0]: StreamHead(*row) for row in rows}


class Entry(msgspec.Struct, frozen=True):
    """All that a batch writes, as the appending statement takes it, and the head of the log with it."""

    head: Head
    arguments: list[Any]


def make_entry(
    ledger_id: str,
    head: Head,
    new_events: Sequence[NewEvent],
    stream_events: Sequence[StreamEvent],
    stream_heads: Iterable[StreamHead],
    answers: Sequence[Answer],
    keys: Keys,
) -> Entry:
    """The events at the positions after `head`, and everything that goes with them.

    `keys` are those of the people whom the events tell something about; it is sealed before it is hashed.
    """
    events = [_event_columns(ledger_id, event, keys) for event in new_events]
    hashes = _chain(ledger_id, head, events)
    new_head = Head(head.position + len(events), hashes[-1] if hashes else head.hash, head.now)
    parameters = {
        "ledger_id": ledger_id,
        "position": head.position,
        "hash": head.hash,
        "new_hash": new_head.hash,
        "recorded_at": head.now,
        **_columns(events, event_ids=list, types=_as_texts, schema_versions=_as_numbers, data=_as_texts, metadata=_as_texts),
        "hashes": hashes,
        **_columns(map(_fields, stream_events), member_ids=_as_texts, member_versions=_as_numbers, member_positions=_as_numbers),
        **_columns(
            map(_fields, stream_heads),
            stream_ids=_as_texts,
            stream_versions=_as_numbers,
            stream_positions=_as_numbers,
            fold_versions=_as_numbers,
            snapshots=_as_texts,
        ),
        **_columns(
            map(_fields, answers),
            principals=list,
            keys=list,
            request_hashes=list,
            statuses=_as_numbers,
            bodies=list,
            key_positions=_as_numbers,
        ),
    }
    return Entry(new_head, [parameters[name] for name in _APPEND_ORDER])


async def append(driver: Driver, entry: Entry) -> bool:
    """False, and nothing is written, where the log does not end any more at the head that the entry was made for.

    The connection is one that is in a transaction: see `shared.connections.driver_of`.

    Raises:
        asyncpg.UniqueViolationError: another transaction took a version, an event's id or a key first; begin anew.
    """
    if not driver.is_in_transaction():
        msg = "append takes part in its caller's transaction, and there is none"
        raise RuntimeError(msg)
    return bool(await driver.fetchval(_APPEND_SQL, *entry.arguments))


OPEN_LEDGER: Final = text("""
    INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES (:ledger_id, 0, '', to_timestamp(0))
    ON CONFLICT ON CONSTRAINT log_heads_pkey DO NOTHING
""")

PUT_HEAD: Final = "UPDATE log_heads SET position = $2, hash = $3, recorded_at = $4 WHERE ledger_id = $1"

PUT_STREAM_HEAD: Final = """
    INSERT INTO streams (ledger_id, stream_id, version, position, fold_version, snapshot) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT ON CONSTRAINT streams_pkey DO UPDATE
    SET version = excluded.version, position = excluded.position,
        fold_version = excluded.fold_version, snapshot = excluded.snapshot
"""


async def open_ledger(connection: AsyncConnection, ledger_id: str) -> Head:
    """Locks the end of a ledger's log; of a new and empty one where there was none."""
    await connection.execute(OPEN_LEDGER, {"ledger_id": ledger_id})
    return await lock_head(connection, ledger_id)


async def append_stored(
    driver: Driver,
    ledger_id: str,
    events: Sequence["StoredEvent"],
    stream_events: Iterable[StreamEvent],
    stream_heads: Iterable[StreamHead],
) -> None:
    """Writes events of another copy of this ledger as they are stored there, at the end of a log that the caller has locked.

    The caller has proven that they follow from what is there.

    Raises:
        asyncpg.DataError, asyncpg.IntegrityConstraintViolationError: they are not what PostgreSQL can hold.
    """

    async def copy(table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        records = [(ledger_id, *row) for row in rows]
        await driver.copy_records_to_table(table, records=records, columns=["ledger_id", *columns.split()])

    stored = [(e.position, e.event_id, e.type, e.schema_version, e.data, e.metadata, e.recorded_at, e.hash) for e in events]
    await copy("events", "position event_id type schema_version data metadata recorded_at hash", stored)
    await copy("stream_events", "stream_id version position", map(_fields, stream_events))
    await driver.executemany(PUT_STREAM_HEAD, [(ledger_id, *_fields(head)) for head in stream_heads])
    await driver.execute(PUT_HEAD, ledger_id, events[-1].position, events[-1].hash, events[-1].recorded_at)


async def append_answers(driver: Driver, ledger_id: str, answers: Iterable[Answer]) -> None:
    """Writes answers of another copy of this ledger.

    Raises what `append_stored` raises.
    """
    columns = ["ledger_id", "principal", "key", "request_hash", "status", "body", "position"]
    records = [(ledger_id, *_fields(answer)) for answer in answers]
    await driver.copy_records_to_table("idempotency_keys", records=records, columns=columns)


_fields = msgspec.structs.astuple
EventColumns = tuple[str, str, int, str, str]


def _event_columns(ledger_id: str, new: NewEvent, keys: Keys) -> EventColumns:
    event_type = type(new.event)
    return (
        new.event_id,
        event_type.__name__,
        event_type.schema_version,
        encode(ledger_id, new.event_id, new.event, keys).decode(),
        canonical(new.metadata).decode(),
    )


def _columns(rows: Iterable[Sequence[Any]], **types: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Rows turned into one array for each column, in the form that the statement takes it."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return {name: as_array(column) for (name, as_array), column in zip(types.items(), columns, strict=True)}


def _as_numbers(numbers: Sequence[int | None]) -> str:
    return "{" + ",".join(["NULL" if number is None else str(number) for number in numbers]) + "}"


def _as_texts(texts: Sequence[str]) -> str:
    joined = _SEPARATOR.join(texts)
    if texts and joined.count(_SEPARATOR) != len(texts) - 1:
        msg = "a text with the separator in it"
        raise ValueError(msg)
    return joined


def _chain(ledger_id: str, head: Head, events: Iterable[EventColumns]) -> list[bytes]:
    hashes = []
    last = head.hash
    for position, columns in enumerate(events, head.position + 1):
        last = event_hash(last, ledger_id, position, *columns, head.now)
        hashes.append(last)
    return hashes


def event_hash(  # an event has that many parts, and the hash covers each of them
    hash_before: bytes,
    ledger_id: str,
    position: int,
    event_id: str,
    type_name: str,
    schema_version: int,
    data: str,
    metadata: str,
    recorded_at: datetime,
) -> bytes:
    """SHA-256 over the hash before it and `["ledger",position,"id","type",schema version,data,metadata,microseconds]`.

    `data` and `metadata` are canonical JSON.
    """
    microseconds = (recorded_at - _EPOCH) // _MICROSECOND
    event = f'["{ledger_id}",{position},"{event_id}","{type_name}",{schema_version},{data},{metadata},{microseconds}]'
    return hashlib.sha256(hash_before + event.encode()).digest()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# A moment that Python cannot hold was not recorded by us: brought into its range, it does not fit the event's hash.
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

READ_AT: Final = text(f"""
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.ledger_id = :ledger_id AND e.position = ANY (CAST(:positions AS bigint[])) ORDER BY e.position
""")  # noqa: S608 # built of constants

COUNT_TYPES: Final = text("""
    SELECT type, count(*) FROM events WHERE ledger_id = :ledger_id AND position > :after AND position <= :up_to GROUP BY type
""")

# The page is cut before it is joined, so that its cost does not depend on the size of the tables.
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

READ_STREAM_IDS: Final = text("""
    SELECT h.stream_id, EXISTS (
        SELECT FROM stream_events s WHERE s.ledger_id = h.ledger_id AND s.stream_id = h.stream_id AND s.version = 1
    )
    FROM streams h
    WHERE h.ledger_id = :ledger_id AND h.stream_id > :after
    ORDER BY h.stream_id LIMIT :limit
""")


READ_ENDS: Final = text("""
    SELECT h.position,
           coalesce((SELECT min(e.position) FROM events e WHERE e.ledger_id = :ledger_id), 1),
           coalesce((SELECT max(e.position) FROM events e WHERE e.ledger_id = :ledger_id), 0)
    FROM log_heads h WHERE h.ledger_id = :ledger_id
""")


class Member(msgspec.Struct, frozen=True):
    """An event as a stream holds it, beside the head that the stream had at the same moment.

    `event_id`, `type`, `schema_version` and `data` are None where the log has no such event, those of the head where the
    stream has none.
    `snapshot` is there for the last version only.
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
    """A row of `events`, not yet decoded. `data` and `metadata` are JSON as PostgreSQL prints it."""

    ledger_id: str
    position: int
    event_id: str
    type: str
    schema_version: int
    data: str
    metadata: str
    recorded_at: datetime
    hash: bytes

    def decoded(self, keys: Keys) -> RecordedEvent:
        """What is personal is opened with `keys`, and reads as erased where they have none.

        Raises:
        UnknownEvent: this code cannot read the event; the message says which.
        """
        try:
            event = decode(self.type, self.schema_version, self.data, Sealed(self.ledger_id, self.event_id, keys))
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

    def computed_hash(self, hash_before: bytes) -> bytes:
        """What `hash` must be if nobody has touched the event or one before it."""
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


async def read_stored(connection: AsyncConnection, ledger_id: str, after: int, limit: int = PAGE_EVENTS) -> list[StoredEvent]:
    """The next events of the ledger, as they are stored."""
    rows = await connection.execute(READ_ALL, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [StoredEvent(*row) for row in rows]


async def read_next(driver: Driver, ledger_id: str, after: int, limit: int) -> list[StoredEvent]:
    """What `read_stored` reads, by the driver alone: for who is told of each event and reads it at once."""
    return [StoredEvent(*row) for row in await driver.fetch(READ_NEXT, ledger_id, after, limit)]


async def read_all(connection: AsyncConnection, ledger_id: str, after: int, limit: int = PAGE_EVENTS) -> list[RecordedEvent]:
    """The next events of the ledger, in order, with none left out and nothing personal in them.

    Raises:
        UnknownEvent: this code cannot read one of them.
    """
    return [stored.decoded(NO_KEYS.keys) for stored in await read_stored(connection, ledger_id, after, limit)]


async def read_type(connection: AsyncConnection, ledger_id: str, type_name: str, after: int, limit: int) -> list[StoredEvent]:
    """The next events of one type."""
    rows = await connection.execute(READ_TYPE, {"ledger_id": ledger_id, "type": type_name, "after": after, "limit": limit})
    return [StoredEvent(*row) for row in rows]


async def read_stream(
    connection: AsyncConnection,
    ledger_id: str,
    stream_id: str,
    after_version: int = 0,
    limit: int = PAGE_EVENTS,
    after_position: int = 0,
    type_name: str | None = None,
) -> list[StoredEvent]:
    """The events of one stream after a version; the first has version `after_version + 1`, and there are no gaps.

    `after_position` and `type_name` leave out those before a position and those of other types.
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
    """The last event of one of these types in a stream."""
    parameters = {"ledger_id": ledger_id, "stream_id": stream_id, "types": types}
    row = (await connection.execute(READ_LAST, parameters)).one_or_none()
    return StoredEvent(*row) if row else None


async def read_streams(
    connection: AsyncConnection, ledger_id: str, stream_ids: Iterable[str], events_max: int
) -> dict[str, list[StoredEvent]]:
    """Stream → all its events, in order. Where all together have more than `events_max`, the longest streams are left out."""
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


async def read_at(connection: AsyncConnection, ledger_id: str, positions: Iterable[int]) -> list[StoredEvent]:
    """The events at these positions, as far as there are any."""
    return [
        StoredEvent(*row) for row in await connection.execute(READ_AT, {"ledger_id": ledger_id, "positions": list(positions)})
    ]


async def count_types(connection: AsyncConnection, ledger_id: str, after: int, up_to: int) -> dict[str, int]:
    """Type → how many events of it there are between two positions."""
    rows = await connection.execute(COUNT_TYPES, {"ledger_id": ledger_id, "after": after, "up_to": up_to})
    return {row[0]: row[1] for row in rows}


async def read_members(
    connection: AsyncConnection, ledger_id: str, after: tuple[str, int], limit: int = PAGE_EVENTS
) -> list[Member]:
    """All streams of the ledger with all their events, stream by stream and in order, after a (stream, version)."""
    parameters = {"ledger_id": ledger_id, "stream_id": after[0], "version": after[1], "limit": limit}
    return [Member(*row) for row in await connection.execute(READ_MEMBERS, parameters)]


async def read_stream_ids(
    connection: AsyncConnection, ledger_id: str, after: str, limit: int = PAGE_EVENTS
) -> list[tuple[str, bool]]:
    """The streams that have a head, in order, and whether they have a first event too."""
    rows = await connection.execute(READ_STREAM_IDS, {"ledger_id": ledger_id, "after": after, "limit": limit})
    return [(row[0], row[1]) for row in rows]


READ_ANSWERS: Final = text("""
    SELECT principal, key, request_hash, status, body, position FROM idempotency_keys
    WHERE ledger_id = :ledger_id AND (principal, key) > (:principal, :key)
    ORDER BY principal, key LIMIT :limit
""")


async def read_answers(
    connection: AsyncConnection, ledger_id: str, after: tuple[str, str], limit: int = PAGE_EVENTS
) -> list[Answer]:
    """All answers, in the order of principals and keys, after one of them."""
    parameters = {"ledger_id": ledger_id, "principal": after[0], "key": after[1], "limit": limit}
    return [Answer(*row) for row in await connection.execute(READ_ANSWERS, parameters)]


async def read_recorded_at(connection: AsyncConnection, ledger_id: str, positions: Iterable[int]) -> dict[int, datetime]:
    """When the events at these positions were recorded, as far as they exist."""
    rows = await connection.execute(
        text("SELECT position, recorded_at FROM events WHERE ledger_id = :ledger_id AND position = ANY (:positions)"),
        {"ledger_id": ledger_id, "positions": list(positions)},
    )
    return {row[0]: row[1] for row in rows}


async def read_heads(connection: AsyncConnection) -> dict[str, tuple[int, datetime]]:
    """Ledger → its last position and when that was recorded, for every ledger there is."""
    rows = await connection.execute(text("SELECT ledger_id, position, recorded_at FROM log_heads ORDER BY ledger_id"))
    return {row[0]: (row[1], row[2]) for row in rows}


async def read_head(connection: AsyncConnection, ledger_id: str) -> Head:
    """The end of the log, not locked.

    Raises:
        NotFound: there is no such ledger.
    """
    row = (await connection.execute(READ_HEAD, {"ledger_id": ledger_id})).one_or_none()
    if row is None:
        raise _no_ledger(ledger_id)
    return Head(*row)


async def read_ends(connection: AsyncConnection, ledger_id: str) -> tuple[int, int, int]:
    """Where the head says that the log ends, and the first and last position that have an event; all at one moment."""
    row = (await connection.execute(READ_ENDS, {"ledger_id": ledger_id})).one()
    return row[0], row[1], row[2]


async def has_event(connection: AsyncConnection, ledger_id: str, event_id: str) -> bool:
    """Whether the event was committed. Behind `lock_head`, the answer is final."""
    return bool(
        await connection.scalar(
            text("SELECT EXISTS (SELECT FROM events WHERE ledger_id = :ledger_id AND event_id = :event_id)"),
            {"ledger_id": ledger_id, "event_id": event_id},
        )
    )
