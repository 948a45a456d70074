"""The one transaction: seen before? load, decide, append, answer, wake.

Commands that arrive while a transaction is under way form the next batch: one transaction and one fsync for all of them, with a
verdict for each. Within a batch they are decided one after another, each on the state that the one before left; a refusal
refuses its own command only. So a hot account costs no more than a cold one, and nobody waits for anybody's row lock.

Never answer before the commit. Never decide on a state that is not locked. What a lost reply to COMMIT leaves open is looked
up, not guessed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError, NotSupportedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.account import ACCOUNT
from command_api.command import Command, States
from command_api.fold import Fold
from command_api.transfer import TRANSFER
from command_api.user import EMAIL, USER
from shared import event_store
from shared.connections import STORE_ERRORS
from shared.errors import (
    DaybookError,
    IdempotencyKeyReused,
    Overloaded,
    Rejection,
    StoreUnavailable,
    VersionMismatch,
)
from shared.event_store import Answer, Head, NewEvent, StreamEvent, StreamHead
from shared.events import Event
from shared.ids import new_id
from shared.settings import Settings

log = structlog.get_logger()

FOLDS: Final = {"account": ACCOUNT, "user": USER, "email": EMAIL, "transfer": TRANSFER}
ATTEMPTS_MAX: Final = 5
TOO_LATE: Final = "The command was not recorded in time. Sent again with the same Idempotency-Key it has one effect, not two."

# Another transaction was first: unique key, serialization, deadlock.
_LOST_RACE: Final = {"23505", "40001", "40P01"}


def fold_of(stream_id: str) -> Fold:
    return FOLDS[stream_id.partition("-")[0]]


class Outcome(msgspec.Struct, frozen=True):
    """What a command came to. `version` and `position` are those of its first stream, also where nothing was left to do."""

    events: list[Event]
    states: States
    version: int
    position: int
    recorded_at: datetime


class Replies(Protocol):
    """How the caller wants to be answered. Each gives a status and a body."""

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]: ...

    def refused(self, rejection: Rejection) -> tuple[int, bytes]: ...


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A command with everything that its caller said about it."""

    command: Command
    replies: Replies
    metadata: dict[str, Any]
    principal: str = ""
    idempotency_key: str | None = None
    request_hash: bytes = b""
    expected_version: int | None = None


class Reply(msgspec.Struct, frozen=True):
    """`replayed`: this is what the first request with the same key was answered."""

    status: int
    body: bytes
    position: int | None
    replayed: bool = False


class CommandHandler:
    """Takes requests for all ledgers; each ledger has a writer of its own, since each is a log of its own."""

    def __init__(self, engine: AsyncEngine, settings: Settings, wake: Callable[[str], None]) -> None:
        """`wake` is called with a ledger's id after each commit; it must not block or raise."""
        self._engine = engine
        self._settings = settings
        self._wake = wake
        self._writers: dict[str, LedgerWriter] = {}

    async def handle(self, ledger_id: str, request: Request) -> Reply:
        """The reply, once it is durable.

        Raises:
            IdempotencyKeyReused: the key stands for another request.
            NotFound: there is no such ledger.
            Overloaded, StoreUnavailable: in bounded time.
        """
        writer = self._writers.get(ledger_id) or await self._open_writer(ledger_id)
        return await writer.submit(request)

    async def _open_writer(self, ledger_id: str) -> "LedgerWriter":
        """Only ledgers that exist get one, so that made-up names cost a look-up and no more."""
        async with self._engine.connect() as connection:
            await event_store.read_head(connection, ledger_id)
        return self._writers.setdefault(ledger_id, LedgerWriter(ledger_id, self._engine, self._settings, self._wake))

    async def close(self) -> None:
        """Answer everything that was taken, then stop."""
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))


