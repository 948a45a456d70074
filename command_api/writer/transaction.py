"""Runs the transaction of a batch: read, decide, append, commit. Retries if another attempt can help.

Most batches are decided ahead (`basis.read_ahead`): before their transaction, on the states that the previous batch leaves, even
while that batch is still being written. The append then writes only if the log still ends where the previous batch left it. All
other batches, and each batch that lost a race, are decided on locked streams within the transaction (`basis.read_locked`).

Never report a verdict before the commit. Never write a batch that was decided on outdated states. If the reply to COMMIT is lost,
look in the log for the batch. Never guess.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, Self

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.writer.basis import read_ahead, read_locked
from command_api.writer.batch import NO_HEAD, Decided, decide, prepare
from command_api.writer.command_request import CommandRequest, Reply
from command_api.writer.ledger_view import LedgerView
from command_api.writer.measurements import CONFLICT, CONNECTION, UNKNOWN_COMMIT, WriterMeasurements
from shared.identity import password_resets, passwords
from shared.log.append import append_prepared
from shared.log.heads import Head, StreamHead, lock_head, open_ledger, read_stream_heads
from shared.log.read import find_events
from shared.log.user_events import UserCreated, UserDeactivated, UserErased
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.database_clock import DatabaseClock
from shared.stores.kept_connection import KeptConnection
from shared.stores.postgres import driver_of
from shared.stores.store_errors import ASYNCPG_ERRORS

ATTEMPTS_MAX: Final = 5

_CONFLICTS: Final = {"23505", "40001", "40P01"}
"""Another transaction won: unique key, serialization failure, deadlock."""

_RETRIED: Final = {
    *_CONFLICTS,
    "0A000",  # a migration changed a table of a cached plan; the driver has now dropped the plan
    *("08000", "08003", "08006", "57P01"),  # the connection is lost
    "25P03",  # this process was frozen or cut off within the transaction, which PostgreSQL then ended
}


class LostRaceError(Exception):
    """The batch was not written: another writer appended events after it was decided, or its time was ahead of PostgreSQL's."""


class CommitUnknownError(Exception):
    """COMMIT failed with `error`. It is unknown if PostgreSQL committed the transaction."""

    def __init__(self, decided: Decided, error: BaseException) -> None:
        super().__init__()
        self.decided = decided
        self.error = error


