"""Stream folds: each computes the state of one kind of stream from its events."""

from collections.abc import Callable
from typing import Any

import msgspec

from shared.privacy.encryption import (
    EncryptionContext,
    KeysByPerson,
    decrypted_members,
    encrypted_members,
    people_in,
    personal_fields,
)


class StreamFold(msgspec.Struct, frozen=True):
    """Computes the state of one kind of stream: starts with `initial` and applies `evolve` to each event.

    Raise `version` when `evolve` or the fields of the state change. Snapshots with another version are ignored, and the state is
    computed from the events again. Personal fields of a state are encrypted in its snapshots.
    """

    version: int
    initial: Any
    evolve: Callable[[Any, Any], Any]
    has_first_snapshot: bool = True
    """False for a kind of which there are many streams, most of them with one event: that event is read instead of a snapshot."""

    @property
    def is_personal(self) -> bool:
        kind: type = type(self.initial)
        return bool(personal_fields(kind))

    def people(self, snapshot: str) -> set[str]:
        """Returns the ids of the people whose keys are needed to read a snapshot."""
        return people_in(type(self.initial), msgspec.json.decode(snapshot)) if self.is_personal else set()

    def read(self, snapshot: str, context: EncryptionContext, keys: KeysByPerson) -> Any:
        """Returns the state that a snapshot contains.

        Raises:
            ValueError: the snapshot does not fit the state, or was not encrypted in this context (see `snapshot_context`).
        """
        kind = type(self.initial)
        if not self.is_personal:
            return msgspec.json.decode(snapshot, type=kind)
        return msgspec.convert(decrypted_members(kind, msgspec.json.decode(snapshot), context, keys), kind)

    def write(self, state: Any, context: EncryptionContext, keys: KeysByPerson) -> str:
        """Returns the snapshot of a state as JSON, with its personal fields encrypted."""
        stored = encrypted_members(state, context, keys) if self.is_personal else state
        return msgspec.json.encode(stored).decode()


def snapshot_context(ledger_id: str, stream_id: str, version: int) -> EncryptionContext:
    """Returns the encryption context for the personal fields of the snapshot of a stream at a version."""
    return "snapshot", ledger_id, stream_id, str(version)
