"""Appends events to a log. One SQL statement writes a whole batch; `prepare_append` prepares its arguments.

The statement updates the ledger's row in `log_heads`, which locks that row until the transaction ends. Because of the lock,
positions have no gaps and follow the order of commits. A reader that has read up to a position therefore never misses an event
that is committed later with a lower position. `lock_streams` takes the same lock before a batch is decided. A batch that was
decided without the lock is safe too: `append_prepared` checks that the head has not moved.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from shared.log.encoding import canonical, encode
from shared.log.events import Event
from shared.log.hash_chain import EventColumns, chain
from shared.log.heads import Head, StreamHead
from shared.log.read import StoredEvent
from shared.log.stored_replies import StoredReply
from shared.privacy.encryption import KeysByPerson
from shared.stores.postgres import Driver

# Most columns are sent as one text that PostgreSQL splits. A real array costs more, because the driver checks each element for
# being an array itself. Idempotency keys and principals are sent as real arrays, because they may contain any character.
_SEPARATOR: Final = "\x1f"
"""The character between the values of a column. JSON escapes it, and ids and type names never contain it."""


def _numbers(name: str) -> str:
    return f"CAST(CAST(:{name} AS text) AS bigint[])"


def _texts(name: str) -> str:
    return f"string_to_array(CAST(:{name} AS text), E'\\x1f')"


SKEW_SECONDS_MAX: Final = 1
"""How far the time of a batch may be ahead of PostgreSQL's clock, in seconds. A batch that is further ahead is not written."""

# One round trip writes the whole batch, but only if the head has not moved since the batch read it. When two batches race, the
# name of the violated constraint tells what they both tried to write.
APPEND: Final = text(f"""
    WITH head AS (
        UPDATE log_heads
        SET position = :position + cardinality(CAST(:event_ids AS uuid[])), hash = :new_hash,
            recorded_at = CASE WHEN cardinality(CAST(:event_ids AS uuid[])) > 0 THEN :recorded_at ELSE recorded_at END
        WHERE ledger_id = :ledger_id AND position = :position AND hash = :hash
              AND :recorded_at <= greatest(recorded_at, clock_timestamp() + interval '{SKEW_SECONDS_MAX} seconds')
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
    SELECT clock_timestamp() FROM head
""")  # noqa: S608 # built of constants
# The driver takes parameters by number, so the names are replaced once here.
_COMPILED: Final = APPEND.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
_APPEND_SQL: Final = str(_COMPILED)
_APPEND_ORDER: Final = tuple(_COMPILED.positiontup or ())

PUT_HEAD: Final = "UPDATE log_heads SET position = $2, hash = $3, recorded_at = $4 WHERE ledger_id = $1"

PUT_STREAM_HEAD: Final = """
    INSERT INTO streams (ledger_id, stream_id, version, position, fold_version, snapshot) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT ON CONSTRAINT streams_pkey DO UPDATE
    SET version = excluded.version, position = excluded.position,
        fold_version = excluded.fold_version, snapshot = excluded.snapshot
"""

_fields = msgspec.structs.astuple


class NewEvent(msgspec.Struct, frozen=True):
    """An event that will be appended. It has no position yet."""

    event_id: str
    event: Event
    metadata: dict[str, Any]


class StreamEvent(msgspec.Struct, frozen=True):
    """States that the event at `position` of the log has version `version` in the stream."""

    stream_id: str
    version: int
    position: int


class PreparedAppend(msgspec.Struct, frozen=True):
    """The arguments of the appending statement for one batch. `head` is the end of the log after the batch."""

    head: Head
    arguments: list[Any]