class BatchTransaction:
    """Records the batches of one ledger, each in a transaction of its own."""

    def __init__(
        self,
        ledger_id: str,
        engine: AsyncEngine,
        settings: Settings,
        person_keys: PersonKeys,
        clock: DatabaseClock,
        measurements: WriterMeasurements,
    ) -> None:
        self._ledger_id = ledger_id
        self._engine = engine
        self._kept = KeptConnection(engine)
        self._view = LedgerView(settings.stream_cache_max, clock)
        self._person_keys = person_keys
        self._measurements = measurements

    async def record(self, requests: Sequence[CommandRequest], before: Awaitable[object], sent: Callable[[], object]) -> Decided:
        """Decides the batch, commits it, and returns it.

        `before` is done when the previous batch has ended, which must come first because both batches use the same connection.
        `sent` is called when only the reply of PostgreSQL is missing.

        Raises the error of the last attempt: an error of the driver or of SQLAlchemy, or NotFound if the ledger does not exist.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return await self._decide_ahead(requests, before, sent) or await self._decide_on_locks(requests, before)
            except CommitUnknownError as unknown:
                self._view.doubt()
                self._measurements.retries[UNKNOWN_COMMIT] += 1
                if await self._is_committed(unknown.decided):
                    return unknown.decided
                if attempt == ATTEMPTS_MAX or not _can_retry(unknown.error):
                    raise unknown.error from None
            except BaseException as error:
                self._view.doubt()
                if attempt == ATTEMPTS_MAX or not _can_retry(error):
                    raise
                self._measurements.retries[CONFLICT if _is_conflict(error) else CONNECTION] += 1
        raise AssertionError  # the last attempt returned or raised

    async def release(self) -> None:
        """Returns the connection that the writer keeps to the pool."""
        await self._kept.release()

    # ── decided ahead ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _decide_ahead(
        self, requests: Sequence[CommandRequest], before: Awaitable[object], sent: Callable[[], object]
    ) -> Decided | None:
        """Decides the batch without locks and commits it. Writes nothing and returns None if the batch needs locks."""
        basis = await read_ahead(self._ledger_id, requests, self._view, partial(self._read_heads, before))
        if basis is None:
            return None
        decided = decide(requests, basis)
        # Only an append confirms the basis, so a batch that writes nothing needs locks. So does a batch with personal data, which
        # reads the keys of people.
        if not decided.writes or decided.is_about_people():
            return None
        prepared = prepare(self._ledger_id, decided, {})
        # The next batch is decided on this view before this batch is committed. If this batch fails, the append of the next one
        # finds another head and writes nothing.
        self._remember(requests, decided, prepared.head)
        await before
        with _CommitWatch(self._measurements) as commit:
            async with self._kept.begin() as driver:
                # In the next turn of the event loop, the driver has written the statement to its socket.
                asyncio.get_running_loop().call_soon(sent)
                self._set_clock(await append_prepared(driver, prepared))
                commit.comes_next(decided)
        return decided

    def _set_clock(self, written_at: datetime | None) -> None:
        """Takes over the time that PostgreSQL told when it wrote the batch.

        Raises:
            LostRaceError: PostgreSQL did not write the batch.
        """
        if written_at is None:
            raise LostRaceError
        self._view.clock.set(written_at)

    async def _read_heads(self, before: Awaitable[object], stream_ids: set[str]) -> Mapping[str, StreamHead]:
        await before  # until then, the previous batch uses the connection
        async with self._kept.connected() as driver:
            return await read_stream_heads(driver, self._ledger_id, stream_ids)

    # ── decided on locks ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _decide_on_locks(self, requests: Sequence[CommandRequest], before: Awaitable[object]) -> Decided:
        await before
        with _CommitWatch(self._measurements) as commit:
            async with self._engine.begin() as connection:
                decided, end = await _bounded(connection, self._decide_and_append(connection, requests))
                commit.comes_next(decided)
        self._remember(requests, decided, end)
        return decided

    async def _decide_and_append(self, connection: AsyncConnection, requests: Sequence[CommandRequest]) -> tuple[Decided, Head]:
        """Decides and appends the batch within a transaction. Returns the batch, and the head of the log after it."""
        creates_ledger = any(request.creates_ledger for request in requests)
        if creates_ledger:
            await open_ledger(connection, self._ledger_id)
        basis = await read_locked(connection, self._ledger_id, requests, self._view, self._person_keys)
        decided = decide(requests, basis)
        if not decided.writes:
            if creates_ledger:
                await connection.rollback()  # a dry run leaves no ledger
            return decided, basis.head
        people, created = decided.people(), decided.users_of(UserCreated)
        if not basis.head.position:
            await self._person_keys.pepper(connection, self._ledger_id)  # exists from the first event on
        keys = await self._person_keys.require(connection, self._ledger_id, people, created) if people else {}
        prepared = prepare(self._ledger_id, decided, keys)
        self._set_clock(await append_prepared(await driver_of(connection), prepared))
        erased = decided.users_of(UserErased)
        await self._person_keys.forget(connection, self._ledger_id, erased)
        without_password = erased | decided.users_of(UserDeactivated)
        await passwords.forget(connection, self._ledger_id, without_password)
        await password_resets.forget(connection, self._ledger_id, without_password)
        return decided, prepared.head

    # ── after the transaction ────────────────────────────────────────────────────────────────────────────────────────

    def _remember(self, requests: Sequence[CommandRequest], decided: Decided, end: Head) -> None:
        """Updates the view with the streams after the batch. `end` is the head of the log after the batch."""
        if decided.basis.head is NO_HEAD:
            return
        # `new_streams` are streams of transfers and holds, which few later commands read. So they are not kept.
        created = {stream_id for request in requests for command in request.commands() for stream_id in command.new_streams()}
        streams = {stream_id: stream for stream_id, stream in decided.streams.items() if stream_id not in created}
        # `read_ahead` finds no stored replies. So after a repeated request, the next batch is decided under locks.
        replayed = any(isinstance(verdict, Reply) and verdict.replayed for verdict in decided.verdicts)
        alone = decided.basis.alone
        self._view.update(end, streams, created, alone=alone, trusted=alone and not replayed)
        if first_keys := {request.reply_key for request in requests if request.part == 0}:
            self._view.remember_first_replies(reply for reply in decided.replies if (reply.principal, reply.key) in first_keys)

    async def _is_committed(self, decided: Decided) -> bool:
        """True if the batch is in the log. Locks the head first, which waits until the batch's transaction has ended."""
        if not decided.events:
            return False
        async with self._engine.begin() as connection:
            await lock_head(connection, self._ledger_id)
            return bool(await find_events(connection, self._ledger_id, [decided.events[0].event_id]))


class _CommitWatch:
    """Turns an error of COMMIT into `CommitUnknownError`. Does not change errors that are raised before COMMIT.

    Also measures how long a transaction takes that writes something.
    """

    def __init__(self, measurements: WriterMeasurements) -> None:
        self._measurements = measurements
        self._began_at = time.monotonic()
        self._decided: Decided | None = None

    def comes_next(self, decided: Decided) -> None:
        self._decided = decided

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._decided is not None and isinstance(error, (DBAPIError, *ASYNCPG_ERRORS)):
            raise CommitUnknownError(self._decided, error) from error
        if self._decided is not None and self._decided.writes and error is None:
            self._measurements.commit_seconds.observe(time.monotonic() - self._began_at)


async def _bounded(connection: AsyncConnection, work: Awaitable[tuple[Decided, Head]]) -> tuple[Decided, Head]:
    """Awaits `work`. On a timeout, closes the connection, because a rollback would only wait for the same server again."""
    try:
        return await work
    except TimeoutError:
        await connection.invalidate()
        raise


def _can_retry(error: BaseException) -> bool:
    """True if another attempt can help: another writer won, the connection died, or a cached plan was outdated."""
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    sqlstate = _sqlstate_of(error)
    unknown_to_server = isinstance(error, ASYNCPG_ERRORS) and sqlstate is None
    return isinstance(error, LostRaceError) or invalidated or unknown_to_server or sqlstate in _RETRIED


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, LostRaceError) or _sqlstate_of(error) in _CONFLICTS


def _sqlstate_of(error: BaseException) -> str | None:
    sqlstate: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return sqlstate
