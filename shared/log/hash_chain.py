"""The hash chain: each event's hash covers the event and the hash of the previous event.

If a stored event is changed, its hash and all later hashes no longer match. The format of the hashed bytes never changes.
This module does no I/O.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

EventColumns = tuple[str, str, int, str, str]
"""An event's id, type, schema version, data and metadata, in the form of the columns of the table `events`."""


def chain(
    hash_before: bytes, ledger_id: str, first_position: int, events: Iterable[EventColumns], recorded_at: datetime
) -> list[bytes]:
    """Returns the hashes of events that have consecutive positions and the same time of recording."""
    hashes = []
    last = hash_before
    for position, columns in enumerate(events, first_position):
        last = event_hash(last, ledger_id, position, *columns, recorded_at)
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
    """Returns the hash of one event.

    It is the SHA-256 over the previous event's hash, followed by
    `["ledger",position,"id","type",schema version,data,metadata,microseconds]`. `data` and `metadata` are canonical JSON (see
    `shared.log.encoding.canonical`). The microseconds are counted from the start of 1970.
    """
    microseconds = (recorded_at - _EPOCH) // _MICROSECOND
    event = f'["{ledger_id}",{position},"{event_id}","{type_name}",{schema_version},{data},{metadata},{microseconds}]'
    return hashlib.sha256(hash_before + event.encode()).digest()