def prepare_append(
    ledger_id: str,
    head: Head,
    new_events: Sequence[NewEvent],
    stream_events: Sequence[StreamEvent],
    stream_heads: Iterable[StreamHead],
    replies: Sequence[StoredReply],
    keys: KeysByPerson,
) -> PreparedAppend:
    """Prepares a batch: gives its events the positions after `head`, encrypts their personal fields, and then hashes them.

    `keys` must contain the key of every person whose personal data the events hold.
    """
    events = [_event_columns(ledger_id, event, keys) for event in new_events]
    hashes = chain(head.hash, ledger_id, head.position + 1, events, head.now)
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
            map(StreamHead.columns, stream_heads),
            stream_ids=_as_texts,
            stream_versions=_as_numbers,
            stream_positions=_as_numbers,
            fold_versions=_as_numbers,
            snapshots=_as_texts,
        ),
        **_columns(
            map(_fields, replies),
            principals=list,
            keys=list,
            request_hashes=list,
            statuses=_as_numbers,
            bodies=list,
            key_positions=_as_numbers,
        ),
    }
    return PreparedAppend(new_head, [parameters[name] for name in _APPEND_ORDER])


async def append_prepared(driver: Driver, prepared: PreparedAppend) -> datetime | None:
    """Writes a prepared batch and returns the time by PostgreSQL's clock.

    Returns None and writes nothing if the head has moved since the preparation, or if the time of the batch is ahead of
    PostgreSQL's clock. A batch that is then decided on locks gets the right head and the right time.

    The connection must be in a transaction, which is checked (see `shared.stores.postgres.driver_of`).

    Raises:
        asyncpg.UniqueViolationError: another transaction has already used a stream's version, an event's id or an idempotency
            key of this batch. Retry the batch in a new transaction.
    """
    if not driver.is_in_transaction():
        msg = "append_prepared must be called inside a transaction"
        raise RuntimeError(msg)
    written_at: datetime | None = await driver.fetchval(_APPEND_SQL, *prepared.arguments)
    return written_at


async def append_stored(
    driver: Driver,
    ledger_id: str,
    events: Sequence[StoredEvent],
    stream_events: Iterable[StreamEvent],
    stream_heads: Iterable[StreamHead],
) -> None:
    """Appends stored events, unchanged, from another copy of this ledger.

    The caller must have locked the end of the log and checked that the events continue its hash chain; this is not checked here.

    Raises:
        asyncpg.DataError, asyncpg.IntegrityConstraintViolationError: PostgreSQL cannot store one of the events.
    """

    async def copy(table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        records = [(ledger_id, *row) for row in rows]
        await driver.copy_records_to_table(table, records=records, columns=["ledger_id", *columns.split()])

    stored = [(e.position, e.event_id, e.type, e.schema_version, e.data, e.metadata, e.recorded_at, e.hash) for e in events]
    await copy("events", "position event_id type schema_version data metadata recorded_at hash", stored)
    await copy("stream_events", "stream_id version position", map(_fields, stream_events))
    await driver.executemany(PUT_STREAM_HEAD, [(ledger_id, *head.columns()) for head in stream_heads])
    await driver.execute(PUT_HEAD, ledger_id, events[-1].position, events[-1].hash, events[-1].recorded_at)


def _event_columns(ledger_id: str, new: NewEvent, keys: KeysByPerson) -> EventColumns:
    event_type = type(new.event)
    return (
        new.event_id,
        event_type.__name__,
        event_type.schema_version,
        encode(ledger_id, new.event_id, new.event, keys).decode(),
        canonical(new.metadata).decode(),
    )


def _columns(rows: Iterable[Sequence[Any]], **types: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Converts rows to one argument for each column, in the form that the appending statement expects."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return {name: as_array(column) for (name, as_array), column in zip(types.items(), columns, strict=True)}


def _as_numbers(numbers: Sequence[int | None]) -> str:
    return "{" + ",".join(["NULL" if number is None else str(number) for number in numbers]) + "}"


def _as_texts(texts: Sequence[str]) -> str:
    joined = _SEPARATOR.join(texts)
    if texts and joined.count(_SEPARATOR) != len(texts) - 1:
        msg = "a value contains the character that separates values"
        raise ValueError(msg)
    return joined
