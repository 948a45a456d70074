"""Collects the commands of a ledger into batches, and answers each command after its batch is committed.

Commands that arrive during a transaction form the next batch. A batch has one transaction and one fsync, and each of its commands
gets its own verdict. So commands on a busy account cost no more than others, and no command waits for another's row lock.

Batches overlap. While PostgreSQL writes a batch, this process answers the batch before it and decides the batch after it:

    PostgreSQL     │ append 1, commit 1          │ append 2, commit 2          │ append 3, commit 3
    this process   │ answer 0   decide 2   wait  │ answer 1   decide 3   wait  │ answer 2   decide 4
                   └ 1 is sent                   └ 1 is committed, 2 is sent   └ 2 is committed, 3 is sent

`queue` chooses the commands of batch 2 and when to decide them. They are decided on the states that batch 1 leaves, before it is
committed (`transaction`). Batch 1 is answered when batch 2 has been sent, so that PostgreSQL never waits while this process
answers. If no command waits, batch 1 is answered immediately after its commit, and in any case within `ANSWER_SECONDS` of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.writer.command_request import AcceptedCommand, CommandRequest, Reply
from command_api.writer.handover import HandedBackError, Handover, WriterLink
from command_api.writer.measurements import LATE, OVERLOADED, WriterMeasurements
from command_api.writer.queue import CommandQueue
from command_api.writer.transaction import BatchTransaction
from shared.errors import Overloaded, StoreUnavailable
from shared.ids import new_id
from shared.log.heads import read_head
from shared.logs import kind_of
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.database_clock import DatabaseClock
from shared.stores.store_errors import ASYNCPG_ERRORS, POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

ANSWER_SECONDS: Final = 0.05
TOO_LATE: Final = "The command was not recorded in time. Repeat it with the same Idempotency-Key: it then takes effect only once."


class CommandHandler:
    """Passes commands to the writer of their ledger. Each ledger has its own log, and in each process a writer of its own."""

    def __init__(
        self, engine: AsyncEngine, settings: Settings, wake_up: Callable[[str], None], handover: Handover | None = None
    ) -> None:
        """Makes a handler without writers. `wake_up` is called with a ledger id after each commit that adds events.

        `wake_up` must not block or raise. With a `handover`, commands go to the process that writes to their ledger. Without one,
        this process writes, whoever else does.
        """
        self._engine = engine
        self._settings = settings
        self._wake_up = wake_up
        self._handover = handover
        self._writers: dict[str, LedgerWriter] = {}

    async def handle(self, ledger_id: str, requests: Sequence[CommandRequest], expires_at: float | None = None) -> list[Reply]:
        """Records the commands and returns their replies, in order, after the commands are committed.

        `expires_at` is their deadline on the event loop's clock, if it began before this call.

        Raises:
            IdempotencyKeyReused: another request was sent with the same key.
            NotFound: there is no such ledger.
            Overloaded: the queue is full.
            StoreUnavailable: the deadline has passed, or PostgreSQL does not answer.
            TimeoutError: the deadline passed while the ledger was looked up.
        """
        expires_at = expires_at or asyncio.get_running_loop().time() + self._settings.command_deadline_ms / 1000
        writer = self._writers.get(ledger_id)
        if writer is None:
            is_new = any(request.creates_ledger for request in requests)
            writer = await self._open_writer(ledger_id, expires_at, is_new=is_new)
        link = self._handover.link(ledger_id) if self._handover else None
        # A dry run appends nothing, so it disturbs nobody. The command that creates the ledger is decided where it is sent.
        if link is None or any(request.rehearsed or request.creates_ledger for request in requests):
            return await writer.submit(requests, expires_at)
        return await _hand_over(link, ledger_id, requests, expires_at, writer)

    def writes(self, ledger_id: str) -> bool:
        """True if this process is elected to write to the ledger."""
        return self._handover is not None and self._handover.writes(ledger_id)

    def accept(self, ledger_id: str, commands: Sequence[AcceptedCommand]) -> bool:
        """Queues commands that another process has handed over. Returns False if this process has had none for the ledger yet.

        Raises:
            Overloaded: the queue is full.
        """
        writer = self._writers.get(ledger_id)
        if writer is None:
            return False
        writer.accept(commands)
        return True

    async def pepper(self, ledger_id: str, expires_at: float | None = None) -> bytes:
        """Returns the secret that keys the hashes of the ledger's e-mail addresses.

        Raises:
            NotFound: there is no such ledger.
            TimeoutError: the deadline has passed.
        """
        writer = self._writers.get(ledger_id) or await self._open_writer(ledger_id, expires_at)
        return await writer.pepper(expires_at)

    def writer(self, ledger_id: str) -> "LedgerWriter | None":
        """Returns the writer of the ledger, or None if this process has had no command for the ledger yet."""
        return self._writers.get(ledger_id)

    async def _open_writer(self, ledger_id: str, expires_at: float | None, *, is_new: bool = False) -> "LedgerWriter":
        """Returns a new writer after a check that the ledger exists, so that requests with invented ledger ids use no memory.

        With `is_new`, there is no check, because the writer's first command creates the ledger.

        Raises:
            NotFound: there is no such ledger.
            TimeoutError: the deadline has passed.
        """
        if not is_new:
            async with asyncio.timeout_at(expires_at), self._engine.connect() as connection:
                await read_head(connection, ledger_id)
        return self._writers.setdefault(ledger_id, LedgerWriter(ledger_id, self._engine, self._settings, self._wake_up))

    async def close(self) -> None:
        """Answers all commands that were accepted, then stops all writers."""
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))


class PendingCommand:
    """A request whose caller waits for a reply in this process."""

    __slots__ = ("expires_at", "reply", "request")

    def __init__(self, request: CommandRequest, expires_at: float) -> None:
        self.request = request
        self.expires_at = expires_at
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def caller(self) -> str:
        return self.request.principal

    def is_answered(self) -> bool:
        return self.reply.done()

    def answer(self, verdict: Reply | Exception) -> None:
        if self.reply.done():
            return
        if isinstance(verdict, Exception):
            self.reply.set_exception(verdict)
        else:
            self.reply.set_result(verdict)


async def _hand_over(
    link: WriterLink, ledger_id: str, requests: Sequence[CommandRequest], expires_at: float, writer: "LedgerWriter"
) -> list[Reply]:
    """Has another process record the commands, and returns their replies. What is handed back, the `writer` here records.

    A command without an idempotency key gets the id of its first event here, so that it can be looked for in the log.
    """
    ids = [None if request.idempotency_key else new_id() for request in requests]
    requests = [
        msgspec.structs.replace(request, event_id=event_id) if event_id else request
        for request, event_id in zip(requests, ids, strict=True)
    ]
    commands = [PendingCommand(request, expires_at) for request in requests]
    numbers = link.send(ledger_id, commands)
    try:
        return await writer.replies_to(commands)
    except Overloaded:
        writer.measurements.count(requests, OVERLOADED)
        raise
    except HandedBackError:
        return await writer.submit([msgspec.structs.replace(each, is_repeated=True) for each in requests], expires_at)
    finally:
        link.forget(numbers)


Verdicts = Sequence[Reply | Exception]
"""The verdicts of a batch, in the order of its commands."""


class BatchInFlight:
    """A batch that is being decided, written or answered."""

    def __init__(self, commands: Sequence[AcceptedCommand], sent: asyncio.Event, verdicts: "asyncio.Future[Verdicts]") -> None:
        """Makes a batch whose commands are answered within `ANSWER_SECONDS` after `verdicts` is done.

        `sent` is set when only the reply of PostgreSQL is missing. `verdicts` must never raise.
        """
        self.commands = commands
        self.sent = sent
        self.verdicts = verdicts
        verdicts.add_done_callback(lambda _: asyncio.get_running_loop().call_later(ANSWER_SECONDS, self.answer))

    def answer(self) -> None:
        """Gives every caller of the batch its verdict. `verdicts` must be done."""
        for command, verdict in zip(self.commands, self.verdicts.result(), strict=True):
            command.answer(verdict)


class LedgerWriter:
    """The queue of one ledger, and the loop that turns it into batches."""

    def __init__(self, ledger_id: str, engine: AsyncEngine, settings: Settings, wake_up: Callable[[str], None]) -> None:
        self._ledger_id = ledger_id
        self._engine = engine
        self._wake_up = wake_up
        self._deadline_seconds = settings.command_deadline_ms / 1000
        loop = asyncio.get_running_loop()
        self.queue: CommandQueue[AcceptedCommand] = CommandQueue(
            settings.command_queue_max, settings.batch_commands_max, loop.time
        )
        self.measurements = WriterMeasurements()
        self._person_keys = PersonKeys(settings)
        self._transaction = BatchTransaction(
            ledger_id, engine, settings, self._person_keys, DatabaseClock(loop.time), self.measurements
        )
        self._running: asyncio.Task[None] | None = None
        self._last = _no_batch()
        self._writing = 0
        self._may_begin = asyncio.Event()
        self._pepper: bytes | None = None

    async def submit(self, requests: Sequence[CommandRequest], expires_at: float) -> list[Reply]:
        """Queues the commands and returns their replies, in order, after the commands are committed.

        Raises:
            IdempotencyKeyReused: another request was sent with the same key.
            Overloaded: the queue is full.
            StoreUnavailable: the deadline has passed, or PostgreSQL does not answer.
        """
        commands = [PendingCommand(request, expires_at) for request in requests]
        try:
            self.queue.add(commands)
        except Overloaded:
            self.measurements.count(requests, OVERLOADED)
            raise
        self._go_on()
        return await self.replies_to(commands)

    def accept(self, commands: Sequence[AcceptedCommand]) -> None:
        """Queues commands of one caller, each of which gets its verdict after its batch.

        Raises:
            Overloaded: the queue is full.
        """
        self.queue.add(commands)
        self._go_on()

    async def replies_to(self, commands: Sequence[PendingCommand]) -> list[Reply]:
        """Waits for the replies to commands that have one deadline, and returns them in order.

        Raises:
            StoreUnavailable: the deadline has passed.
            Exception: the verdict on a command is an error.
        """
        deadline = asyncio.get_running_loop().call_at(commands[0].expires_at, self._give_up, commands)
        try:
            return [await command.reply for command in commands]
        finally:
            deadline.cancel()
            for command in commands:
                if not command.reply.cancel() and not command.reply.cancelled():
                    command.reply.exception()  # asyncio would print an error that nobody has asked for

    def _go_on(self) -> None:
        if self.queue.has_enough(self._writing):
            self._may_begin.set()
        if self._running is None:
            self._running = keep_running("writer of commands", self._run)

    async def pepper(self, expires_at: float | None) -> bytes:
        """Returns the secret that keys the hashes of the ledger's e-mail addresses."""
        if self._pepper is None:
            async with asyncio.timeout_at(expires_at), self._engine.begin() as connection:
                self._pepper = await self._person_keys.pepper(connection, self._ledger_id)
        return self._pepper

    async def close(self) -> None:
        """Answers every command that was accepted, then stops. Waits no longer than a command may take."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=self._deadline_seconds)
        if self._running is not None:
            await end_tasks(self._running)
        await self._transaction.release()

    async def _run(self) -> None:
        """Writes one batch after another until no command waits. If it is run again, it continues after the last batch."""
        before = self._last
        await before.sent.wait()
        while commands := await self.next_batch(before):
            sent = asyncio.Event()
            batch = self._last = BatchInFlight(commands, sent, asyncio.create_task(self._record(commands, before, sent)))
            self._writing = len(commands)
            await sent.wait()
            await before.verdicts
            before.answer()
            before = batch
        before.answer()
        self._writing, self._running, self._last = 0, None, _no_batch()

    async def next_batch(self, before: BatchInFlight) -> list[AcceptedCommand]:
        """Waits until the next batch may begin, and returns its commands.

        Returns an empty list only if no command waits and the batch `before` has ended.
        """
        while True:
            await self._until_it_may_begin(before)
            commands = self.queue.take(len(before.commands))
            if commands or before.verdicts.done():
                return commands

    async def _until_it_may_begin(self, before: BatchInFlight) -> None:
        if before.verdicts.done() or self.queue.has_enough(len(before.commands)):
            return
        self._may_begin.clear()
        before.verdicts.add_done_callback(lambda _: self._may_begin.set())
        await self._may_begin.wait()

    async def _record(self, commands: Sequence[AcceptedCommand], before: BatchInFlight, sent: asyncio.Event) -> Verdicts:
        """Records a batch and returns its verdicts. Never raises, because an error would end the loop while callers wait."""
        requests = [command.request for command in commands]
        self.measurements.batch_commands.observe(len(commands))
        verdicts: Verdicts
        try:
            decided = await self._transaction.record(requests, before.verdicts, sent.set)
        except (*POSTGRES_AND_REDIS_ERRORS, *ASYNCPG_ERRORS) as error:
            log.warning("store unavailable", ledger_id=self._ledger_id, commands=len(commands), error=kind_of(error))
            verdicts = [StoreUnavailable()] * len(commands)
        except Exception as error:  # noqa: BLE001 # an error in our code goes to the callers, who log it
            verdicts = [error] * len(commands)
        else:
            verdicts = decided.verdicts
            if decided.events:
                self._wake_up(self._ledger_id)
        finally:
            sent.set()
        self.measurements.count_verdicts(requests, verdicts)
        return verdicts

    def _give_up(self, commands: Sequence[PendingCommand]) -> None:
        late = [command for command in commands if not command.is_answered()]
        self.measurements.count([command.request for command in late], LATE)
        for command in late:
            command.answer(StoreUnavailable(TOO_LATE))


def _no_batch() -> BatchInFlight:
    ended: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
    ended.set_result(())
    sent = asyncio.Event()
    sent.set()
    return BatchInFlight((), sent, ended)
