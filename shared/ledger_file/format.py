"""Makes and reads the lines of a ledger file. Each line is JSON; the hashes in the lines prove that nothing was changed.

    {"line":"ledger", …}   the ledger's id, how many events follow, and the hash of the last one
    {"line":"event", …}    an event, in the order of the log: all fields that its hash covers, and the hash
    {"line":"answer", …}   a stored reply: what a caller was answered under an idempotency key; its hash continues the chain
    {"line":"end", …}      how many stored replies there were, and the last hash

The hash of an event is its hash in the log, which covers the previous event's hash. If a line was changed, removed or moved, the
reader raises an error with the number of the line. Personal data are encrypted in the file as they are in the log. The person
keys are never in the same file, but in a second file. This module does no I/O.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from shared.errors import LedgerFileInvalid, LogDamaged
from shared.input_types import LEDGER_ID
from shared.log.event_check import EVENT_ID
from shared.log.heads import Head
from shared.log.read import StoredEvent
from shared.log.stored_replies import SmallInteger, StoredReply
from shared.privacy.person_keys import WrappedKey
from shared.timestamps import timestamp

FORMAT_VERSION: Final = 1


class LedgerLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="ledger"):
    """The first line of a ledger file. `events` is the number of event lines that follow; `hash` is the last event's hash."""

    format: int
    ledger_id: str
    events: int
    hash: str


class EventLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="event"):
    """The line of one event. `data` and `metadata` are JSON as PostgreSQL prints it."""

    position: int
    event_id: str
    type: str
    schema_version: SmallInteger
    data: msgspec.Raw
    metadata: msgspec.Raw
    recorded_at: str
    hash: str

    def stored(self, ledger_id: str) -> StoredEvent:
        """Returns the event as a row of the log.

        Raises:
            ValueError: the id, the time or the hash does not have the form that Daybook writes.
        """
        data, metadata = (bytes(part).decode() for part in (self.data, self.metadata))
        recorded_at, own_hash = datetime.fromisoformat(self.recorded_at), bytes.fromhex(self.hash)
        if timestamp(recorded_at) != self.recorded_at or own_hash.hex() != self.hash or not EVENT_ID.fullmatch(self.event_id):
            raise ValueError(self.event_id)
        return StoredEvent(
            ledger_id, self.position, self.event_id, self.type, self.schema_version, data, metadata, recorded_at, own_hash
        )


class StoredReplyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="answer"):
    """The line of one stored reply. Its hash covers this reply and all lines before it."""

    reply: StoredReply = msgspec.field(name="answer")
    hash: str


class EndLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="end"):
    """The last line of a ledger file: the number of stored replies, and the hash of the line before."""

    replies: int = msgspec.field(name="answers")
    hash: str


LedgerFileLine = LedgerLine | EventLine | StoredReplyLine | EndLine

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(LedgerFileLine).decode


def _line(line: msgspec.Struct) -> bytes:
    return _encode(line) + b"\n"


def _parse(text: bytes) -> LedgerFileLine:
    """Parses one line of a ledger file.

    Raises:
        ValueError: the line differs from the bytes that `_line` writes.
    """
    line: LedgerFileLine = _decode(text)
    if _line(line) != text:
        raise ValueError(text)
    return line


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class LedgerFileWriter:
    """Makes the lines of a ledger file. Call `begin`, then `event` for each event, `reply` for each stored reply, and `end`."""

    def __init__(self) -> None:
        self._hash = b""
        self._replies = 0

    def begin(self, ledger_id: str, head: Head) -> bytes:
        return _line(LedgerLine(FORMAT_VERSION, ledger_id, head.position, head.hash.hex()))

    def event(self, event: StoredEvent) -> bytes:
        """Returns the line of an event.

        Raises:
            LogDamaged: the event's hash is wrong, so that the file could not be imported.
        """
        if event.computed_hash(self._hash) != event.hash:
            raise LogDamaged(
                f"the event at position {event.position} is not what was recorded at that position: run `daybook verify`"
            )
        self._hash = event.hash
        data, metadata = (msgspec.Raw(part.encode()) for part in (event.data, event.metadata))
        recorded_at = timestamp(event.recorded_at)
        return _line(
            EventLine(
                event.position, event.event_id, event.type, event.schema_version, data, metadata, recorded_at, event.hash.hex()
            )
        )

    def reply(self, reply: StoredReply) -> bytes:
        self._replies += 1
        self._hash = _reply_hash(self._hash, reply)
        return _line(StoredReplyLine(reply, self._hash.hex()))

    def end(self) -> bytes:
        return _line(EndLine(self._replies, self._hash.hex()))


