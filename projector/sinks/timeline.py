"""Writes read models to the timeline store, which has no transactions. The checkpoint follows the data.

Each row is written whole, with the position of its event as its write timestamp, and Cassandra keeps the later of two writes. So
it does no harm if a batch is written twice, late, or by two workers: only one of them moves the checkpoint, from exactly where
the batch begins. After a crash in between, rows are ahead of the checkpoint, and the next batch writes the same again. Nothing
is counted, and no row is read before it is written.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import msgspec

from projector.projections.changes import DocumentChanges, StoredDocument
from projector.sinks.protocols import LiveCheckpoint, Step
from shared.log.encoding import canonical
from shared.read_models.dead_letters import DeadLetter
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import COPY_MARK, ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer, SchemaDifference
from shared.timeline.rows import CHECKPOINT_KEY, COLUMNS, document_of, key_of
from shared.timeline.store import TableMissingError, TimelineState, TimelineStore, checkpoint_in, pointer_in
from shared.timeline.tables import find_table_differences

ROWS_AT_ONCE: Final = 1_000
PLACES_OF_A_SAMPLE: Final = 10
TOKENS: Final = 2**63
"""Cassandra's tokens are from -2^63 to 2^63 - 1."""
LOOKS_MAX: Final = 50
LOOK_SECONDS: Final = 0.02
"""How often, and how many times, to look again while rows are ahead of the checkpoint."""
_SHOWN: Final = ", ".join(name for name in COLUMNS if name != "state")
_TOKEN: Final = "token(account_id, part, bucket)"  # noqa: S105 # a word of Cassandra
_PARTITION: Final = "account_id = ? AND part = ? AND bucket = ?"


def make_sink(store: TimelineStore) -> "TimelineSink":
    return TimelineSink(store)


