"""The lines of a ledger file: if one was changed, moved or lost, reading names its number."""

import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.errors import LedgerFileInvalid, LogDamaged
from shared.ledger_file.format import (
    LedgerFileWriter,
    LedgerRow,
    cloud_event,
    person_key_lines,
    read_ledger,
    read_person_keys,
)
from shared.log.encoding import canonical, encode
from shared.log.events import Event
from shared.log.hash_chain import event_hash
from shared.log.heads import Head
from shared.log.read import StoredEvent
from shared.log.stored_replies import StoredReply
from shared.timestamps import timestamp
from tests.harness.log import NEW_YEAR, Book

METADATA = {"principal": "test", "odd": "\x7f \x85 \u2028 \U0001f4b6"}


def stored(events: Iterator[Event], ledger_id: str = "main") -> list[StoredEvent]:
    """The events as the log of this ledger would store them, one per second."""
    keys: dict[str, bytes] = {}
    found, last = [], b""
    for position, event in enumerate(events, 1):
        keys.setdefault(getattr(event, "user_id", ""), b"k" * 32)
        event_id, name, version = str(uuid.UUID(int=position)), type(event).__name__, type(event).schema_version
        data, metadata = encode(ledger_id, event_id, event, keys).decode(), canonical(METADATA).decode()
        recorded_at = NEW_YEAR + timedelta(seconds=position)
        last = event_hash(last, ledger_id, position, event_id, name, version, data, metadata, recorded_at)
        found.append(StoredEvent(ledger_id, position, event_id, name, version, data, metadata, recorded_at, last))
    return found


def replies(count: int) -> list[StoredReply]:
    return [StoredReply("caller", f"key-{n}", bytes([n] * 32), 201, b'{"n":%d}' % n, n or None) for n in range(count)]


def written(events: list[StoredEvent], kept: list[StoredReply]) -> list[bytes]:
    head = Head(len(events), events[-1].hash if events else b"", NEW_YEAR)
    lines = LedgerFileWriter()
    begin = lines.begin("main", head)
    return [begin, *map(lines.event, events), *map(lines.reply, kept), lines.end()]


EVENTS = stored(Book(seed=5).history(12, accounts=3))
LINES = written(EVENTS, replies(5))


def read(lines: list[bytes]) -> list[LedgerRow]:
    return list(read_ledger(lines)[1])


def refusal(lines: list[bytes]) -> str:
    with pytest.raises(LedgerFileInvalid) as refused:
        read(lines)
    return str(refused.value)


def test_lines_are_read_as_they_were_written() -> None:
    ledger, contents = read_ledger(LINES)
    assert (ledger.ledger_id, ledger.events, ledger.hash) == ("main", len(EVENTS), EVENTS[-1].hash.hex())
    assert list(contents) == [*EVENTS, *replies(5)]


def test_a_ledger_without_events_is_one_too() -> None:
    assert read(written([], [])) == []


NUMBERS = range(1, len(LINES) + 1)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_line_that_is_missing_is_named(number: int) -> None:
    lines = LINES[: number - 1] + LINES[number:]
    assert ("cut off" if number == len(LINES) else f"line {number}:") in refusal(lines)


