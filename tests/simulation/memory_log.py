"""A model of PostgreSQL in memory, for the simulation alone. Tests of the product use a real PostgreSQL.

It knows the statements of the log and nothing else: each is named by the constant that holds its SQL, so the code that sends
them is the real one. What matters is as in PostgreSQL: a transaction is visible at its COMMIT and not before, the row of the
ledger is a lock, keys are unique, and a COMMIT that has been sent is made although nobody is there to hear of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import asyncpg
import msgspec
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from projector.due import READ_DUE_LEDGERS
from projector.examiner import READ_LOG_ENDS
from shared.log import append, heads, read, stored_replies, writer_leases
from shared.log.append import PreparedAppend
from shared.log.heads import StreamHead
from shared.log.read import StoredEvent
from shared.log.stored_replies import StoredReply
from tests.simulation.virtual_time import Process

LEDGER: Final = "main"
Fence = Literal["head", "holder", "nothing"]
"""What an append is compared with: the head of the log, or, as planted bugs, only who has the lease now, or nothing."""
NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of day when the virtual clock is at 0."""

_APPEND = append.APPEND.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
_APPEND_NAMES: Final = tuple(_APPEND.positiontup or ())
_SEPARATOR: Final = "\x1f"

Row = tuple[Any, ...]
Change = Callable[["Tables"], None]


def moment(seconds: float) -> datetime:
    """Returns the time of day at this time of the virtual clock."""
    return NEW_YEAR + timedelta(seconds=seconds)


class CommittedBatch(msgspec.Struct, frozen=True):
    """What one transaction committed, in the order in which it was decided. `now` is the time that it was decided for."""

    now: datetime
    events: list[StoredEvent]
    replies: list[StoredReply]


class LeaseRow(msgspec.Struct, frozen=True):
    """The lease of the ledger, with the process that took it."""

    term: int
    process_id: str
    address: str
    expires_at: datetime
    holder: Process


class Tables:
    """The committed rows. Rows are never changed, so a copy shares them."""

    def __init__(self) -> None:
        self.position, self.hash, self.recorded_at = 0, b"", datetime.fromtimestamp(0, UTC)
        self.events: list[StoredEvent] = []
        self.event_ids: set[str] = set()
        self.streams: dict[str, StreamHead] = {}
        self.members: dict[str, dict[int, int]] = {}
        """The position of each version, by stream id."""
        self.replies: dict[tuple[str, str], StoredReply] = {}
        self.batches: list[CommittedBatch] = []
        self.lease: LeaseRow | None = None

    def copy(self) -> "Tables":
        copied = Tables()
        copied.position, copied.hash, copied.recorded_at = self.position, self.hash, self.recorded_at
        copied.events, copied.event_ids = list(self.events), set(self.event_ids)
        copied.streams, copied.replies = dict(self.streams), dict(self.replies)
        copied.members = {stream_id: dict(versions) for stream_id, versions in self.members.items()}
        return copied

    def set_lease(self, lease: LeaseRow) -> None:
        self.lease = lease

    def append(self, prepared: Mapping[str, Any]) -> None:
        """Does what the appending statement does when it is committed."""
        events, members, stream_heads, replies = _rows_of(prepared)
        for event in events:
            self.events.append(event)
            self.event_ids.add(event.event_id)
        for stream_id, version, position in members:
            self.members.setdefault(stream_id, {})[version] = position
        self.streams.update((head.stream_id, head) for head in stream_heads)
        self.replies.update(((reply.principal, reply.key), reply) for reply in replies)
        self.position, self.hash = prepared["position"] + len(events), prepared["new_hash"]
        self.recorded_at = prepared["recorded_at"] if events else self.recorded_at
        self.batches.append(CommittedBatch(prepared["recorded_at"], events, replies))

    def require_unique(self, prepared: Mapping[str, Any]) -> None:
        events, members, _, replies = _rows_of(prepared)
        if (
            any(event.event_id in self.event_ids for event in events)
            or any(version in self.members.get(stream_id, ()) for stream_id, version, _ in members)
            or any((reply.principal, reply.key) in self.replies for reply in replies)
        ):
            raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint")

    def append_first(self, prepared: PreparedAppend) -> None:
        self.append(dict(zip(_APPEND_NAMES, prepared.arguments, strict=True)))

    def events_of(self, stream_id: str) -> list[StoredEvent]:
        return [self.events[position - 1] for position in self.members.get(stream_id, {}).values()]


