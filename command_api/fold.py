"""What a stream's events add up to: each kind of stream has a state, an initial one, and `evolve`."""

from collections.abc import Callable
from typing import Any

import msgspec

from shared.personal_data import Keys, Place, opened_members, people_in, personal_fields, sealed_members


class Fold(msgspec.Struct, frozen=True):
    """Raise `version` when `evolve` or the state changes: stored snapshots of another version are folded anew.

    Fields of a state that are marked as personal stand sealed in its snapshots, bound to the stream.
    """

    version: int
    initial: Any
    evolve: Callable[[Any, Any], Any]

    @property
    def is_personal(self) -> bool:
        kind: type = type(self.initial)
        return bool(personal_fields(kind))

    def people(self, snapshot: str) -> set[str]:
        """Whose keys it takes to read a snapshot."""
        return people_in(type(self.initial), msgspec.json.decode(snapshot)) if self.is_personal else set()

    def read(self, snapshot: str, place: Place, keys: Keys) -> Any:
        """Raises:
        ValueError: it does not fit the state, or was not sealed at this place (see `snapshot_place`).
        """
        kind = type(self.initial)
        if not self.is_personal:
            return msgspec.json.decode(snapshot, type=kind)
        return msgspec.convert(opened_members(kind, msgspec.json.decode(snapshot), place, keys), kind)

    def write(self, state: Any, place: Place, keys: Keys) -> str:
        stored = sealed_members(state, place, keys) if self.is_personal else state
        return msgspec.json.encode(stored).decode()


def snapshot_place(ledger_id: str, stream_id: str, version: int) -> Place:
    """What the personal fields of a snapshot are bound to."""
    return "snapshot", ledger_id, stream_id, str(version)
