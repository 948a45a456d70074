"""Opens the timeline store, Cassandra, and reads what it says of its generations. `projector.sinks.timeline` writes to it.

A generation is a table, whose comment names it. Its checkpoint is a row of the same table, so a table that was emptied or dropped
has none. Pointers and notes are rows of the table `pointers`:

    pointers   name: main/timeline       state: {live, building, previous, notes: {paused, rate}}
    g…_2       account_id: @checkpoint   state: {position, log_hash, model_version, letters: […], parked: {…}, put_aside,
                                                 skipped: […], retired, paused}
               account_id, part, …       the rows of `shared.timeline.rows`

A state is JSON text that changes only by a lightweight transaction. All other rows are written with the position of their event
as their timestamp, and Cassandra keeps the write with the later one.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import orjson
from cassandra import ConsistencyLevel, DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable, ResponseFuture, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.connection import ConnectionException
from cassandra.protocol import ErrorMessage, ProtocolException
from cassandra.query import PreparedStatement, SimpleStatement

from shared.errors import StoreUnavailable
from shared.read_models.dead_letters import DeadLetter, DeadLetterSummary
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer
from shared.settings import Settings
from shared.stores.store_errors import reading_url
from shared.timeline.connection import Address, SharedSession, read_address
from shared.timeline.rows import CHECKPOINT_KEY, KEY_COLUMNS, TABLE_BODY, VALUE_COLUMNS, TimelineFields, values_of

URL_VARIABLE: Final = "DAYBOOK_TIMELINE_URL"
WRITE_SECONDS_MAX: Final = 30.0
"""The longest time of one statement of the worker."""
WRITES_AT_ONCE: Final = 128
STATEMENTS_KEPT: Final = 200
_POINTERS_BODY: Final = "(name text PRIMARY KEY, state text)"
_MISSING: Final = re.compile(r"does(n't| not) exist|unconfigured table", re.IGNORECASE)
_UNAVAILABLE: Final = (DriverException, NoHostAvailable, ErrorMessage, ConnectionException, OSError, TimeoutError)


class TableMissingError(Exception):
    """There is no such table, or no such keyspace."""


class PagingStateInvalidError(Exception):
    """Cassandra does not know this paging state."""


class Rows(msgspec.Struct, frozen=True):
    """A page of rows, and the driver's paging state of the next page, or None if there is none."""

    rows: list[TimelineFields]
    paging_state: bytes | None


class TimelineState(msgspec.Struct, frozen=True):
    """A pointer or a checkpoint, and the text as which it is stored."""

    content: TimelineFields
    text: str


class StatePlace(msgspec.Struct, frozen=True):
    """The table of a pointer or a checkpoint, and the key of its row."""

    table: str
    key: Mapping[str, Any]


@asynccontextmanager
async def open_store(settings: Settings, *, read_only: bool) -> AsyncIterator["TimelineStore"]:
    """Yields the store that DAYBOOK_TIMELINE_URL names. Sends nothing to it: the first question connects.

    With `read_only`, a question may take DAYBOOK_TIMELINE_TIMEOUT_MS, and otherwise `WRITE_SECONDS_MAX`.

    Raises:
        SettingsInvalid: the URL cannot be read.
    """
    read_seconds = settings.timeline_timeout_ms / 1000
    with reading_url(URL_VARIABLE):
        address = read_address(settings.timeline_url or "")
    session = SharedSession(address, read_seconds if read_only else WRITE_SECONDS_MAX)
    try:
        yield TimelineStore(session, address, read_seconds)
    finally:
        await session.close()


