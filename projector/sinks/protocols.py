"""Small protocols for stores that hold read models. Depend on the narrowest protocol that you need.

All sinks follow one rule: a batch is applied only if the checkpoint is exactly where the batch begins. Applying it moves the
checkpoint to where the batch ends. So a batch changes nothing if it arrives twice, late, out of order, or from a worker that was
thought dead. MongoDB follows the rule with a transaction and Redis with a script: data and checkpoint change in one atomic write.
A store without transactions can follow it too: it stores with each document the position of the event that changed it last,
ignores a write with a lower position, and moves the checkpoint after the data.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from projector.projections.changes import DocumentChanges, KeyChanges, StoredDocument
from shared.errors import ReadModelDamaged
from shared.read_models.dead_letters import DeadLetter
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer, SchemaDifference

C_contra = TypeVar("C_contra", DocumentChanges, KeyChanges, contravariant=True)

TOGETHER_CHANGES_MAX: Final = 200
"""The most changes that a batch may have to share a round trip. A larger batch gets its own, so that no small batch waits for it;
the fixed cost of a round trip matters little then."""


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class LiveCheckpoint(msgspec.Struct, frozen=True):
    """The number of the live generation of a read model, and its checkpoint."""

    number: int
    checkpoint: Checkpoint


class StepDeadLetters(msgspec.Struct):
    """The dead letters, parked streams and skipped positions that one step adds. `put_aside` counts events of parked streams."""

    letters: list[DeadLetter] = msgspec.field(default_factory=list)
    parked: dict[str, int] = msgspec.field(default_factory=dict)
    put_aside: int = 0
    skipped: list[int] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.letters or self.parked or self.put_aside or self.skipped)


class Step(msgspec.Struct, frozen=True):
    """A move of a checkpoint from position `before` to position `after`. `log_hash` is the hash of the event at `after`."""

    before: int
    after: int
    log_hash: str
    dead_letters: StepDeadLetters = msgspec.field(default_factory=StepDeadLetters)


def damaged(generation: Generation, what: str) -> ReadModelDamaged:
    """Returns the error to raise if the data of a generation do not match its checkpoint."""
    name = generation.model.name
    return ReadModelDamaged(f"the data of {name} do not match its checkpoint ({what}): run `daybook replay {name}`")


# ── what is done with a generation ───────────────────────────────────────────────────────────────────────────────────


class CheckpointReader(Protocol):
    """Reads the checkpoint of a generation, its dead letters and its parked streams."""

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        """Returns None if the generation does not exist, or if its data were deleted, even if some were written again since."""

    async def find_loss(self, generation: Generation) -> str | None:
        """Looks for data that the store has lost, in a part of the generation, and in another part with the next call.

        Returns the name of a key that is lost, or None. A generation that has lost a key has no checkpoint afterwards.
        """

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        """Returns the dead letters of a generation, in the order of the log."""

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        """Returns the parked streams, each with the position of the event that parked it."""


class BatchWriter(CheckpointReader, Protocol[C_contra]):
    """Applies batches of events to a generation."""

    async def apply(self, generation: Generation, step: Step, changes: C_contra) -> bool:
        """Writes a batch and moves the checkpoint. Returns False, and changes nothing, if the checkpoint is not at `step.before`.

        Raises:
            ReadModelDamaged: the store cannot take the batch, or the data do not match the checkpoint.
        """

    async def require_fits(self, generation: Generation, step: Step, changes: C_contra) -> None:
        """Checks a batch before `apply`, in a store that cannot undo a failed `apply`. Slow.

        Raises:
            ReadModelDamaged: `apply` would fail.
        """


class ContentReader(CheckpointReader, Protocol):
    """Reads the documents or keys of a generation. A name is the id of a document, or a key without the generation's prefix."""

    async def count(self, generation: Generation) -> int:
        """Returns the number of documents or keys."""

    async def sample(self, generation: Generation, size: int) -> list[str]:
        """Returns the names of at most `size` documents or keys, chosen at random."""

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        """Returns the documents or the values of the keys, by name. Leaves out names that do not exist."""

    def content(self, generation: Generation) -> AsyncIterator[bytes]:
        """Yields each document or key in a canonical form without the generation's number. The order is undefined."""


class LiveReader(Protocol):
    """Reads the checkpoints of many live generations at once."""

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> Mapping[str, LiveCheckpoint | None]:
        """Returns the live checkpoints of these read models of these ledgers, each under its `pointer_id`.

        Also looks for lost data, as `find_loss` does. Leaves out a read model that has no live generation or has lost data. One
        on a server that does not answer, while others do, is None. For MongoDB and Redis, the number of round trips does not
        depend on the number of ledgers.
        """


class RowReader(Protocol):
    """Reads the rows of a generation as of one moment, so that `daybook verify` can compare them while the generation moves.

    The sink of each optional store has these methods. A store without transactions reads the checkpoint first and returns what
    each row says of its own position.
    """

    async def rows_after(self, generation: Generation, name: str) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, or None without one, and some of the rows whose names follow `name`.

        The order is the store's own. There are no more rows if none is returned. An empty name is before all others.
        """

    async def these_rows(self, generation: Generation, names: list[str]) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, or None without one, and the rows of these names that exist."""

    async def find_schema_differences(self) -> list[SchemaDifference]:
        """Returns the parts of the store's own schema that are missing or were changed."""


# ── what is done with all generations of a read model ────────────────────────────────────────────────────────────────


class GenerationCatalog(Protocol):
    """Creates, finds and drops generations."""

    async def prepare(self, generation: Generation) -> None:
        """Creates an empty generation at position 0. Does nothing if the generation exists."""

    async def create_indexes(self, generation: Generation) -> None:
        """Creates the missing indexes of a generation."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """Returns the numbers of all generations for which the store holds any data."""

    async def drop(self, generation: Generation) -> None:
        """Deletes all data of a generation. The pointer must not name this generation, which is not checked."""


class PointerWriter(Protocol):
    """Reads and moves the pointer that names the live generation."""

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer: ...

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        """Changes the pointer from `before` to `after`. Returns False, and changes nothing, if the pointer is not `before`."""

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        """Makes the generation that was built live; see `Pointer.switched_to`. The old live generation takes no more batches.

        Returns False, and changes nothing, if the pointer is not `pointer` or if the new generation is behind the live one.
        """

    async def reopen(self, generation: Generation) -> None:
        """Allows batches again for a generation that was live before."""


class PointerNotes(Protocol):
    """Reads and writes the notes beside a pointer (see `shared.read_models.shapes`), and pauses a projection."""

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]: ...

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        """Writes a note beside the pointer. Does nothing if the read model has no pointer."""

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        """Stops all generations of the read model from taking batches until `resume` is called."""

    async def resume(self, model: ReadModel, ledger_id: str) -> None: ...


class CopyCatalog(Protocol):
    """Finds and removes copies of a read model as of a past moment."""

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]: ...

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        """Deletes the pointer of a copy."""


class Sink(
    BatchWriter[C_contra],
    LiveReader,
    ContentReader,
    GenerationCatalog,
    PointerWriter,
    PointerNotes,
    CopyCatalog,
    Protocol[C_contra],
):
    """A store that holds read models: all of the protocols above."""
