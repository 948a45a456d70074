"""Computes the state of a stream from its head, and makes the head of a stream that has a state.

A head has a snapshot of the state. Most transfers have one event, which says as much as a snapshot would: it is read instead.
"""

from typing import Any

from shared.log.encoding import NO_KEYS, decode
from shared.log.heads import UNFOLDED, StreamHead
from shared.log.stream_fold import StreamFold, snapshot_context
from shared.privacy.encryption import KeysByPerson


def is_readable(fold: StreamFold, head: StreamHead) -> bool:
    """True if `read_state` can compute the state of a stream from this head, without more of its events."""
    return head.fold_version == fold.version or (head.event_type is not None and not fold.is_personal)


def read_state(fold: StreamFold, ledger_id: str, head: StreamHead, keys: KeysByPerson) -> Any:
    """Returns the state of the stream with this head, which must be readable.

    Raises:
        ValueError: see `StreamFold.read`.
        UnknownEvent: this code cannot read the event.
    """
    if head.event_type is None:
        return fold.read(head.snapshot, snapshot_context(ledger_id, head.stream_id, head.version), keys)
    event = decode(head.event_type, head.event_schema_version or 0, head.event_data or "", NO_KEYS)
    return fold.evolve(fold.initial, event)


def make_head(
    fold: StreamFold, ledger_id: str, stream_id: str, version: int, position: int, state: Any, keys: KeysByPerson
) -> StreamHead:
    """Returns the head of a stream that has this state, with a snapshot if this kind of stream has one at this version."""
    if version == 1 and not fold.has_first_snapshot:
        return StreamHead(stream_id, version, position, UNFOLDED, "null")
    snapshot = fold.write(state, snapshot_context(ledger_id, stream_id, version), keys)
    return StreamHead(stream_id, version, position, fold.version, snapshot)