class TimelineSink:
    """The read models in the timeline store. A generation is a table."""

    def __init__(self, store: TimelineStore) -> None:
        self._store = store

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        return await self._store.read_checkpoint(generation)

    async def find_loss(self, generation: Generation) -> None:
        """Finds nothing: Cassandra deletes no single row by itself."""

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint]:
        """Returns the live checkpoints, by `pointer_id`. The rows of all of them are asked for at once."""
        pairs = [*product(models, ledger_ids)]
        pointers = await self._states([self._store.pointer_place(*each) for each in pairs])
        numbers = {pair: pointer_in(kept.content).live for pair, kept in zip(pairs, pointers, strict=True) if kept}
        live = [Generation(*pair, number) for pair, number in numbers.items() if number is not None]
        kept = await self._states([self._store.checkpoint_place(each) for each in live])
        return {
            pointer_id(each.model, each.ledger_id): LiveCheckpoint(each.number, checkpoint_in(state.content))
            for each, state in zip(live, kept, strict=True)
            if state
        }

    async def _states(self, places: Sequence[Any]) -> list[TimelineState | None]:
        return await asyncio.gather(*(self._store.read_state(place) for place in places))

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        return await self._store.read_letters(generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await self._store.read_parked(generation)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        place = self._store.checkpoint_place(generation)
        kept = await self._store.read_state(place)
        if kept is None or not _may_move(kept, step):
            return False
        if changes.changed or changes.added:
            raise TypeError("the timeline store writes whole rows")
        if changes:
            try:
                await self._store.write(place.table, changes.inserted.values())
            except TableMissingError:  # dropped meanwhile, with its checkpoint
                return False
        return await self._store.put_state(place, _moved(kept, step), kept)

    async def require_fits(self, generation: Generation, step: Step, changes: DocumentChanges) -> None:
        """Does nothing: the columns take whatever a projection makes, and a batch that fails is written again."""

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        """Reads the keys of all rows, because Cassandra would count them in one request, which has a time limit."""
        question = f"SELECT account_id FROM {self._store.table_of(generation)}"  # noqa: S608 # no text of a caller is in it
        found = 0
        try:
            async for page in self._store.pages(question, page_rows=5 * ROWS_AT_ONCE):
                found += sum(row["account_id"] != CHECKPOINT_KEY["account_id"] for row in page)
        except TableMissingError:
            return 0
        return found

    async def sample(self, generation: Generation, size: int) -> list[str]:
        """Returns rows from some places of the table, which Cassandra orders by a hash of the partition."""
        places = [-TOKENS, *(random.randrange(-TOKENS, TOKENS) for _ in range(PLACES_OF_A_SAMPLE - 1))]  # noqa: S311 # no secret
        rows: list[StoredDocument] = []
        for place in places:
            limit = 1 + max(1, size // PLACES_OF_A_SAMPLE)
            rows += await self._select(generation, f"WHERE {_TOKEN} >= ? LIMIT {limit}", [place])
        names = sorted({row["_id"] for row in rows})
        return random.sample(names, min(size, len(names)))

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        rows: list[StoredDocument] = []
        for start in range(0, len(names), ROWS_AT_ONCE // 10):
            some = names[start : start + ROWS_AT_ONCE // 10]
            found = await asyncio.gather(*(self._one(generation, name) for name in some))
            rows += [row for each in found for row in each]
        return {row["_id"]: row for row in rows}

    async def _one(self, generation: Generation, name: str) -> list[StoredDocument]:
        key = msgspec.structs.astuple(key_of(name))
        return await self._select(generation, f"WHERE {_PARTITION} AND moment = ? AND place = ?", key)

    async def _select(self, generation: Generation, which: str, values: Sequence[Any]) -> list[StoredDocument]:
        """Returns the documents of the rows that a condition finds, without the checkpoint."""
        question = f"SELECT {_SHOWN} FROM {self._store.table_of(generation)} {which}"  # noqa: S608 # as above
        try:
            found = (await self._store.ask(question, values)).rows
        except TableMissingError:
            return []
        return [document_of(row) for row in found if row["account_id"] != CHECKPOINT_KEY["account_id"]]

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        last = ""
        while documents := await self._read_after(generation, last):
            last = documents[-1]["_id"]
            for document in documents:
                yield canonical(document)

    async def _read_after(self, generation: Generation, name: str) -> list[StoredDocument]:
        """Returns the next rows in the order of the table: by the token of the partition, and newest first in it."""
        limit = f"LIMIT {ROWS_AT_ONCE}"
        if not name:
            return await self._select(generation, limit, ())
        key = key_of(name)
        partition = (key.account_id, key.part, key.bucket)
        rest = await self._select(
            generation, f"WHERE {_PARTITION} AND (moment, place) < (?, ?) {limit}", (*partition, key.moment, key.place)
        )
        return rest or await self._select(generation, f"WHERE {_TOKEN} > token(?, ?, ?) {limit}", partition)

    async def rows_after(self, generation: Generation, name: str) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, and the rows after a name, in the order of the table."""
        return await self._as_of_checkpoint(generation, lambda: self._read_after(generation, name))

    async def these_rows(self, generation: Generation, names: list[str]) -> tuple[int | None, list[StoredDocument]]:
        async def read() -> list[StoredDocument]:
            return [*(await self.pick(generation, names)).values()]

        return await self._as_of_checkpoint(generation, read)

    async def _as_of_checkpoint(
        self, generation: Generation, read: Callable[[], Awaitable[list[StoredDocument]]]
    ) -> tuple[int | None, list[StoredDocument]]:
        """Reads the checkpoint and then rows, again while a worker has written rows and not yet the checkpoint."""
        looks = 0
        while checkpoint := await self.read_checkpoint(generation):
            rows, looks = await read(), looks + 1
            # A row that somebody made by hand may have no position.
            if looks == LOOKS_MAX or all((row["position"] or 0) <= checkpoint.position for row in rows):
                return checkpoint.position, rows
            await asyncio.sleep(LOOK_SECONDS)
        return None, []

    async def find_schema_differences(self) -> list[SchemaDifference]:
        return await find_table_differences(self._store)

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        await self._store.make_table(generation)
        state = {"position": 0, "log_hash": "", "model_version": generation.model.version, "retired": False, "paused": False}
        aside: StoredDocument = {"letters": [], "parked": {}, "put_aside": 0, "skipped": []}
        await self._store.put_state(self._store.checkpoint_place(generation), state | aside, None)

    async def create_indexes(self, generation: Generation) -> None:
        """Does nothing: rows are read by their keys."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        return await self._store.read_numbers(model, ledger_id)

    async def drop(self, generation: Generation) -> None:
        await self._store.drop_table(generation)

    async def _mark(self, generation: Generation, **marks: bool) -> None:
        """Marks a generation as retired or paused, or takes the mark away. A batch that runs meanwhile fails."""
        place = self._store.checkpoint_place(generation)
        while kept := await self._store.read_state(place):
            if await self._store.put_state(place, kept.content | marks, kept):
                return

    # ── pointers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        return await self._store.read_pointer(model, ledger_id)

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        place = self._store.pointer_place(model, ledger_id)
        kept = await self._store.read_state(place)
        if before != (pointer_in(kept.content) if kept else Pointer()):
            return False
        if kept is None:
            await self._store.make_pointers()
        content = {"notes": {}} | (kept.content if kept else {}) | msgspec.structs.asdict(after)
        return await self._store.put_state(place, content, kept)

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        """Moves the pointer, and then retires the old generation.

        Both cannot be one step here. Between them, the old generation may take one more batch, which no query reads any more.
        """
        model, ledger_id = generation.model, generation.ledger_id
        built = await self.read_checkpoint(generation)
        if built is None or pointer.building != generation.number:
            return False
        old = None if pointer.live is None else Generation(model, ledger_id, pointer.live)
        before = await self.read_checkpoint(old) if old else None
        if before and before.position > built.position:
            return False
        if not await self.move_pointer(model, ledger_id, pointer, pointer.switched_to(generation)):
            return False
        if old:
            await self._mark(old, retired=True)
        return True

    async def reopen(self, generation: Generation) -> None:
        await self._mark(generation, retired=False)

    # ── notes, pauses, copies ────────────────────────────────────────────────────────────────────────────────────────

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        return await self._store.read_notes(model, ledger_id)

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        await self._change_notes(model, ledger_id, lambda notes: {**notes, name: value})

    async def _change_notes(
        self, model: ReadModel, ledger_id: str, change: Callable[[Mapping[str, str]], dict[str, str]]
    ) -> None:
        place = self._store.pointer_place(model, ledger_id)
        while kept := await self._store.read_state(place):
            if await self._store.put_state(place, kept.content | {"notes": change(kept.content["notes"])}, kept):
                return

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)
        await self._set_paused(model, ledger_id, paused=True)

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._set_paused(model, ledger_id, paused=False)
        await self._change_notes(model, ledger_id, lambda notes: {name: notes[name] for name in notes if name != "paused"})

    async def _set_paused(self, model: ReadModel, ledger_id: str, *, paused: bool) -> None:
        for number in await self.numbers(model, ledger_id):
            await self._mark(Generation(model, ledger_id, number), paused=paused)

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = pointer_id(model, ledger_id) + COPY_MARK
        names = await self._store.read_pointer_names()
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        await self._store.delete_state(self._store.pointer_place(model, ledger_id))


def _may_move(kept: TimelineState, step: Step) -> bool:
    """True if the checkpoint is where the step begins and the generation is neither retired nor paused."""
    state = kept.content
    return state["position"] == step.before and not state["retired"] and not state["paused"]


def _moved(kept: TimelineState, step: Step) -> StoredDocument:
    """Returns the checkpoint after the step, with the dead letters that the step adds."""
    state, added = kept.content, step.dead_letters
    return state | {
        "position": step.after,
        "log_hash": step.log_hash,
        "letters": [*state["letters"], *map(msgspec.structs.asdict, added.letters)],
        "parked": state["parked"] | added.parked,
        "put_aside": state["put_aside"] + added.put_aside,
        "skipped": [*state["skipped"], *added.skipped],
    }