class LedgerWriter:
    """The queue of one ledger, and the loop that turns it into batches."""

    def __init__(self, ledger_id: str, engine: AsyncEngine, settings: Settings, wake: Callable[[str], None]) -> None:
        self._ledger_id = ledger_id
        self._engine = engine
        self._wake = wake
        self._deadline_seconds = settings.command_deadline_ms / 1000
        self._queue_max = settings.command_queue_max
        self._batch_max = settings.batch_commands_max
        self._queue: deque[tuple[Request, asyncio.Future[Reply]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Reply:
        if len(self._queue) >= self._queue_max:
            raise Overloaded
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        self._queue.append((request, answer))
        if self._running is None:
            self._running = loop.create_task(self._run())
        deadline = loop.call_later(self._deadline_seconds, _resolve, answer, StoreUnavailable(TOO_LATE))
        try:
            return await answer
        finally:
            deadline.cancel()

    async def close(self) -> None:
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while batch := self._next_batch():
            requests = [request for request, _ in batch]
            for (_, answer), verdict in zip(batch, await self._verdicts(requests), strict=True):
                _resolve(answer, verdict)
        self._running = None

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Reply]]]:
        """Those who are still waiting, oldest first."""
        batch: list[tuple[Request, asyncio.Future[Reply]]] = []
        while self._queue and len(batch) < self._batch_max:
            waiting = self._queue.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch

    async def _verdicts(self, requests: list[Request]) -> Sequence[Reply | Exception]:
        """One for each request, whatever happens: nothing may end the loop with callers waiting."""
        try:
            return await self._record(requests)
        except STORE_ERRORS as error:
            log.warning("store unavailable", ledger_id=self._ledger_id, commands=len(requests), error=repr(error))
            return [StoreUnavailable()] * len(requests)
        except Exception as error:  # noqa: BLE001 # a mistake of ours reaches the callers, who log it
            return [error] * len(requests)

    async def _record(self, requests: list[Request]) -> list[Reply | DaybookError]:
        """One verdict for each request. Begins anew when another writer was first, and on a connection that had died."""
        for attempts_left in reversed(range(ATTEMPTS_MAX)):
            batch = Batch(self._ledger_id, requests)
            try:
                async with self._engine.begin() as connection:
                    await _bounded(connection, batch.record(connection))
            except DBAPIError as error:
                if batch.complete and await self._is_committed(batch):
                    break
                if attempts_left == 0 or not _is_passing(error):
                    raise
                continue
            break
        if batch.new_events:
            self._wake(self._ledger_id)
        return batch.verdicts

    async def _is_committed(self, batch: "Batch") -> bool:
        """Whether a COMMIT without an answer took place. The head's lock waits for that transaction to end, either way."""
        if not batch.new_events:
            return False
        async with self._engine.begin() as connection:
            await event_store.lock_head(connection, self._ledger_id)
            return await event_store.has_event(connection, self._ledger_id, batch.new_events[0].event_id)


def _resolve(answer: "asyncio.Future[Reply]", verdict: Reply | Exception) -> None:
    if answer.done():  # the caller has gone
        return
    if isinstance(verdict, Exception):
        answer.set_exception(verdict)
    else:
        answer.set_result(verdict)


async def _bounded(connection: AsyncConnection, work: Awaitable[None]) -> None:
    """A connection that did not answer in time is given up: a rollback would only wait for it again."""
    try:
        await work
    except TimeoutError:
        await connection.invalidate()
        raise


def _is_passing(error: DBAPIError) -> bool:
    """Whether to begin anew. `NotSupportedError`: a migration changed a table under a cached plan, which is now forgotten."""
    lost_race = getattr(error.orig, "sqlstate", None) in _LOST_RACE
    return lost_race or error.connection_invalidated or isinstance(error, NotSupportedError)


# ── a batch ──────────────────────────────────────────────────────────────────────────────────────────────────────────


Key = tuple[str, str]


def _key(request: Request) -> Key | None:
    return None if request.idempotency_key is None else (request.principal, request.idempotency_key)


