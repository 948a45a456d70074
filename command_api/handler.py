"""The one transaction: seen before? load, decide, append, answer, wake.

Commands that arrive while a transaction is under way form the next batch: one transaction and one fsync for all of them, with a
verdict for each. Within a batch they are decided one after another, each on the state that the one before left; a refusal
refuses its own command only. So a hot account costs no more than a cold one, and nobody waits for anybody's row lock.

Never answer before the commit. Never write what was decided on a state that does not hold. What a lost reply to COMMIT leaves
open is looked up, not guessed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.batch import Batch, LostRace, Reply, Request, View
from shared import event_store
from shared.connections import DRIVER_ERRORS, STORE_ERRORS, KeptConnection
from shared.errors import DaybookError, Overloaded, StoreUnavailable
from shared.event_store import StreamHead
from shared.logs import kind_of
from shared.person_keys import PersonKeys
from shared.settings import Settings
from shared.tally import SIZES, Tally

log = structlog.get_logger()

ATTEMPTS_MAX: Final = 5
ANSWER_SECONDS: Final = 0.05
"""At the latest so long after its commit a batch is answered, also where the next one does not reach PostgreSQL."""
TOO_LATE: Final = "The command was not recorded in time. Sent again with the same Idempotency-Key it has one effect, not two."

_PASSING: Final = {
    *("23505", "40001", "40P01"),  # another transaction was first: unique key, serialization, deadlock
    "0A000",  # a migration changed a table under a cached plan, which is now forgotten
    *("08000", "08003", "08006", "57P01"),  # the connection has gone
}


Waiting = list[tuple[Request, "asyncio.Future[Reply]"]]
Verdicts = Sequence[Reply | Exception]


class Writing(NamedTuple):
    """A batch on its way, and what it comes to."""

    waiting: Waiting
    verdicts: "asyncio.Task[Verdicts]"

    def answer(self) -> None:
        """Once the verdicts are there. Those who have an answer keep it."""
        for (_, answer), verdict in zip(self.waiting, self.verdicts.result(), strict=True):
            _resolve(answer, verdict)


class CommandHandler:
    """Takes requests for all ledgers; each ledger has a writer of its own, since each is a log of its own."""

    def __init__(self, engine: AsyncEngine, settings: Settings, wake: Callable[[str], None]) -> None:
        """`wake` is called with a ledger's id after each commit; it must not block or raise."""
        self._engine = engine
        self._settings = settings
        self._wake = wake
        self._writers: dict[str, LedgerWriter] = {}

    async def handle(self, ledger_id: str, requests: Sequence[Request]) -> list[Reply]:
        """The replies, once they are durable. Each request is decided by itself.

        Raises:
            IdempotencyKeyReused: the key stands for another request.
            NotFound: there is no such ledger.
            Overloaded, StoreUnavailable: in bounded time.
        """
        writer = self._writers.get(ledger_id) or await self._open_writer(ledger_id)
        return await writer.submit(requests)

    async def pepper(self, ledger_id: str) -> bytes:
        """The secret that the ledger's addresses are hashed with.

        Raises:
            NotFound: there is no such ledger.
        """
        writer = self._writers.get(ledger_id) or await self._open_writer(ledger_id)
        return await writer.pepper()

    def writer(self, ledger_id: str) -> "LedgerWriter | None":
        """The ledger's, if it had a command already."""
        return self._writers.get(ledger_id)

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
        self._gathered = asyncio.Event()
        self._enough = 0
        self._kept = KeptConnection(engine)
        self.batch_sizes = Tally(SIZES)
        self._view = View(streams_max=settings.stream_cache_max)
        self._person_keys = PersonKeys(settings)
        self._pepper: bytes | None = None

    @property
    def waiting(self) -> int:
        """Commands that no batch has taken yet."""
        return len(self._queue)

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        if len(self._queue) + len(requests) > self._queue_max:
            raise Overloaded
        loop = asyncio.get_running_loop()
        waiting = [(request, loop.create_future()) for request in requests]
        self._queue.extend(waiting)
        if len(self._queue) >= self._enough:
            self._gathered.set()
        if self._running is None:
            self._running = loop.create_task(self._run())
        deadline = loop.call_later(self._deadline_seconds, _give_up, waiting)
        try:
            return [await answer for _, answer in waiting]
        finally:
            deadline.cancel()
            for _, answer in waiting:
                answer.cancel()  # does nothing to those that were answered

    async def pepper(self) -> bytes:
        if self._pepper is None:
            async with self._engine.begin() as connection:
                self._pepper = await self._person_keys.pepper(connection, self._ledger_id)
        return self._pepper

    async def close(self) -> None:
        if self._running is not None:
            await self._running
        await self._kept.release()

    async def _run(self) -> None:
        """One batch after another. While one is written, the one before is answered and the next one decided."""
        loop = asyncio.get_running_loop()
        before = Writing([], loop.create_task(_nothing()))
        while waiting := await self.next_after(before):
            sent = asyncio.Event()
            writing = Writing(waiting, loop.create_task(self._verdicts(waiting, before, sent)))
            writing.verdicts.add_done_callback(partial(_answer_soon, writing))
            await sent.wait()
            await before.verdicts
            before.answer()
            before = writing
        before.answer()
        self._running = None

    async def next_after(self, before: "Writing") -> "Waiting":
        """Half of those who have no answer yet: while these are written, the other half is answered and asks again.

        All of them in one batch would come back together too, and in turns we and PostgreSQL would have nothing to do.
        None are left only when the batch before is done.
        """
        await self._gather(before)
        unanswered = len(self._queue) + len(before.waiting)
        batch = self.next_batch((unanswered + 1) // 2)
        if not batch:
            await before.verdicts
            batch = self.next_batch(self._batch_max)
        return batch

    async def _gather(self, before: "Writing") -> None:
        """Until as many wait as are being written, or a full batch; else until these are written."""
        self._enough = min(len(before.waiting), self._batch_max)
        if len(self._queue) < self._enough and not before.verdicts.done():
            self._gathered.clear()
            before.verdicts.add_done_callback(lambda _: self._gathered.set())
            await self._gathered.wait()

    def next_batch(self, commands_max: int) -> "Waiting":
        """Those who are still waiting, oldest first."""
        batch: Waiting = []
        commands_max = min(commands_max, self._batch_max)
        while self._queue and len(batch) < commands_max:
            waiting = self._queue.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch

    async def _verdicts(self, waiting: "Waiting", before: "Writing", sent: asyncio.Event) -> "Verdicts":
        """One for each request, whatever happens: nothing may end the loop with callers waiting.

        `sent` is set when nothing more can be done for this batch but wait for PostgreSQL.
        """
        requests = [request for request, _ in waiting]
        self.batch_sizes.note(len(requests))
        try:
            return await self._record(requests, before, sent)
        except (*STORE_ERRORS, *DRIVER_ERRORS) as error:
            log.warning("store unavailable", ledger_id=self._ledger_id, commands=len(requests), error=kind_of(error))
            return [StoreUnavailable()] * len(requests)
        except Exception as error:  # noqa: BLE001 # a mistake of ours reaches the callers, who log it
            return [error] * len(requests)
        finally:
            sent.set()

    async def _record(
        self, requests: Sequence[Request], before: "Writing", sent: asyncio.Event
    ) -> Sequence[Reply | DaybookError]:
        """One verdict for each request. Begins anew when another writer was first, and on a connection that had died."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            batch = self._new_batch(requests)
            try:
                if await batch.decide_ahead(partial(self._read_heads, before)):
                    # What is decided next relies on it. If it comes to nothing, neither does that: the append finds another head.
                    batch.update_view()
                    await before.verdicts
                    await self._append(batch, sent)
                else:
                    await before.verdicts
                    batch = self._new_batch(requests)
                    await self._write_carefully(batch)
                    batch.update_view()
            except BaseException as error:
                self._view.doubt()
                if batch.complete and isinstance(error, (DBAPIError, *DRIVER_ERRORS)) and await self._is_committed(batch):
                    break
                if attempt == ATTEMPTS_MAX or not _is_passing(error):
                    raise
            else:
                break
        if batch.new_events:
            self._wake(self._ledger_id)
        return batch.verdicts

    async def _append(self, batch: Batch, sent: asyncio.Event) -> None:
        async with self._kept.begin() as driver:
            # Said in the loop's next turn, when the driver has written the statement to its socket.
            asyncio.get_running_loop().call_soon(sent.set)
            await batch.append(driver)

    async def _write_carefully(self, batch: Batch) -> None:
        async with self._engine.begin() as connection:
            await _bounded(connection, batch.record(connection))

    def _new_batch(self, requests: Sequence[Request]) -> Batch:
        return Batch(self._ledger_id, requests, self._view, self._person_keys)

    async def _read_heads(self, before: "Writing", stream_ids: set[str]) -> Mapping[str, StreamHead]:
        await before.verdicts  # it has the connection
        async with self._kept.connected() as driver:
            return await event_store.read_stream_heads(driver, self._ledger_id, stream_ids)

    async def _is_committed(self, batch: Batch) -> bool:
        """Whether a COMMIT without an answer took place. The head's lock waits for that transaction to end, either way."""
        if not batch.new_events:
            return False
        async with self._engine.begin() as connection:
            await event_store.lock_head(connection, self._ledger_id)
            return await event_store.has_event(connection, self._ledger_id, batch.new_events[0].event_id)


def _answer_soon(writing: Writing, _: "asyncio.Task[Verdicts]") -> None:
    asyncio.get_running_loop().call_later(ANSWER_SECONDS, writing.answer)


async def _nothing() -> "Verdicts":
    return []


def _give_up(waiting: "Waiting") -> None:
    for _, answer in waiting:
        _resolve(answer, StoreUnavailable(TOO_LATE))


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


def _is_passing(error: BaseException) -> bool:
    """Whether to begin anew."""
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
    unknown_to_server = isinstance(error, DRIVER_ERRORS) and sqlstate is None
    return isinstance(error, LostRace) or invalidated or unknown_to_server or sqlstate in _PASSING
