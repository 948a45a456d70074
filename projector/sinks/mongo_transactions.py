"""Runs MongoDB transactions that may lose a race against another worker, and ends the transactions of workers that died.

When a client dies, MongoDB keeps its transaction and the locks for a minute. Workers do not wait that long: the first worker that
needs such a lock ends every projector transaction that has been idle for `ABANDONED_SECONDS`. If the other worker was only slow,
its transaction fails, and it reads the checkpoint again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from shared.stores.mongo import BlockingMongoSession, MongoDatabase, blocking, mongo_application

log = structlog.get_logger()

T = TypeVar("T")

ABANDONED_SECONDS: Final = 1.0
"""A projector transaction that has been idle for this time counts as abandoned: its worker has probably died."""


class MongoRaceLostError(Exception):
    """Another worker was faster. Raising this error inside a transaction rolls it back."""


class MongoTransactions:
    """Starts transactions, and ends abandoned ones."""

    def __init__(self, mongo: MongoDatabase) -> None:
        self._mongo = mongo
        self._lost: dict[str, tuple[int, float]] = {}
        """Checkpoint → the position where the last lost step began, and since when all steps from that position are lost."""

    async def run(self, work: Callable[[BlockingMongoSession], T]) -> T:
        """Runs `work` in a transaction, with a MongoDB session of its own, and returns its result. `work` may block.

        All of it runs in one thread, so nobody can cancel it between two writes. If a write of motor is cancelled, motor's own
        thread goes on with it. The write then comes after the abort of its transaction, and MongoDB applies it on its own.

        Raises:
            MongoRaceLostError: another transaction wrote the same documents first.
        """
        return await asyncio.to_thread(self._run, work)

    def _run(self, work: Callable[[BlockingMongoSession], T]) -> T:
        try:
            with blocking(self._mongo).client.start_session() as session, session.start_transaction():
                return work(session)
        except OperationFailure as failure:
            if failure.has_error_label("TransientTransactionError"):
                raise MongoRaceLostError from failure
            raise

    async def wait_for(self, operation: Awaitable[T]) -> T:
        """Waits for an operation that needs locks, and returns its result. Ends abandoned transactions that hold these locks."""
        running = asyncio.ensure_future(operation)
        try:
            while not (await asyncio.wait([running], timeout=ABANDONED_SECONDS))[0]:
                await self._end_abandoned_transactions()
            return running.result()
        finally:
            running.cancel()

    async def after_lost_step(self, checkpoint: str, position: int) -> None:
        """Notes that another transaction kept a step of this generation from being written.

        If this has gone on at the same position for `ABANDONED_SECONDS`, ends the transactions that dead workers left open. No
        worker moves the checkpoint then, so the transaction of a dead worker probably locks it.
        """
        now = time.monotonic()
        before, since = self._lost.get(checkpoint, (-1, now))
        if before != position:
            self._lost[checkpoint] = position, now
        elif now - since > ABANDONED_SECONDS:
            del self._lost[checkpoint]
            await self._end_abandoned_transactions()

    async def _end_abandoned_transactions(self) -> None:
        ours = {"type": "idleSession", "appName": mongo_application(self._mongo.name, "daybook_projector")}
        old = {"transaction.timeInactiveMicros": {"$gt": ABANDONED_SECONDS * 1_000_000}}
        admin = self._mongo.client.get_database("admin", read_concern=ReadConcern("local"))
        pipeline: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": False, "idleSessions": True}},
            {"$match": {**ours, **old}},
        ]
        async for idle in admin.aggregate(pipeline):
            log.warning("transaction without a worker ended", client=idle.get("client"))
            await admin.command("killSessions", [{"id": idle["lsid"]["id"]}])