class TimelineStore:
    """An opened timeline store. Implements `shared.read_models.stored_state.OptionalStore`.

    All methods raise `StoreUnavailable` if Cassandra does not answer, is busy, or denies its login the request.
    """

    def __init__(self, session: SharedSession, address: Address, read_seconds: float) -> None:
        self.session = session
        self.address = address
        self._statements: dict[str, PreparedStatement] = {}
        self.read_seconds = read_seconds
        """The longest time of a question, which may take several statements."""
        self.keyspace = address.keyspace

    # ── what the store says of a read model ──────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        kept = await self.read_state(self.pointer_place(model, ledger_id))
        return pointer_in(kept.content) if kept else Pointer()

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        kept = await self.read_state(self.pointer_place(model, ledger_id))
        return dict(kept.content["notes"]) if kept else {}

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        kept = await self.read_state(self.checkpoint_place(generation))
        return checkpoint_in(kept.content) if kept else None

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        kept = await self.read_state(self.checkpoint_place(generation))
        return msgspec.convert(kept.content["letters"], list[DeadLetter]) if kept else []

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        kept = await self.read_state(self.checkpoint_place(generation))
        return dict(kept.content["parked"]) if kept else {}

    # ── pointers and checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    def pointer_place(self, model: ReadModel, ledger_id: str) -> StatePlace:
        return StatePlace(f"{self.keyspace}.pointers", {"name": pointer_id(model, ledger_id)})

    def checkpoint_place(self, generation: Generation) -> StatePlace:
        return StatePlace(self.table_of(generation), CHECKPOINT_KEY)

    async def read_state(self, place: StatePlace) -> TimelineState | None:
        """Returns a pointer or a checkpoint, or None if there is none, or no such table."""
        try:
            question = f"SELECT state FROM {place.table} WHERE {_where(place)}"  # noqa: S608 # no text of a caller is in it
            found = (await self.ask(question, [*place.key.values()], serial=True)).rows
        except TableMissingError:
            return None
        return TimelineState(orjson.loads(found[0]["state"]), found[0]["state"]) if found and found[0]["state"] else None

    async def put_state(self, place: StatePlace, content: TimelineFields, before: TimelineState | None) -> bool:
        """Writes a pointer or a checkpoint in place of `before`. Returns False if another write was faster."""
        text, key = orjson.dumps(content).decode(), [*place.key.values()]
        if before is None:
            marks = ", ".join("?" * (len(key) + 1))
            statement = f"INSERT INTO {place.table} ({', '.join(place.key)}, state) VALUES ({marks}) IF NOT EXISTS"  # noqa: S608
            values = [*key, text]
        else:
            statement = f"UPDATE {place.table} SET state = ? WHERE {_where(place)} IF state = ?"  # noqa: S608 # as above
            values = [text, *key, before.text]
        try:
            return bool((await self.ask(statement, values)).rows[0]["[applied]"])
        except TableMissingError:
            return False

    async def delete_state(self, place: StatePlace) -> None:
        try:
            await self.ask(f"DELETE FROM {place.table} WHERE {_where(place)} IF EXISTS", [*place.key.values()])  # noqa: S608
        except TableMissingError:
            return

    async def read_pointer_names(self) -> list[str]:
        try:
            pages = [page async for page in self.pages(f"SELECT name FROM {self.keyspace}.pointers")]  # noqa: S608 # as above
        except TableMissingError:
            return []
        return [row["name"] for page in pages for row in page]

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ask(
        self,
        statement: str,
        values: Sequence[Any] = (),
        *,
        serial: bool = False,
        page_rows: int | None = None,
        paging_state: bytes | None = None,
    ) -> Rows:
        """Runs a prepared statement, and returns a page of its rows. With `serial`, it sees every lightweight transaction.

        Raises:
            TableMissingError: the table is not there.
            PagingStateInvalidError: Cassandra does not know `paging_state`.
        """
        try:
            session = await self.session.connected()
            bound = (await self._prepared(session, statement)).bind(values)
            if serial:
                bound.consistency_level = ConsistencyLevel.LOCAL_SERIAL
            if page_rows:
                bound.fetch_size = page_rows
            return await _answer(session.execute_async(bound, paging_state=paging_state))
        except ProtocolException as error:
            raise PagingStateInvalidError from error
        except _UNAVAILABLE as error:
            raise _as_ours(error) from error

    async def pages(
        self, statement: str, values: Sequence[Any] = (), *, page_rows: int = 1_000
    ) -> AsyncIterator[list[TimelineFields]]:
        """Yields all rows that a statement finds, in pages."""
        state: bytes | None = None
        while True:
            page = await self.ask(statement, values, page_rows=page_rows, paging_state=state)
            yield page.rows
            state = page.paging_state
            if state is None:
                return

    async def write(self, table: str, documents: Iterable[TimelineFields]) -> None:
        """Writes documents as rows, each with its `position` as its timestamp. A row that is there with a later one stays.

        Raises:
            TableMissingError: the table is not there.
        """
        columns = [*KEY_COLUMNS, *VALUE_COLUMNS]
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) USING TIMESTAMP ?"  # noqa: S608 # as above
        rows = [values_of(document) for document in documents]
        try:
            session = await self.session.connected()
            prepared = await self._prepared(session, statement)
            await asyncio.to_thread(execute_concurrent_with_args, session, prepared, rows, concurrency=WRITES_AT_ONCE)
        except _UNAVAILABLE as error:
            raise _as_ours(error) from error

    async def _prepared(self, session: Session, statement: str) -> PreparedStatement:
        if (kept := self._statements.get(statement)) is not None:
            return kept
        prepared = await asyncio.to_thread(session.prepare, statement)
        prepared.is_idempotent = " IF " not in statement
        if len(self._statements) >= STATEMENTS_KEPT:  # those of generations that were dropped
            self._statements.clear()
        self._statements[statement] = prepared
        return prepared

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def table_of(self, generation: Generation) -> str:
        return f"{self.keyspace}.{_table_prefix(generation.model, generation.ledger_id)}{generation.number}"

    async def make_table(self, generation: Generation) -> None:
        """Makes the table of a generation. Does nothing if it exists."""
        title = f"{pointer_id(generation.model, generation.ledger_id)}/{generation.number}"
        await self._make(f"{self.table_of(generation)} {TABLE_BODY} AND comment = '{title}'")

    async def make_pointers(self) -> None:
        await self._make(f"{self.keyspace}.pointers {_POINTERS_BODY}")

    async def _make(self, table: str) -> None:
        try:
            await self.change(f"CREATE TABLE IF NOT EXISTS {table}")
        except TableMissingError:
            copies = f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {self.address.replicas}}}"
            await self.change(f"CREATE KEYSPACE IF NOT EXISTS {self.keyspace} WITH replication = {copies}")
            await self.change(f"CREATE TABLE IF NOT EXISTS {table}")

    async def drop_table(self, generation: Generation) -> None:
        """Deletes a table and all that is in it. Does nothing if it does not exist."""
        try:
            await self.change(f"DROP TABLE IF EXISTS {self.table_of(generation)}")
        except TableMissingError:
            return

    async def change(self, statement: str) -> None:
        """Changes the schema, and waits until all nodes have the change.

        Raises:
            TableMissingError: there is no such keyspace.
        """
        try:
            session = await self.session.connected()
            await asyncio.to_thread(session.execute, SimpleStatement(statement), timeout=WRITE_SECONDS_MAX)
        except _UNAVAILABLE as error:
            raise _as_ours(error) from error

    async def read_numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """Returns the numbers of all generations that have a table."""
        prefix = _table_prefix(model, ledger_id)
        question = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?"
        names = [row["table_name"] async for page in self.pages(question, [self.keyspace]) for row in page]
        return {int(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}

    async def read_columns(self) -> dict[str, dict[str, str]]:
        """Returns the columns of the tables of all generations, with their types, by the name of the table."""
        question = "SELECT table_name, column_name, type FROM system_schema.columns WHERE keyspace_name = ?"
        tables: dict[str, dict[str, str]] = {}
        async for page in self.pages(question, [self.keyspace]):
            for row in page:
                if row["table_name"] != "pointers":
                    tables.setdefault(row["table_name"], {})[row["column_name"]] = row["type"]
        return tables


def _table_prefix(model: ReadModel, ledger_id: str) -> str:
    """Returns the beginning of the names of tables. A name of Cassandra has no hyphens, and at most 48 characters."""
    return f"g{hashlib.sha256(pointer_id(model, ledger_id).encode()).hexdigest()[:24]}_"


def _where(place: StatePlace) -> str:
    return " AND ".join(f"{name} = ?" for name in place.key)


def _as_ours(error: BaseException) -> Exception:
    """Returns the error to raise in place of one of the driver."""
    if isinstance(error, InvalidRequest) and _MISSING.search(str(error)):
        return TableMissingError()
    return StoreUnavailable(f"The timeline store does not answer ({type(error).__name__}).")


async def _answer(asked: ResponseFuture) -> Rows:
    """Waits for the answer, which a thread of the driver brings."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Rows] = loop.create_future()

    def settle(rows: Rows | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None and rows is not None:
            answer.set_result(rows)
        else:
            answer.set_exception(error or TimeoutError())

    def tell(rows: Rows | None, error: BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, rows, error)

    asked.add_callbacks(
        lambda rows: tell(Rows([*(rows or ())], asked._paging_state), None),  # noqa: SLF001 # has no public name in a callback
        lambda error: tell(None, error),
    )
    return await answer


def pointer_in(content: TimelineFields) -> Pointer:
    return Pointer(content["live"], content["building"], content["previous"])


def checkpoint_in(content: TimelineFields) -> Checkpoint:
    summary = DeadLetterSummary(
        len(content["letters"]), len(content["parked"]), content["put_aside"], frozenset(content["skipped"])
    )
    return Checkpoint(content["position"], content["log_hash"], content["model_version"], summary)
