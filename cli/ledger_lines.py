"""A ledger as lines of JSON, and what makes sure that they are the ones that were written.

    {"line":"ledger", …}   which one it is, how many events follow, and the hash of the last
    {"line":"event", …}    in the order of the log: all that its hash covers, and the hash
    {"line":"answer", …}   what a caller was answered under an idempotency key; its hash goes on from the line before
    {"line":"end", …}      how many answers there were, and the last hash

The hash of an event is the one that the log has. So each line is bound to the one before, and a line that was changed, is missing
or stands elsewhere has a number. What is personal is sealed in a line as it is in the log; the keys of people never stand in the
same file. Pure: no I/O.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec

from shared.errors import LedgerFileRefused, LogDamaged
from shared.event_store import Answer, Head, StoredEvent
from shared.events import timestamp
from shared.fields import LEDGER_ID
from shared.person_keys import WrappedKey

FORMAT: Final = 1


class LedgerLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="ledger"):
    format: int
    ledger_id: str
    events: int
    hash: str


class EventLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="event"):
    """`data` and `metadata` are JSON as PostgreSQL prints it."""

    position: int
    event_id: str
    type: str
    schema_version: int
    data: msgspec.Raw
    metadata: msgspec.Raw
    recorded_at: str
    hash: str

    def stored(self, ledger_id: str) -> StoredEvent:
        """Raises:
        ValueError: a time or a hash is none.
        """
        data, metadata = (bytes(part).decode() for part in (self.data, self.metadata))
        recorded_at, own_hash = datetime.fromisoformat(self.recorded_at), bytes.fromhex(self.hash)
        if timestamp(recorded_at) != self.recorded_at:
            raise ValueError(self.recorded_at)
        return StoredEvent(
            ledger_id, self.position, self.event_id, self.type, self.schema_version, data, metadata, recorded_at, own_hash
        )


class AnswerLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="answer"):
    answer: Answer
    hash: str


class EndLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="end"):
    answers: int
    hash: str


Line = LedgerLine | EventLine | AnswerLine | EndLine

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Line).decode


def _line(line: msgspec.Struct) -> bytes:
    return _encode(line) + b"\n"


def _read(text: bytes) -> Line:
    """Raises:
    ValueError: it is not what `_line` writes.
    """
    line: Line = _decode(text)
    if _line(line) != text:
        raise ValueError(text)
    return line


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class LedgerWriter:
    """Makes the lines; to be called in the order of its methods."""

    def __init__(self) -> None:
        self._hash = b""
        self._answers = 0

    def begin(self, ledger_id: str, head: Head) -> bytes:
        return _line(LedgerLine(FORMAT, ledger_id, head.position, head.hash.hex()))

    def event(self, event: StoredEvent) -> bytes:
        """Raises:
        LogDamaged: a file that has it could not be imported.
        """
        if event.computed_hash(self._hash) != event.hash:
            raise LogDamaged(f"the event at position {event.position} is not what was recorded there: see `daybook verify`")
        self._hash = event.hash
        data, metadata = (msgspec.Raw(part.encode()) for part in (event.data, event.metadata))
        recorded_at = timestamp(event.recorded_at)
        return _line(
            EventLine(
                event.position, event.event_id, event.type, event.schema_version, data, metadata, recorded_at, event.hash.hex()
            )
        )

    def answer(self, answer: Answer) -> bytes:
        self._answers += 1
        self._hash = _answer_hash(self._hash, answer)
        return _line(AnswerLine(answer, self._hash.hex()))

    def end(self) -> bytes:
        return _line(EndLine(self._answers, self._hash.hex()))


def _answer_hash(hash_before: bytes, answer: Answer) -> bytes:
    return hashlib.sha256(hash_before + _encode(answer)).digest()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


Content = StoredEvent | Answer


def read_ledger(lines: Iterable[bytes]) -> tuple[LedgerLine, Iterator[Content]]:
    """Which ledger it is, and what is in it. Each is given once it is proven; the whole is proven at the end.

    Raises:
        LedgerFileRefused: names the first line that is not what was written.
    """
    numbered = enumerate(lines, 1)
    reading = _Reading()
    number, first = next(numbered, (1, b""))
    with _numbered(number):
        ledger = reading.begin(first)
    return ledger, _contents(numbered, reading, ledger)


def _contents(numbered: Iterator[tuple[int, bytes]], reading: "_Reading", ledger: LedgerLine) -> Iterator[Content]:
    for number, text in numbered:
        with _numbered(number):
            content = reading.take(text, ledger)
        if content:
            yield content
    if not reading.ended:
        raise LedgerFileRefused("the file ends before its last line: it was cut off; nothing is imported")


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    try:
        yield
    except _Wrong as wrong:
        raise LedgerFileRefused(f"line {number}: {wrong}; nothing is imported") from None
    except (ValueError, msgspec.ValidationError):
        raise LedgerFileRefused(f"line {number}: it is no line of a ledger; nothing is imported") from None


class _Wrong(Exception):
    """A line is not what was written."""


class _Reading:
    def __init__(self) -> None:
        self.ended = False
        self._position = 0
        self._answers = 0
        self._hash = b""

    def begin(self, text: bytes) -> LedgerLine:
        ledger = _read(text)
        if not isinstance(ledger, LedgerLine):
            raise _Wrong("it does not say which ledger this is")
        if ledger.format != FORMAT:
            raise _Wrong(f"the file has format {ledger.format}, this version of Daybook reads {FORMAT}")
        if not LEDGER_ID.fullmatch(ledger.ledger_id) or bool(ledger.events) != bool(ledger.hash):
            raise _Wrong("it does not name a ledger that can be")
        return ledger

    def take(self, text: bytes, ledger: LedgerLine) -> Content | None:
        line = _read(text)
        if self.ended:
            raise _Wrong("it comes after the end")
        if isinstance(line, EventLine):
            return self._event(ledger, line)
        if self._position < ledger.events:
            raise _Wrong(f"the event at position {self._position + 1} is due")
        if isinstance(line, AnswerLine):
            return self._answer(line)
        if isinstance(line, LedgerLine):
            raise _Wrong("another ledger begins")
        self._end(line)
        return None

    def _event(self, ledger: LedgerLine, line: EventLine) -> StoredEvent:
        if line.position != self._position + 1 or line.position > ledger.events:
            due = f"position {self._position + 1} is due" if self._position < ledger.events else "no further one is due"
            raise _Wrong(f"position {line.position} stands where {due}")
        event = line.stored(ledger.ledger_id)
        is_last = event.position == ledger.events
        if event.computed_hash(self._hash) != event.hash or (is_last and line.hash != ledger.hash):
            raise _Wrong(f"the event at position {event.position} is not what was recorded there")
        self._position, self._hash = event.position, event.hash
        return event

    def _answer(self, line: AnswerLine) -> Answer:
        self._answers += 1
        self._hash = _answer_hash(self._hash, line.answer)
        if self._hash.hex() != line.hash:
            raise _Wrong("the answer is not the one that was written here")
        return line.answer

    def _end(self, line: EndLine) -> None:
        if (line.answers, line.hash) != (self._answers, self._hash.hex()):
            raise _Wrong(f"{line.answers} answers are due before it, and there are {self._answers}")
        self.ended = True


# ── for others ───────────────────────────────────────────────────────────────────────────────────────────────────────


def cloud_event(event: StoredEvent) -> bytes:
    """CloudEvents 1.0 in JSON. What CloudEvents has no word for are extension attributes, which hold texts and small integers.

    `sequence` can be sorted as a text. `metadata` is JSON in ASCII: an attribute may not hold control characters.
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


class KeysLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of the second file."""

    format: int
    ledger_id: str
    keys: int


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's key, wrapped: worth nothing without the master key that it names."""

    person_id: str
    wrapped_key: bytes
    master_key_id: str


def key_lines(ledger_id: str, keys: Sequence[WrappedKey]) -> Iterator[bytes]:
    yield _line(KeysLine(FORMAT, ledger_id, len(keys)))
    for key in keys:
        yield _line(KeyLine(*key))


def read_keys(lines: Iterable[bytes], ledger_id: str) -> dict[str, WrappedKey]:
    """By the person's id. That a key is the person's own is found out when it is unwrapped.

    Raises:
        LedgerFileRefused: these are not the keys of this ledger, or not all that were written.
    """
    first, *rest = list(lines) or [b""]
    try:
        head = msgspec.json.decode(first, type=KeysLine)
        keys = [msgspec.json.decode(line, type=KeyLine) for line in rest]
    except (ValueError, msgspec.ValidationError):
        raise LedgerFileRefused("the file of keys is not one, or was changed; nothing is imported") from None
    if (head.format, head.ledger_id, head.keys) != (FORMAT, ledger_id, len(keys)):
        found = f"{len(keys)} of {head.keys} keys of ledger {head.ledger_id!r}, in format {head.format}"
        raise LedgerFileRefused(f"all keys of ledger {ledger_id!r} are due, and the file has {found}; nothing is imported")
    return {key.person_id: (key.person_id, key.wrapped_key, key.master_key_id) for key in keys}
