"""Writes read models to the search store, which has no transactions. The checkpoint follows the data.

Each document is written whole, with the position of the event that changed it last as its version, and OpenSearch keeps the
later of two versions. So it does no harm if a batch is written twice, late, or by two workers: only one of them moves the
checkpoint, from exactly where the batch begins. After a crash in between, documents are ahead of the checkpoint, and the next
batch writes the same again. That is true only of changes that set fields: never let a projection of this store count. The
checkpoint says before how far documents may be ahead, in case that the log loses these events in a restore.

A checkpoint moves only after a refresh, so a search that begins after it was read sees all of it, and maybe more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import msgspec
from opensearchpy.exceptions import NotFoundError

from projector.projections.changes import REMOVED, DocumentChanges, StoredDocument
from projector.sinks.protocols import LiveCheckpoint, Step, damaged
from shared.log.encoding import canonical
from shared.read_models.dead_letters import DeadLetter
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import COPY_MARK, ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer, SchemaDifference
from shared.search.mappings import INDEX_BODY, POINTERS_BODY, find_mapping_differences
from shared.search.store import CHECKPOINT_ID, KeptState, SearchStore, checkpoint_in, document_of, pointer_in, pointer_name

ROWS_AT_ONCE: Final = 1_000
LOOKS_MAX: Final = 50
LOOK_SECONDS: Final = 0.02
"""How often, and how many times, to look again while documents are ahead of the checkpoint."""
COPIES_MAX: Final = 10_000
DOCUMENTS: Final = {"exists": {"field": "document_id"}}
"""The query for all documents of an index: the checkpoint has no `document_id`."""


def make_sink(store: SearchStore) -> "SearchSink":
    return SearchSink(store)


class SearchSink:
    """The read models in the search store. A generation is an index."""

    def __init__(self, store: SearchStore) -> None:
        self._store = store

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        return await self._store.read_checkpoint(generation)

    async def find_loss(self, generation: Generation) -> None:
        """Finds nothing: OpenSearch deletes no single document by itself."""

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint]:
        """Returns the live checkpoints, by `pointer_id`, with two requests for all of them."""
        store, live = self._store, dict[tuple[str, str], Generation]()
        asked = {(store.pointers_index, pointer_name(*each)): each for each in product(models, ledger_ids)}
        for place, content in (await store.read_states([*asked])).items():
            if (number := pointer_in(content).live) is not None:
                generation = Generation(*asked[place], number)
                live[store.index_of(generation), CHECKPOINT_ID] = generation
        checkpoints = await store.read_states([*live])
        found = {place: checkpoint_in(content) for place, content in checkpoints.items()}
        return {
            pointer_id(each.model, each.ledger_id): LiveCheckpoint(each.number, found[place])
            for place, each in live.items()
            if place in found
        }

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        return await self._store.read_letters(generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await self._store.read_parked(generation)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        index = self._store.index_of(generation)
        kept = await self._store.read_state(index, CHECKPOINT_ID)
        if kept is None or not _may_move(kept, step):
            return False
        if changes:
            documents = await self._documents(generation, changes)
            if (kept := await self._announce(index, kept, step)) is None:
                return False
            refused = await self._store.write(index, documents)
            if refused:
                raise damaged(generation, f"OpenSearch could not write {len(refused)} documents: {sorted(set(refused))}")
            await self._store.refresh(index)
        return await self._store.put_state(index, CHECKPOINT_ID, _moved(kept, step), kept) is not None

    async def _announce(self, index: str, kept: KeptState, step: Step) -> KeptState | None:
        """Notes how far documents may be ahead of it, before they are. Returns None if another worker was faster.

        If this worker dies and the log is restored from a backup, the log may lack these events, and only this note shows it.
        """
        state = kept.content["checkpoint"]
        if "ahead" in state and state["ahead"]["position"] >= step.after:
            return kept
        ahead = {"position": step.after, "log_hash": step.log_hash}
        return await self._store.put_state(index, CHECKPOINT_ID, {"checkpoint": state | {"ahead": ahead}}, kept)

    async def require_fits(self, generation: Generation, step: Step, changes: DocumentChanges) -> None:
        """Does nothing: the mappings take whatever a projection makes, and a batch that fails is written again."""

    async def _documents(self, generation: Generation, changes: DocumentChanges) -> Iterable[StoredDocument]:
        """Returns the documents that a batch changes, whole."""
        if changes.added or any(change.counts for change in changes.changed.values()):
            raise TypeError("a store without transactions cannot count")
        found = await self._store.fetch(self._store.index_of(generation), changes.changed)
        if missing := len(changes.changed) - len(found):
            raise damaged(generation, f"{missing} documents are missing")
        changed = (_changed(found[name], change.fields) for name, change in changes.changed.items())
        return [*changes.inserted.values(), *changed]

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        index = self._store.index_of(generation)
        await self._store.refresh(index)
        found = await self._store.search(index, {"size": 0, "query": DOCUMENTS, "track_total_hits": True})
        return int(found["hits"]["total"]["value"]) if found else 0

    async def sample(self, generation: Generation, size: int) -> list[str]:
        by_chance = {"function_score": {"query": DOCUMENTS, "random_score": {}}}
        found = await self._store.search(self._store.index_of(generation), {"size": size, "query": by_chance, "_source": False})
        return sorted(hit["_id"] for hit in found["hits"]["hits"]) if found else []

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        return await self._store.fetch(self._store.index_of(generation), names)

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        last = ""
        await self._store.refresh(self._store.index_of(generation))
        while documents := await self._read_after(generation, last):
            last = documents[-1]["_id"]
            for document in documents:
                yield canonical(document)

    async def _read_after(self, generation: Generation, name: str) -> list[StoredDocument]:
        asked: StoredDocument = {"size": ROWS_AT_ONCE, "query": DOCUMENTS, "sort": [{"document_id": "asc"}]}
        found = await self._store.search(self._store.index_of(generation), asked | ({"search_after": [name]} if name else {}))
        return [document_of(hit["_id"], hit["_source"]) for hit in found["hits"]["hits"]] if found else []

    async def rows_after(self, generation: Generation, name: str) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, and the documents after a name, in the order of their names."""
        if not name:
            # So that a document that somebody changed or deleted without a refresh shows.
            await self._store.refresh(self._store.index_of(generation))
        return await self._as_of_checkpoint(generation, lambda: self._read_after(generation, name))

    async def these_rows(self, generation: Generation, names: list[str]) -> tuple[int | None, list[StoredDocument]]:
        async def read() -> list[StoredDocument]:
            return [*(await self.pick(generation, names)).values()]

        return await self._as_of_checkpoint(generation, read)

    async def _as_of_checkpoint(
        self, generation: Generation, read: Callable[[], Awaitable[list[StoredDocument]]]
    ) -> tuple[int | None, list[StoredDocument]]:
        """Reads the checkpoint and then documents, again while a worker has written documents and not yet the checkpoint."""
        looks = 0
        while checkpoint := await self.read_checkpoint(generation):
            rows, looks = await read(), looks + 1
            if looks == LOOKS_MAX or all(row["position"] <= checkpoint.position for row in rows):
                return checkpoint.position, rows
            await asyncio.sleep(LOOK_SECONDS)
        return None, []

    async def find_schema_differences(self) -> list[SchemaDifference]:
        return await find_mapping_differences(self._store)

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        index = self._store.index_of(generation)
        await self._store.put_template(INDEX_BODY)
        await self._store.make_index(index)
        state = {"position": 0, "log_hash": "", "model_version": generation.model.version, "retired": False, "paused": False}
        aside: StoredDocument = {"letters": [], "parked": {}, "put_aside": 0, "skipped": []}
        await self._store.put_state(index, CHECKPOINT_ID, {"checkpoint": state | aside}, None)

    async def create_indexes(self, generation: Generation) -> None:
        """Does nothing: an index of OpenSearch is made with its mappings."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        return await self._store.read_numbers(model, ledger_id)

    async def drop(self, generation: Generation) -> None:
        await self._store.drop_index(self._store.index_of(generation))

    async def _mark(self, generation: Generation, **marks: bool) -> None:
        """Marks a generation as retired or paused, or takes the mark away. A batch that runs meanwhile fails."""
        index = self._store.index_of(generation)
        while kept := await self._store.read_state(index, CHECKPOINT_ID):
            content = {"checkpoint": kept.content["checkpoint"] | marks}
            if await self._store.put_state(index, CHECKPOINT_ID, content, kept):
                return

    # ── pointers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        return await self._store.read_pointer(model, ledger_id)

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        name = pointer_name(model, ledger_id)
        kept = await self._store.read_state(self._store.pointers_index, name)
        if before != (pointer_in(kept.content) if kept else Pointer()):
            return False
        if kept is None:
            await self._store.make_index(self._store.pointers_index, POINTERS_BODY)
        content = {"document_id": name, "notes": {}} | (kept.content if kept else {}) | msgspec.structs.asdict(after)
        return await self._store.put_state(self._store.pointers_index, name, content, kept) is not None

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
        await self._show(generation)
        return True

    async def _show(self, generation: Generation) -> None:
        """Makes the alias for people and dashboards name the live generation. Daybook itself reads the pointer."""
        alias = f"{self._store.prefix}.{pointer_name(generation.model, generation.ledger_id)}"
        try:
            await self._store.point_alias(alias, self._store.index_of(generation), DOCUMENTS)
        except NotFoundError:  # an index that had the alias was dropped at this moment, by a rebuild that was faster
            return

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
        index, name = self._store.pointers_index, pointer_name(model, ledger_id)
        while kept := await self._store.read_state(index, name):
            if await self._store.put_state(index, name, kept.content | {"notes": change(kept.content["notes"])}, kept):
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
        prefix = pointer_name(model, ledger_id) + COPY_MARK
        await self._store.refresh(self._store.pointers_index)
        asked = {"size": COPIES_MAX, "query": {"prefix": {"document_id": prefix}}, "_source": False}
        found = await self._store.search(self._store.pointers_index, asked)
        return sorted(hit["_id"].removeprefix(prefix) for hit in found["hits"]["hits"]) if found else []

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        await self._store.delete_state(self._store.pointers_index, pointer_name(model, ledger_id))


def _changed(document: StoredDocument, fields: StoredDocument) -> StoredDocument:
    return {name: value for name, value in (document | fields).items() if value is not REMOVED}


def _may_move(kept: KeptState, step: Step) -> bool:
    """True if the checkpoint is where the step begins and the generation is neither retired nor paused."""
    state = kept.content["checkpoint"]
    return state["position"] == step.before and not state["retired"] and not state["paused"]


def _moved(kept: KeptState, step: Step) -> StoredDocument:
    """Returns the checkpoint after the step, with the dead letters that the step adds."""
    state, added = dict(kept.content["checkpoint"]), step.dead_letters
    if "ahead" in state and state["ahead"]["position"] <= step.after:
        del state["ahead"]
    return {
        "checkpoint": state
        | {
            "position": step.after,
            "log_hash": step.log_hash,
            "letters": [*state["letters"], *map(msgspec.structs.asdict, added.letters)],
            "parked": state["parked"] | added.parked,
            "put_aside": state["put_aside"] + added.put_aside,
            "skipped": [*state["skipped"], *added.skipped],
        }
    }
