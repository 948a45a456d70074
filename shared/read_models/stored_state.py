"""What a store says of a read model: its pointer, its checkpoints and its dead letters. Every sink can read these.

MongoDB and Redis always exist, and the modules beside this one read them. The query API reads all other stores, which are
optional, through `OptionalStore`.
"""

from typing import Protocol

import msgspec

from shared.read_models.dead_letters import NO_DEAD_LETTERS, DeadLetter, DeadLetterSummary
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel


class Pointer(msgspec.Struct, frozen=True):
    """The numbers of the live generation, of the one that is being built, and of the previous one, kept for a rollback."""

    live: int | None = None
    building: int | None = None
    previous: int | None = None

    @property
    def numbers(self) -> set[int | None]:
        return {self.live, self.building, self.previous}

    def switched_to(self, generation: Generation) -> "Pointer":
        """Returns the pointer after `generation` became live. Keeps the old live generation unless it holds personal data."""
        return Pointer(live=generation.number, previous=None if generation.model.personal else self.live)


class LogPlace(msgspec.Struct, frozen=True):
    """A position of a log and the hash of the event there, hexadecimal. Another log has another hash at the same position."""

    position: int
    log_hash: str


class Checkpoint(msgspec.Struct, frozen=True):
    """The checkpoint of a generation. `log_hash` is the hash of the event at `position`, hexadecimal, or empty at position 0.

    A store without transactions may hold data of later events. Then `ahead` is the last event of which it may.
    """

    position: int
    log_hash: str
    model_version: int
    aside: DeadLetterSummary = NO_DEAD_LETTERS
    ahead: LogPlace | None = None


class SchemaDifference(msgspec.Struct, frozen=True, order=True):
    """A part of an optional store's schema that is missing or was changed, and how to mend it."""

    part: str
    is_missing: bool
    fix: str


class OptionalStore(Protocol):
    """A store that exists only if its URL is set: what queries and `daybook status` read of its read models.

    Its driver's errors are those of SQLAlchemy, or it raises `StoreUnavailable` in their place: the other processes know no
    driver of an optional store.
    """

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer: ...

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        """Returns the notes beside the pointer (see `shared.read_models.generations`)."""

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        """Returns None if the generation does not exist, or if its data were deleted."""

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        """Returns the dead letters of a generation, in the order of the log."""


async def read_live_position(store: OptionalStore, model: ReadModel, ledger_id: str) -> int | None:
    """Returns the position of the live generation, or None if no generation is live."""
    number = (await store.read_pointer(model, ledger_id)).live
    checkpoint = None if number is None else await store.read_checkpoint(Generation(model, ledger_id, number))
    return checkpoint.position if checkpoint else None