@pytest.mark.parametrize("number", NUMBERS[:-1])
def test_lines_that_changed_places_are_named(number: int) -> None:
    lines = LINES.copy()
    lines[number - 1 : number + 1] = reversed(lines[number - 1 : number + 1])
    assert f"line {number}:" in refusal(lines)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_line_that_stands_twice_is_named(number: int) -> None:
    assert f"line {number + 1}:" in refusal(LINES[:number] + LINES[number - 1 :])


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_that_was_cut_off_is_refused_wherever_that_was(number: int) -> None:
    assert "cut off" in refusal(LINES[: number - 1] or [b""]) or number == 1
    line = LINES[number - 1]
    assert f"line {number}:" in refusal([*LINES[: number - 1], line[: len(line) // 2]])


def compact(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def changes(value: Any) -> Iterator[Any]:
    """Every JSON value that differs from this one in one place."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from ({**value, name: changed} for changed in changes(part))
            yield {other: each for other, each in value.items() if other != name}
        yield {**value, "more": 1}
    elif isinstance(value, str):
        yield value[:-1] + ("0" if value[-1:] != "0" else "1")
    elif value is None:
        yield 0
    else:
        yield value + 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_line_that_was_changed_in_any_place_is_named(number: int) -> None:
    """A change to the first line may show only at a later line, which does not agree with it."""
    line = json.loads(LINES[number - 1])
    assert compact(line) == LINES[number - 1], "so that what is refused is the change"
    for changed in changes(line):
        lines = [*LINES[: number - 1], compact(changed), *LINES[number:]]
        assert re.search(rf"line {number if number > 1 else '[0-9]+'}:", refusal(lines)), changed


def test_a_time_is_held_to_the_microsecond() -> None:
    line = json.loads(LINES[3])
    moment = datetime.fromisoformat(line["recorded_at"]) + timedelta(microseconds=1)
    lines = [*LINES[:3], compact(line | {"recorded_at": timestamp(moment)}), *LINES[4:]]
    assert "line 4:" in refusal(lines)


@pytest.mark.parametrize("text", [b"", b"\n", b"[]", b"{}", b"\xff\n", b'{"line":"event"}', b'{"line":"moon"}', b"9" * 5_000])
def test_a_text_that_is_not_a_line_is_named(text: bytes) -> None:
    assert "line 3:" in refusal([*LINES[:2], text, *LINES[2:]])
    assert "line 1:" in refusal([text, *LINES])


def test_a_later_format_is_refused() -> None:
    first = json.loads(LINES[0]) | {"format": 2}
    assert "format 2" in refusal([compact(first), *LINES[1:]])


def test_the_beginning_of_one_ledger_does_not_go_with_the_rest_of_another() -> None:
    other = written(stored(Book(seed=6).history(12, accounts=3)), replies(5))
    assert all("line " in refusal(LINES[:cut] + other[cut:]) for cut in NUMBERS[:-1])


def test_an_event_that_could_not_be_imported_is_not_exported() -> None:
    lines = LedgerFileWriter()
    lines.event(EVENTS[0])
    with pytest.raises(LogDamaged, match="position 3"):
        lines.event(EVENTS[2])


# ── keys of people ───────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = [("ada", b"\x00wrapped", "m1"), ("addresses", b"\xffwrapped", "m1")]


def test_keys_are_read_as_they_were_written() -> None:
    assert read_person_keys(person_key_lines("main", KEYS), "main", 2) == {key[0]: key for key in KEYS}


FIRST_KEY, *OTHER_KEYS = person_key_lines("main", KEYS)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        LINES,
        OTHER_KEYS,
        [FIRST_KEY, *OTHER_KEYS[:-1]],
        [FIRST_KEY, *OTHER_KEYS[:-1], OTHER_KEYS[-1][:20]],
        [FIRST_KEY, *OTHER_KEYS, OTHER_KEYS[-1]],
        list(person_key_lines("another", KEYS)),
    ],
)
def test_other_keys_or_not_all_of_them_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(LedgerFileInvalid):
        read_person_keys(lines, "main", 2)


# ── CloudEvents ──────────────────────────────────────────────────────────────────────────────────────────────────────

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
CONTROL = {*range(0x20), *range(0x7F, 0xA0)}


def is_attribute(value: Any) -> bool:
    """True for a Boolean, an integer of 32 bits, and a string without control characters, lone surrogates and noncharacters."""
    if isinstance(value, str):
        points = [ord(character) for character in value]
        bad = [p for p in points if p in CONTROL or 0xD800 <= p <= 0xDFFF or 0xFDD0 <= p <= 0xFDEF or p & 0xFFFE == 0xFFFE]
        return not bad
    return isinstance(value, bool) or (isinstance(value, int) and -(2**31) <= value < 2**31)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.type))
def test_a_cloud_event_keeps_the_rules_of_version_1_0(event: StoredEvent) -> None:
    line = cloud_event(event)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    members = json.loads(line)
    data = members.pop("data")
    assert members["specversion"] == "1.0"
    assert all(isinstance(members[name], str) and members[name] for name in ("id", "source", "type"))
    assert re.fullmatch(r"/[A-Za-z0-9._~/-]+", members["source"])
    assert RFC_3339.fullmatch(members["time"])
    assert members["datacontenttype"] == "application/json"
    assert [name for name in members if not re.fullmatch(r"[a-z0-9]{1,20}", name)] == []
    assert [name for name, value in members.items() if not is_attribute(value)] == []
    assert data == json.loads(event.data)


def test_a_cloud_event_keeps_position_hash_time_and_metadata() -> None:
    members = json.loads(cloud_event(EVENTS[3]))
    assert (members["sequence"], members["hash"]) == (f"{4:019}", EVENTS[3].hash.hex())
    assert members["time"] == timestamp(EVENTS[3].recorded_at)
    assert json.loads(members["metadata"]) == METADATA
    assert (members["id"], members["source"]) == (EVENTS[3].event_id, "/ledgers/main")


def test_sequences_sort_as_texts() -> None:
    """The extension `sequence` asks for this. No position is longer than the highest one that PostgreSQL can hold."""
    positions = [1, 2, 10, 99, 2**31, 2**53, 2**63 - 1]
    event = EVENTS[0]
    sequences = [
        json.loads(cloud_event(StoredEvent(event.ledger_id, position, *event_parts(event))))["sequence"] for position in positions
    ]
    assert all(one < other for one, other in itertools.pairwise(sequences))
    assert len({len(sequence) for sequence in sequences}) == 1


def event_parts(event: StoredEvent) -> tuple[Any, ...]:
    return (
        event.event_id,
        event.type,
        event.schema_version,
        event.data,
        event.metadata,
        event.recorded_at,
        hashlib.sha256(b"").digest(),
    )
