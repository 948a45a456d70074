"""A ledger as lines of JSON: first its events in the order of the log, then what callers were answered.

An event's line is all that its hash covers, and the hash; the hash of the line before it ties it to its place. What is personal is
sealed in it as it is in the log. Keys of people never stand in the same file.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson

from shared.errors import LedgerFileRefused
from shared.event_store import Answer, StoredEvent
from shared.events import timestamp

CLOUD_EVENTS: Final = "1.0"
_ANSWER: Final = "answered"


class KeyRow(msgspec.Struct, frozen=True):
    """A person's key, wrapped: worth nothing without the master key that it names."""

    ledger_id: str
    person_id: str
    wrapped_key: bytes
    master_key_id: str


def event_line(event: StoredEvent) -> bytes:
    members = {
        "ledger_id": event.ledger_id,
        "position": event.position,
        "event_id": event.event_id,
        "type": event.type,
        "schema_version": event.schema_version,
        "data": orjson.Fragment(event.data),
        "metadata": orjson.Fragment(event.metadata),
        "recorded_at": timestamp(event.recorded_at),
        "hash": event.hash.hex(),
    }
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def cloud_event_line(event: StoredEvent) -> bytes:
    """CloudEvents 1.0. Its attributes are texts, and so is the position, which may be beyond 32 bits."""
    members = {
        "specversion": CLOUD_EVENTS,
        "id": event.event_id,
        "source": f"/ledgers/{event.ledger_id}",
        "type": f"daybook.{event.type}",
        "time": timestamp(event.recorded_at),
        "datacontenttype": "application/json",
        "sequence": str(event.position),
        "schemaversion": event.schema_version,
        "hash": event.hash.hex(),
        "metadata": event.metadata,
        "data": orjson.Fragment(event.data),
    }
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def answer_line(answer: Answer) -> bytes:
    members = msgspec.structs.asdict(answer)
    members |= {name: base64.b64encode(members[name]).decode() for name in ("request_hash", "body")}
    return orjson.dumps({_ANSWER: members}, option=orjson.OPT_APPEND_NEWLINE)


def read_line(number: int, line: bytes) -> StoredEvent | Answer:
    """Raises:
    LedgerFileRefused: it is neither; the message names the line.
    """
    try:
        members: Mapping[str, Any] = json.loads(line)
        if _ANSWER in members:
            return msgspec.convert(members[_ANSWER], Answer)
        if "specversion" in members:
            raise LedgerFileRefused(
                f"line {number}: CloudEvents are for others to read; import what is exported without --format"
            )
        data, metadata = (json.dumps(members[name], ensure_ascii=False) for name in ("data", "metadata"))
        given = {**members, "data": data, "metadata": metadata, "hash": bytes.fromhex(members["hash"])}
        event = msgspec.convert(given | {"recorded_at": datetime.fromisoformat(members["recorded_at"])}, StoredEvent)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerFileRefused(f"line {number} is no event of a ledger ({type(error).__name__}): is the file whole?") from None
    return event


def require_next(number: int, event: StoredEvent, position: int, hash_before: bytes) -> None:
    """Raises:
    LedgerFileRefused: it is not the event that came after `position`, as it was recorded.
    """
    if event.position != position + 1:
        raise LedgerFileRefused(
            f"line {number}: position {event.position} stands where {position + 1} is due; nothing of it is taken"
        )
    try:
        is_unchanged = event.computed_hash(hash_before) == event.hash
    except ValueError:
        is_unchanged = False
    if not is_unchanged:
        where = f"line {number}: the event at position {event.position}"
        raise LedgerFileRefused(f"{where} is not what was recorded, or not after this one; nothing of it is taken")
