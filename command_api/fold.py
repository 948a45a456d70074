"""What a stream's events add up to: each kind of stream has a state, an initial one, and `evolve`."""

from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from shared.events import Event


class Fold(msgspec.Struct, frozen=True):
    """Raise `version` when `evolve` or the state changes: stored snapshots of another version are folded anew."""

    version: int
    initial: Any
    evolve: Callable[[Any, Event], Any]

    def read(self, snapshot: str) -> Any:
        return msgspec.json.decode(snapshot, type=type(self.initial))

    def write(self, state: Any) -> str:
        return msgspec.json.encode(state).decode()


def unexpected(event: Event) -> NoReturn:
    """For the last case of an `evolve`: an event that no stream of this kind can hold."""
    msg = f"{type(event).__name__} does not belong to this kind of stream"
    raise TypeError(msg)