def _reply_hash(hash_before: bytes, reply: StoredReply) -> bytes:
    return hashlib.sha256(hash_before + _encode(reply)).digest()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


LedgerRow = StoredEvent | StoredReply


def read_ledger(lines: Iterable[bytes]) -> tuple[LedgerLine, Iterator[LedgerRow]]:
    """Returns the first line, and an iterator over the rows.

    The iterator checks the hash of each row before it yields the row. Only when the iterator ends is it certain that no row is
    missing.

    Raises:
        LedgerFileInvalid: a line differs from what was exported. The message contains the number of the line.
    """
    numbered = enumerate(lines, 1)
    reader = _LedgerFileReader()
    number, first = next(numbered, (1, b""))
    with _line_numbered(number):
        ledger = reader.begin(first)
    return ledger, _rows(numbered, reader, ledger)


def _rows(numbered: Iterator[tuple[int, bytes]], reader: "_LedgerFileReader", ledger: LedgerLine) -> Iterator[LedgerRow]:
    for number, text in numbered:
        with _line_numbered(number):
            row = reader.take(text, ledger)
        if row:
            yield row
    if not reader.ended:
        raise LedgerFileInvalid("the file was cut off: its last line is missing; nothing is imported")


@contextmanager
def _line_numbered(number: int) -> Iterator[None]:
    try:
        yield
    except _LineRefused as wrong:
        raise LedgerFileInvalid(f"line {number}: {wrong}; nothing is imported") from None
    except (ValueError, RecursionError):
        raise LedgerFileInvalid(f"line {number}: this is not a line of a ledger file; nothing is imported") from None


class _LineRefused(Exception):
    """A line of the file differs from what was exported. The message says how."""


class _LedgerFileReader:
    """Checks each line against the lines before it."""

    def __init__(self) -> None:
        self.ended = False
        self._position = 0
        self._replies = 0
        self._hash = b""

    def begin(self, text: bytes) -> LedgerLine:
        ledger = _parse(text)
        if not isinstance(ledger, LedgerLine):
            raise _LineRefused("the first line does not name the ledger")
        if ledger.format != FORMAT_VERSION:
            raise _LineRefused(f"the file has format {ledger.format}, but this version of Daybook reads format {FORMAT_VERSION}")
        if not LEDGER_ID.fullmatch(ledger.ledger_id) or bool(ledger.events) != bool(ledger.hash):
            raise _LineRefused("no ledger can have this id, this number of events and this hash")
        return ledger

    def take(self, text: bytes, ledger: LedgerLine) -> LedgerRow | None:
        line = _parse(text)
        if self.ended:
            raise _LineRefused("the line comes after the end of the ledger")
        if isinstance(line, EventLine):
            return self._event(ledger, line)
        if self._position < ledger.events:
            raise _LineRefused(f"the event at position {self._position + 1} should stand here")
        if isinstance(line, StoredReplyLine):
            return self._reply(line)
        if isinstance(line, LedgerLine):
            raise _LineRefused("another ledger begins here, and a file holds one")
        self._end(line)
        return None

    def _event(self, ledger: LedgerLine, line: EventLine) -> StoredEvent:
        if line.position != self._position + 1 or line.position > ledger.events:
            due = f"position {self._position + 1} should" if self._position < ledger.events else "no further event should"
            raise _LineRefused(f"position {line.position} stands where {due}")
        event = line.stored(ledger.ledger_id)
        is_last = event.position == ledger.events
        if event.computed_hash(self._hash) != event.hash or (is_last and line.hash != ledger.hash):
            raise _LineRefused(f"the event at position {event.position} is not what was recorded at that position")
        self._position, self._hash = event.position, event.hash
        return event

    def _reply(self, line: StoredReplyLine) -> StoredReply:
        self._replies += 1
        self._hash = _reply_hash(self._hash, line.reply)
        if self._hash.hex() != line.hash:
            raise _LineRefused("the stored reply is not the one that was written here")
        return line.reply

    def _end(self, line: EndLine) -> None:
        if (line.replies, line.hash) != (self._replies, self._hash.hex()):
            raise _LineRefused(
                f"the file should hold {line.replies} stored replies before this line, and it holds {self._replies}"
            )
        self.ended = True


