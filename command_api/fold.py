"""What a stream's events add up to: each kind of stream has a state, an initial one, and `evolve`."""

from collections.abc import Callable
from typing import Any

import msgspec


class Fold(msgspec.Struct, frozen=True):
    """Raise `version` when `evolve` or the state changes: stored snapshots of another version are folded anew."""

    version: int
    initial: Any
    evolve: Callable[[Any, Any], Any]

    def read(self, snapshot: str) -> Any:
        return msgspec.json.decode(snapshot, type=type(self.initial))

    def write(self, state: Any) -> str:
        return msgspec.json.encode(state).decode()