def _rows_of(prepared: Mapping[str, Any]) -> tuple[list[StoredEvent], list[Row], list[StreamHead], list[StoredReply]]:
    def texts(name: str) -> list[str]:
        joined: str = prepared[name]
        return joined.split(_SEPARATOR) if joined else []

    def numbers(name: str) -> list[Any]:
        inside = prepared[name][1:-1]
        return [None if number == "NULL" else int(number) for number in inside.split(",")] if inside else []

    columns = (texts("types"), numbers("schema_versions"), texts("data"), texts("metadata"), prepared["hashes"])
    events = [
        StoredEvent(prepared["ledger_id"], prepared["position"] + n, event_id, kind, version, data, metadata, at, event_hash)
        for at in [prepared["recorded_at"]]
        for n, (event_id, kind, version, data, metadata, event_hash) in enumerate(
            zip(prepared["event_ids"], *columns, strict=True), 1
        )
    ]
    members = list(zip(texts("member_ids"), numbers("member_versions"), numbers("member_positions"), strict=True))
    positions = numbers("stream_versions"), numbers("stream_positions"), numbers("fold_versions")
    stream_heads = [StreamHead(*row) for row in zip(texts("stream_ids"), *positions, texts("snapshots"), strict=True)]
    own = prepared["principals"], prepared["keys"], prepared["request_hashes"]
    stored = numbers("statuses"), prepared["bodies"], numbers("key_positions")
    replies = [StoredReply(*row) for row in zip(*own, *stored, strict=True)]
    return events, members, stream_heads, replies