# ── for other systems ────────────────────────────────────────────────────────────────────────────────────────────────


def cloud_event(event: StoredEvent) -> bytes:
    """Returns the event as a line of JSON in the format of CloudEvents 1.0.

    Members that CloudEvents does not define are extension attributes, which may contain only strings and small integers.
    `sequence` has a fixed length, so that it sorts as a string. `metadata` is JSON in ASCII, because an attribute may not contain
    control characters.
    """
    members = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": f"/ledgers/{event.ledger_id}",
        "type": f"daybook.{event.type}",
        "time": timestamp(event.recorded_at),
        "datacontenttype": "application/json",
        "sequence": f"{event.position:019}",
        "schemaversion": event.schema_version,
        "hash": event.hash.hex(),
        "metadata": json.dumps(json.loads(event.metadata), separators=(",", ":")),
        "data": msgspec.Raw(event.data.encode()),
    }
    return _encode(members) + b"\n"


# ── keys of people ───────────────────────────────────────────────────────────────────────────────────────────────────


class PersonKeysLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a file of person keys. `keys` is the number of keys that follow."""

    format: int
    ledger_id: str
    keys: int


class PersonKeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line of one wrapped person key. Only the master key that `master_key_id` names can unwrap it."""

    person_id: str
    wrapped_key: bytes
    master_key_id: str


def person_key_lines(ledger_id: str, keys: Sequence[WrappedKey]) -> Iterator[bytes]:
    yield _line(PersonKeysLine(FORMAT_VERSION, ledger_id, len(keys)))
    for key in keys:
        yield _line(PersonKeyLine(*key))


def read_person_keys(lines: Iterable[bytes], ledger_id: str, keys_max: int) -> dict[str, WrappedKey]:
    """Returns the wrapped keys by the person's id. That each key belongs to its person is checked later, by unwrapping it.

    Raises:
        LedgerFileInvalid: the keys belong to another ledger, some of them are missing, or there are more than `keys_max`.
    """
    rest = iter(lines)
    try:
        head = msgspec.json.decode(next(rest, b""), type=PersonKeysLine)
        keys = [msgspec.json.decode(line, type=PersonKeyLine) for line in islice(rest, min(head.keys, keys_max) + 1)]
    except (ValueError, RecursionError):
        raise LedgerFileInvalid("this is not a file of people's keys, or it was changed; nothing is imported") from None
    if (head.format, head.ledger_id, head.keys) != (FORMAT_VERSION, ledger_id, len(keys)):
        found = f"{len(keys)} of {head.keys} keys of ledger {head.ledger_id[:40]!a}, in format {head.format}"
        raise LedgerFileInvalid(f"all keys of ledger {ledger_id!r} are needed, but the file has {found}; nothing is imported")
    return {key.person_id: (key.person_id, key.wrapped_key, key.master_key_id) for key in keys}
