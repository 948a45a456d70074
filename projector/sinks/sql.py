"""Writes read models to the tables of SQL reporting. A transaction writes a batch and moves the checkpoint.

All generations share the tables: each row begins with the id of its generation. Never write a row outside a transaction that
moves its checkpoint first. That is also the lock: of two workers with the same batch, the second waits and then finds that the
checkpoint has moved.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice, product
from typing import Any, Final

import msgspec
from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.projections.changes import DocumentChange, DocumentChanges, StoredDocument
from projector.sinks.protocols import LiveCheckpoint, Step, StepDeadLetters, damaged
from shared.log.encoding import canonical
from shared.read_models.dead_letters import DeadLetter
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import COPY_MARK, ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer, SchemaDifference
from shared.reporting.schema_check import find_schema_differences
from shared.reporting.store import ReportingStore, generation_in, id_of_generation, is_generation, of_generation, pointer_in
from shared.reporting.tables import DATA_TABLES, METADATA

ROWS_AT_ONCE: Final = 1_000
"""The most rows that one statement names or that are read at once. SQLite takes at most 32,766 values in a statement."""
DROPPED_AT_ONCE: Final = 5_000
SCAN_SECONDS_MAX: Final = 24 * 3_600.0
"""The timeout for counting and sampling millions of rows."""

_GENERATIONS: Final = METADATA.tables["generations"]
_POINTERS: Final = METADATA.tables["pointers"]
_NOTES: Final = METADATA.tables["notes"]
_ASIDE: Final = {name: METADATA.tables[name] for name in ("dead_letters", "parked_streams", "skipped_events")}
_INSERTS: Final[dict[str, Any]] = {"mysql": mysql.insert, "postgresql": postgresql.insert, "sqlite": sqlite.insert}


def make_sink(store: ReportingStore) -> "SqlSink":
    return SqlSink(store)


class SqlSink:
    """The read models in the reporting database. A row is a document with the id `<table>/<id>`."""

    def __init__(self, store: ReportingStore) -> None:
        self._store = store

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        return await self._store.read_checkpoint(generation)

    async def find_loss(self, generation: Generation) -> None:
        """Finds nothing: a database deletes no single row by itself."""

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint]:
        """Returns the live checkpoints, by `pointer_id`. Reads one after another."""
        found = {}
        for model, ledger_id in product(models, ledger_ids):
            number = (await self.read_pointer(model, ledger_id)).live
            checkpoint = None if number is None else await self.read_checkpoint(Generation(model, ledger_id, number))
            if number is not None and checkpoint:
                found[pointer_id(model, ledger_id)] = LiveCheckpoint(number, checkpoint)
        return found

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        return await self._store.read_letters(generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await self._store.read_parked(generation)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        with _errors_of_data(generation):
            async with self._store.writing() as connection:
                if not await _move(connection, generation, step):
                    return False
                generation_id = await id_of_generation(connection, generation)
                await _write_aside(connection, generation_id, step.dead_letters)
                await self._write(connection, generation, generation_id, changes)
        return True

    async def require_fits(self, generation: Generation, step: Step, changes: DocumentChanges) -> None:
        """Does nothing: the database rolls back a transaction that fails."""

    async def _write(
        self, connection: AsyncConnection, generation: Generation, generation_id: int, changes: DocumentChanges
    ) -> None:
        changed = _by_table(changes.changed)
        for name, table in DATA_TABLES.items():
            rows = [_row(table, generation_id, row_id, fields) for row_id, fields in _by_table(changes.inserted)[name].items()]
            for some in _lists(rows, ROWS_AT_ONCE):
                await connection.execute(insert(table), some)
            await _require_rows(connection, generation, generation_id, table, changed[name])
            for statement, some in _updates(table, generation_id, changed[name]):
                await connection.execute(statement, some)
            for row_id, counts in _by_table(changes.added)[name].items():
                await connection.execute(self._addition(table, _row(table, generation_id, row_id, counts), counts))

    def _addition(self, table: Table, row: StoredDocument, counts: Mapping[str, int]) -> Any:
        """Returns the statement that adds numbers to a row, or inserts it if it does not exist."""
        statement = _INSERTS[self._store.dialect](table).values(row)
        if self._store.dialect == "mysql":
            return statement.on_duplicate_key_update({each: table.c[each] + statement.inserted[each] for each in counts})
        sums = {each: table.c[each] + statement.excluded[each] for each in counts}
        return statement.on_conflict_do_update(index_elements=[table.c.generation_id, table.c.id], set_=sums)

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        async with self._store.reading(SCAN_SECONDS_MAX) as connection:
            return sum([await _count(connection, table, generation) for table in DATA_TABLES.values()])

    async def sample(self, generation: Generation, size: int) -> list[str]:
        names: list[str] = []
        async with self._store.reading(SCAN_SECONDS_MAX) as connection:
            for name, table in DATA_TABLES.items():
                chance = func.rand() if self._store.dialect == "mysql" else func.random()
                query = select(table.c.id).where(of_generation(table, generation)).order_by(chance)
                found = await connection.scalars(query.limit(-(-size // len(DATA_TABLES))))
                names += [f"{name}/{row_id}" for row_id in found]
        return sorted(names)[:size]

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        async with self._store.reading(SCAN_SECONDS_MAX) as connection:
            return {each["_id"]: each for each in await _pick(connection, generation, names)}

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        last = ""
        while documents := (await self.rows_after(generation, last))[1]:
            last = documents[-1]["_id"]
            for document in documents:
                yield canonical(document)

    async def rows_after(self, generation: Generation, name: str) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, and rows after a name, in an order that the database chooses for each table."""
        after, _, row_id = name.partition("/")
        tables = [each for each in DATA_TABLES if not after or list(DATA_TABLES).index(each) >= list(DATA_TABLES).index(after)]
        async with self._store.reading() as connection:
            checkpoint = await generation_in(connection, generation)
            for each in tables:
                table = DATA_TABLES[each]
                query = select(table).where(of_generation(table, generation)).order_by(table.c.id).limit(ROWS_AT_ONCE)
                query = query.where(table.c.id > row_id) if each == after else query
                if found := [_document(table, row) for row in await connection.execute(query)]:
                    return (checkpoint.position if checkpoint else None), found
        return (checkpoint.position if checkpoint else None), []

    async def these_rows(self, generation: Generation, names: list[str]) -> tuple[int | None, list[StoredDocument]]:
        """Returns the position of the checkpoint, and the rows of these names at that position."""
        async with self._store.reading() as connection:
            checkpoint = await generation_in(connection, generation)
            return (checkpoint.position if checkpoint else None), await _pick(connection, generation, names)

    async def find_schema_differences(self) -> list[SchemaDifference]:
        return await find_schema_differences(self._store)

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        row = {"ledger_id": generation.ledger_id, "model": generation.model.name, "number": generation.number}
        zeros = dict.fromkeys(("position", "letters", "parked", "put_aside"), 0)
        state = zeros | {"log_hash": "", "model_version": generation.model.version, "retired": False, "paused": False}
        await self._insert_if_missing(_GENERATIONS, row | state, "number")

    async def _insert_if_missing(self, table: Table, row: StoredDocument, kept: str) -> None:
        statement = _INSERTS[self._store.dialect](table).values(row)
        if self._store.dialect == "mysql":
            statement = statement.on_duplicate_key_update({kept: table.c[kept]})
        else:
            statement = statement.on_conflict_do_nothing()
        async with self._store.writing() as connection:
            await connection.execute(statement)

    async def create_indexes(self, generation: Generation) -> None:
        """Does nothing: the migrations have made them."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        return await self._store.read_numbers(model, ledger_id)

    async def drop(self, generation: Generation) -> None:
        """Deletes the rows in several transactions. The row in `generations` goes last, so that a drop can be continued."""
        stop = update(_GENERATIONS).where(is_generation(generation)).values(retired=True)
        async with self._store.writing() as connection:
            await connection.execute(stop)
        for table in (*reversed(DATA_TABLES.values()), *_ASIDE.values()):
            while await self._drop_some(table, generation):
                pass
        async with self._store.writing() as connection:
            await connection.execute(delete(_GENERATIONS).where(is_generation(generation)))

    async def _drop_some(self, table: Table, generation: Generation) -> int:
        key = list(table.primary_key.columns)[1]
        async with self._store.reading(SCAN_SECONDS_MAX) as connection:
            query = select(key).where(of_generation(table, generation)).order_by(key).limit(DROPPED_AT_ONCE)
            keys = [*await connection.scalars(query)]
        if keys:
            async with self._store.writing() as connection:
                await connection.execute(delete(table).where(of_generation(table, generation), key.in_(keys)))
        return len(keys)

    # ── pointers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        return await self._store.read_pointer(model, ledger_id)

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        if before == Pointer():
            await self._insert_if_missing(_POINTERS, {"ledger_id": ledger_id, "model": model.name}, "live")
        async with self._store.writing() as connection:
            return await _move_pointer(connection, model, ledger_id, before, after)

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        """Moves the pointer and retires the old generation in the same transaction."""
        if pointer.building != generation.number:
            return False
        model, ledger_id = generation.model, generation.ledger_id
        async with self._store.writing() as connection:
            if not await _move_pointer(connection, model, ledger_id, pointer, pointer.switched_to(generation)):
                return False
            # Locks the new generation, so that its checkpoint is the newest one and not that of an earlier moment.
            locked = update(_GENERATIONS).where(is_generation(generation)).values(retired=False)
            built = await generation_in(connection, generation) if (await connection.execute(locked)).rowcount else None
            if built is not None and await _retire(connection, generation, pointer.live, built.position):
                return True
            await connection.rollback()
        return False

    async def reopen(self, generation: Generation) -> None:
        async with self._store.writing() as connection:
            await connection.execute(update(_GENERATIONS).where(is_generation(generation)).values(retired=False))

    # ── notes, pauses, copies ────────────────────────────────────────────────────────────────────────────────────────

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        return await self._store.read_notes(model, ledger_id)

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        async with self._store.writing() as connection:
            await connection.execute(delete(_NOTES).where(_is_note(model, ledger_id, name)))
            if await pointer_in(connection, model, ledger_id) != Pointer():
                row = {"ledger_id": ledger_id, "model": model.name, "name": name, "value": value}
                await connection.execute(insert(_NOTES).values(row))

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)
        await self._set_paused(model, ledger_id, paused=True)

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._set_paused(model, ledger_id, paused=False)
        async with self._store.writing() as connection:
            await connection.execute(delete(_NOTES).where(_is_note(model, ledger_id, "paused")))

    async def _set_paused(self, model: ReadModel, ledger_id: str, *, paused: bool) -> None:
        """Sets or clears the pause of every generation. A running batch has either moved its checkpoint before, or fails."""
        all_of_them = update(_GENERATIONS).where(_GENERATIONS.c.ledger_id == ledger_id, _GENERATIONS.c.model == model.name)
        async with self._store.writing() as connection:
            await connection.execute(all_of_them.values(paused=paused))

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = model.name + COPY_MARK
        query = select(_POINTERS.c.model).where(_POINTERS.c.ledger_id == ledger_id, _POINTERS.c.model.startswith(prefix))
        async with self._store.reading() as connection:
            return sorted([name.removeprefix(prefix) for name in await connection.scalars(query)])

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        async with self._store.writing() as connection:
            await connection.execute(delete(_POINTERS).where(_POINTERS.c.ledger_id == ledger_id, _POINTERS.c.model == model.name))


# ── checkpoints and pointers ─────────────────────────────────────────────────────────────────────────────────────────


async def _move(connection: AsyncConnection, generation: Generation, step: Step) -> bool:
    """Moves the checkpoint if it is where the step begins and the generation is neither retired nor paused."""
    columns, added = _GENERATIONS.c, step.dead_letters
    moving = update(_GENERATIONS).where(is_generation(generation), columns.position == step.before)
    moving = moving.where(columns.retired.is_(False), columns.paused.is_(False))
    moved = moving.values(
        position=step.after,
        log_hash=step.log_hash,
        letters=columns.letters + len(added.letters),
        parked=columns.parked + len(added.parked),
        put_aside=columns.put_aside + added.put_aside,
    )
    return (await connection.execute(moved)).rowcount == 1


async def _retire(connection: AsyncConnection, generation: Generation, live: int | None, position: int) -> bool:
    """Lets the old live generation take no more batches. Returns False if it is ahead of the new one, or is gone."""
    if live is None:
        return True
    old = Generation(generation.model, generation.ledger_id, live)
    retiring = update(_GENERATIONS).where(is_generation(old), _GENERATIONS.c.position <= position).values(retired=True)
    return (await connection.execute(retiring)).rowcount == 1


async def _move_pointer(connection: AsyncConnection, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
    moving = update(_POINTERS).where(_POINTERS.c.ledger_id == ledger_id, _POINTERS.c.model == model.name)
    for name, number in msgspec.structs.asdict(before).items():
        moving = moving.where(_POINTERS.c[name].is_(None) if number is None else _POINTERS.c[name] == number)
    return (await connection.execute(moving.values(msgspec.structs.asdict(after)))).rowcount == 1


def _is_note(model: ReadModel, ledger_id: str, name: str) -> Any:
    return (_NOTES.c.ledger_id == ledger_id) & (_NOTES.c.model == model.name) & (_NOTES.c.name == name)


async def _write_aside(connection: AsyncConnection, generation_id: int, added: StepDeadLetters) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "dead_letters": [
            {"position": letter.position, "letter": msgspec.json.encode(letter).decode()} for letter in added.letters
        ],
        "parked_streams": [{"stream_id": stream_id, "position": at} for stream_id, at in added.parked.items()],
        "skipped_events": [{"position": position} for position in added.skipped],
    }
    for name, some in rows.items():
        if some:
            await connection.execute(insert(_ASIDE[name]), [row | {"generation_id": generation_id} for row in some])


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_table(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Divides changes by table. The keys of each part are the ids of the rows, without the name of the table."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in DATA_TABLES}
    for name, change in changes.items():
        table, _, row_id = name.partition("/")
        parts[table][row_id] = change
    return parts


def _row(table: Table, generation_id: int, row_id: str, fields: StoredDocument) -> StoredDocument:
    parts = row_id.split("/")
    told = {name: value for name, value in fields.items() if name != "_id"}
    told |= {column.name: parts[column.info["part_of_id"]] for column in table.columns if "part_of_id" in column.info}
    return told | {"generation_id": generation_id, "id": row_id}


def _document(table: Table, row: Any) -> StoredDocument:
    """Returns a row as the document that the projection made."""
    values = dict(row._mapping)  # noqa: SLF001 # the documented way to read a row by names
    left_out = {"generation_id", "id", *(column.name for column in table.columns if "part_of_id" in column.info)}
    return {"_id": f"{table.name}/{values['id']}"} | {name: value for name, value in values.items() if name not in left_out}


async def _require_rows(
    connection: AsyncConnection, generation: Generation, generation_id: int, table: Table, changed: Iterable[str]
) -> None:
    """Checks that all rows that the batch changes exist.

    Raises:
        ReadModelDamaged: some do not.
    """
    for ids in _lists(changed, ROWS_AT_ONCE):
        query = select(func.count()).select_from(table).where(table.c.generation_id == generation_id, table.c.id.in_(ids))
        if missing := len(ids) - (await connection.scalar(query) or 0):
            raise damaged(generation, f"{missing} rows of {table.name} are missing")


def _updates(table: Table, generation_id: int, changed: Mapping[str, DocumentChange]) -> Iterator[tuple[Any, list[Any]]]:
    """Yields statements, each with the values of the rows that it changes. One statement sets the same columns everywhere."""

    def columns(item: tuple[str, DocumentChange]) -> tuple[list[str], list[str]]:
        return sorted(item[1].fields), sorted(item[1].counts)

    for (fields, counts), items in groupby(sorted(changed.items(), key=columns), key=columns):
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in fields}
        values |= {name: table.c[name] + bindparam(f"new_{name}") for name in counts}
        is_row = (table.c.generation_id == bindparam("its_generation")) & (table.c.id == bindparam("its_id"))
        rows = [
            {"its_generation": generation_id, "its_id": row_id}
            | {f"new_{name}": value for name, value in (change.fields | change.counts).items()}
            for row_id, change in items
        ]
        yield update(table).where(is_row).values(values), rows


async def _pick(connection: AsyncConnection, generation: Generation, names: list[str]) -> list[StoredDocument]:
    documents = []
    for name, rows in _by_table(dict.fromkeys(names)).items():
        table = DATA_TABLES[name]
        for ids in _lists(rows, ROWS_AT_ONCE):
            query = select(table).where(of_generation(table, generation), table.c.id.in_(ids))
            documents += [_document(table, row) for row in await connection.execute(query)]
    return documents


async def _count(connection: AsyncConnection, table: Table, generation: Generation) -> int:
    query = select(func.count()).select_from(table).where(of_generation(table, generation))
    return await connection.scalar(query) or 0


@contextmanager
def _errors_of_data(generation: Generation) -> Iterator[None]:
    """Turns errors that the data cause into `ReadModelDamaged`, whose message contains no value. Outages pass through."""
    try:
        yield
    except (DataError, IntegrityError) as error:
        raise damaged(generation, f"the database could not write the batch: {type(error.orig).__name__}") from None


def _lists(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