class Batch:
    """What one transaction decides and writes. `verdicts` are in the order of the requests."""

    def __init__(self, ledger_id: str, requests: list[Request]) -> None:
        self.verdicts: list[Reply | DaybookError] = []
        self.new_events: list[NewEvent] = []
        self.complete = False
        """All is written; only the commit is left."""
        self._ledger_id = ledger_id
        self._requests = requests
        self._answers: dict[Key, Answer] = {}
        self._new_answers: list[Answer] = []
        self._states: dict[str, Any] = {}
        self._versions: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._stream_events: list[StreamEvent] = []

    async def record(self, connection: AsyncConnection) -> None:
        keys = {key for request in self._requests if (key := _key(request))}
        self._answers = await event_store.find_answers(connection, self._ledger_id, keys) if keys else {}
        commands = [request.command for request in self._requests if _key(request) not in self._answers]
        if commands:
            self._head = await self._load(connection, commands)
        self.verdicts = [self._verdict(request) for request in self._requests]
        if self.new_events or self._new_answers:
            await self._append(connection)
        self.complete = True

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _load(self, connection: AsyncConnection, commands: list[Command]) -> Head:
        """Locks and reads what the commands depend on, then what these states name besides."""
        head, heads = await event_store.lock(
            connection, self._ledger_id, {stream for command in commands for stream in command.streams()}
        )
        await self._read_states(connection, {stream for c in commands for stream in c.streams()}, heads)
        further = {stream for c in commands for stream in c.further_streams(self._states)} - self._states.keys()
        if further:
            _, heads = await event_store.lock(connection, self._ledger_id, further)
            await self._read_states(connection, further, heads)
        return head

    async def _read_states(self, connection: AsyncConnection, stream_ids: Iterable[str], heads: dict[str, StreamHead]) -> None:
        for stream_id in stream_ids:
            fold, head = fold_of(stream_id), heads.get(stream_id)
            self._versions[stream_id] = head.version if head else 0
            self._positions[stream_id] = head.position if head else 0
            if head is None:
                self._states[stream_id] = fold.initial
            elif head.fold_version == fold.version:
                self._states[stream_id] = fold.read(head.snapshot)
            else:
                self._states[stream_id] = await fold_stream(connection, self._ledger_id, stream_id)

    # ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _verdict(self, request: Request) -> Reply | DaybookError:
        key = _key(request)
        if key is None:
            return self._decide(request)
        if answer := self._answers.get(key):
            if answer.request_hash != request.request_hash:
                return IdempotencyKeyReused()
            return Reply(answer.status, answer.body, answer.position, replayed=True)
        reply = self._decide(request)
        answer = Answer(*key, request.request_hash, reply.status, reply.body, reply.position)
        self._answers[key] = answer
        self._new_answers.append(answer)
        return reply

    def _decide(self, request: Request) -> Reply:
        """A refusal is an answer too: under its key it stays the answer, whatever the account holds by then."""
        try:
            outcome = self._outcome(request)
        except Rejection as rejection:
            return Reply(*request.replies.refused(rejection), position=None)
        return Reply(*request.replies.accepted(outcome), position=outcome.position)

    def _outcome(self, request: Request) -> Outcome:
        primary = request.command.streams()[0]
        events = request.command.decide(self._states)
        if request.expected_version not in {None, self._versions[primary]}:
            raise VersionMismatch(current_version=self._versions[primary])
        for event in events:
            self._apply(event, request.metadata)
        return Outcome(
            events=events,
            states={stream: self._states[stream] for stream in request.command.streams()},
            version=self._versions[primary],
            position=self._positions[primary],
            recorded_at=self._head.now,
        )

    def _apply(self, event: Event, metadata: dict[str, Any]) -> None:
        self.new_events.append(NewEvent(new_id(), event, metadata))
        position = self._head.position + len(self.new_events)
        for stream_id in event.streams():
            self._states[stream_id] = fold_of(stream_id).evolve(self._states[stream_id], event)
            self._versions[stream_id] += 1
            self._positions[stream_id] = position
            self._stream_events.append(StreamEvent(stream_id, self._versions[stream_id], position))

    # ── append ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _append(self, connection: AsyncConnection) -> None:
        await event_store.append(
            connection,
            self._ledger_id,
            self._head,
            self.new_events,
            self._stream_events,
            [self._stream_head(stream_id) for stream_id in sorted({e.stream_id for e in self._stream_events})],
            self._new_answers,
        )

    def _stream_head(self, stream_id: str) -> StreamHead:
        fold = fold_of(stream_id)
        return StreamHead(
            stream_id,
            self._versions[stream_id],
            self._positions[stream_id],
            fold.version,
            fold.write(self._states[stream_id]),
        )


async def fold_stream(connection: AsyncConnection, ledger_id: str, stream_id: str) -> Any:
    """The state of a stream from its events, however many there are."""
    fold = fold_of(stream_id)
    state, version = fold.initial, 0
    while page := await event_store.read_stream(connection, ledger_id, stream_id, version):
        for stored in page:
            state = fold.evolve(state, stored.decoded().event)
        version += len(page)
    return state