class Transaction:
    """What one session of a process has changed since its BEGIN."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.changes: list[Change] = []


class RowLock:
    """The lock of one row, until the end of the transaction that has it."""

    def __init__(self) -> None:
        self._owner: Transaction | None = None
        self._waiting: deque[tuple[Transaction, Callable[[], None]]] = deque()

    def take(self, transaction: Transaction, locked: Callable[[], None]) -> None:
        """Calls `locked` as soon as the transaction has the lock."""
        if self._owner is None or self._owner is transaction:
            self._owner = transaction
            locked()
        else:
            self._waiting.append((transaction, locked))

    def release(self, transaction: Transaction) -> None:
        if self._owner is transaction:
            self._owner = None
            if self._waiting:
                self.take(*self._waiting.popleft())


class MemoryLog:
    """The tables, the locks of the ledger and of its lease, and the statements."""

    def __init__(self, tables: Tables, *, unique_keys: bool, fence: Fence) -> None:
        self.tables = tables
        self._unique_keys = unique_keys
        self._fence = fence
        self._locks: dict[Lock, RowLock] = {"ledger": RowLock(), "lease": RowLock()}

    def now(self) -> datetime:
        return moment(asyncio.get_running_loop().time())

    def run(self, transaction: Transaction, statement: str, values: Any) -> list[Row]:
        """Runs a statement in a transaction. It sees what is committed now: the isolation level is READ COMMITTED.

        Run those that `LOCKS` names after `lock`.
        """
        return _STATEMENTS[statement](self, transaction, values)

    def commit(self, transaction: Transaction) -> None:
        for change in transaction.changes:
            change(self.tables)
        self.roll_back(transaction)

    def roll_back(self, transaction: Transaction) -> None:
        transaction.changes = []
        for lock in self._locks.values():
            lock.release(transaction)

    def crash(self) -> None:
        """Loses what a server has in memory: its locks and its transactions."""
        self._locks = {name: RowLock() for name in self._locks}

    def lock(self, name: "Lock", transaction: Transaction, locked: Callable[[], None]) -> None:
        """Calls `locked` as soon as the transaction has the lock."""
        self._locks[name].take(transaction, locked)

    # ── statements: the values are what the driver gets ──────────────────────────────────────────────────────────────

    def _append(self, transaction: Transaction, values: Any) -> list[Row]:
        prepared = dict(zip(_APPEND_NAMES, values, strict=True))
        tables, now = self.tables, self.now()
        is_ahead = prepared["recorded_at"] > max(tables.recorded_at, now + timedelta(seconds=append.SKEW_SECONDS_MAX))
        is_outdated = (prepared["position"], prepared["hash"]) != (tables.position, tables.hash)
        if is_ahead or (is_outdated and not self._lets_outdated_in(transaction)):
            return []
        if self._unique_keys:
            tables.require_unique(prepared)
        transaction.changes.append(lambda tables: tables.append(prepared))
        return [(now,)]

    def _lets_outdated_in(self, transaction: Transaction) -> bool:
        lease = self.tables.lease
        is_holder = lease is not None and lease.holder is transaction.process and lease.expires_at > self.now()
        return self._fence == "nothing" or (self._fence == "holder" and is_holder)

    def _take_lease(self, transaction: Transaction, values: Any) -> list[Row]:
        lease, now, process_id = self.tables.lease, self.now(), values["process_id"]
        if lease is None or lease.process_id == process_id or lease.expires_at <= now:
            term = 1 if lease is None else lease.term + (lease.process_id != process_id)
            ends_at = now + timedelta(seconds=writer_leases.LEASE_SECONDS)
            lease = LeaseRow(term, process_id, values["address"], ends_at, transaction.process)
            transaction.changes.append(lambda tables: tables.set_lease(lease))
        return [(LEDGER, lease.term, lease.process_id, lease.address, (lease.expires_at - now).total_seconds())]

    def _end_leases(self, transaction: Transaction, values: Any) -> list[Row]:
        lease = self.tables.lease
        if lease and lease.process_id == values["process_id"]:
            ended = msgspec.structs.replace(lease, expires_at=self.now())
            transaction.changes.append(lambda tables: tables.set_lease(ended))
        return []

    def _head(self, _: Transaction, __: Any) -> list[Row]:
        return [(self.tables.position, self.tables.hash, max(self.now(), self.tables.recorded_at))]

    def _moved_heads(self, _: Transaction, values: Any) -> list[Row]:
        position = self.tables.position
        return [] if values["known"] == position else [(LEDGER, position, position)]

    def _log_ends(self, _: Transaction, __: Any) -> list[Row]:
        return [(LEDGER, self.tables.position, self.tables.hash.hex(), [])]

    def _streams(self, transaction: Transaction, values: Any) -> list[Row]:
        head = self._head(transaction, values)[0]
        found = self._stream_heads(transaction, (LEDGER, values["stream_ids"]))
        return [(*head, *row) for row in found] or [(*head, *([None] * len(StreamHead.__struct_fields__)))]

    def _stream_heads(self, _: Transaction, values: Any) -> list[Row]:
        known = self.tables.streams
        return [self._with_only_event(known[stream_id]) for stream_id in sorted(values[1]) if stream_id in known]

    def _with_only_event(self, head: StreamHead) -> Row:
        if (head.version, head.fold_version) != (1, heads.UNFOLDED):
            return msgspec.structs.astuple(head)
        event = self.tables.events[head.position - 1]
        return (*head.columns(), event.type, event.schema_version, event.data)

    def _replies(self, _: Transaction, values: Any) -> list[Row]:
        asked = zip(values["principals"], values["keys"], strict=True)
        return [msgspec.structs.astuple(self.tables.replies[key]) for key in asked if key in self.tables.replies]

    def _found_events(self, _: Transaction, values: Any) -> list[Row]:
        return [(event_id,) for event_id in values["event_ids"] if event_id in self.tables.event_ids]

    def _all(self, _: Transaction, values: Any) -> list[Row]:
        return _astuples(self.tables.events[values["after"] : values["after"] + values["limit"]])

    def _next(self, _: Transaction, values: Any) -> list[Row]:
        return _astuples(self.tables.events[values[1] : values[1] + values[2]])

    def _stream(self, _: Transaction, values: Any) -> list[Row]:
        return _astuples(self.tables.events_of(values["stream_id"])[values["after"] :])

    def _at(self, _: Transaction, values: Any) -> list[Row]:
        positions = sorted({*values["positions"]})
        return _astuples(self.tables.events[each - 1] for each in positions if each <= len(self.tables.events))

    def _versions(self, _: Transaction, values: Any) -> list[Row]:
        known = self.tables.streams
        found = [(stream_id, known[stream_id].version) for stream_id in values["stream_ids"] if stream_id in known]
        return sorted(found, key=lambda row: (row[1], row[0]))

    def _streams_events(self, _: Transaction, values: Any) -> list[Row]:
        return [
            (stream_id, *row) for stream_id in sorted(values["stream_ids"]) for row in _astuples(self.tables.events_of(stream_id))
        ]

    def _count(self, _: Transaction, values: Any) -> list[Row]:
        counts: dict[str, int] = {}
        for event in self.tables.events[values["after"] : values["up_to"]]:
            counts[event.type] = counts.get(event.type, 0) + 1
        return list(counts.items())

    def _due_ledgers(self, _: Transaction, values: Any) -> list[Row]:
        is_there = any(stream_id.startswith(f"{values['prefix']}-") for stream_id in self.tables.streams)
        return [(LEDGER, self.tables.position, self.now())] if is_there else []


def _astuples(events: Iterable[StoredEvent]) -> list[Row]:
    return [msgspec.structs.astuple(event) for event in events]


_STATEMENTS: Final[Mapping[str, Callable[[MemoryLog, Transaction, Any], list[Row]]]] = {
    str(_APPEND): MemoryLog._append,  # noqa: SLF001 # a table of this class's methods, as are the others
    heads.READ_HEAD.text: MemoryLog._head,  # noqa: SLF001
    heads.LOCK_HEAD.text: MemoryLog._head,  # noqa: SLF001
    heads.READ_MOVED_HEADS.text: MemoryLog._moved_heads,  # noqa: SLF001
    heads.LOCK_STREAMS.text: MemoryLog._streams,  # noqa: SLF001
    heads.READ_STREAM_HEADS: MemoryLog._stream_heads,  # noqa: SLF001
    stored_replies.FIND_STORED_REPLIES.text: MemoryLog._replies,  # noqa: SLF001
    read.FIND_EVENTS.text: MemoryLog._found_events,  # noqa: SLF001
    read.READ_ALL.text: MemoryLog._all,  # noqa: SLF001
    read.READ_NEXT: MemoryLog._next,  # noqa: SLF001
    read.READ_STREAM.text: MemoryLog._stream,  # noqa: SLF001
    read.READ_AT.text: MemoryLog._at,  # noqa: SLF001
    read.READ_VERSIONS.text: MemoryLog._versions,  # noqa: SLF001
    read.READ_STREAMS.text: MemoryLog._streams_events,  # noqa: SLF001
    read.COUNT_TYPES.text: MemoryLog._count,  # noqa: SLF001
    READ_LOG_ENDS.text: MemoryLog._log_ends,  # noqa: SLF001
    READ_DUE_LEDGERS.text: MemoryLog._due_ledgers,  # noqa: SLF001
    writer_leases.TAKE_LEASES.text: MemoryLog._take_lease,  # noqa: SLF001
    writer_leases.END_LEASES.text: MemoryLog._end_leases,  # noqa: SLF001
}
Lock = Literal["ledger", "lease"]
LOCKS: Final[Mapping[str, Lock]] = {
    str(_APPEND): "ledger",
    heads.LOCK_HEAD.text: "ledger",
    heads.LOCK_STREAMS.text: "ledger",
    writer_leases.TAKE_LEASES.text: "lease",
    writer_leases.END_LEASES.text: "lease",
}
"""The lock that a statement waits for first."""
