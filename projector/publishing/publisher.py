"""Publishes the events of all ledgers to the broker, each ledger in the order of its log.

The publisher reads a slice of the log, sends it, waits until the broker has acknowledged it, and only then moves the checkpoint
in PostgreSQL. So a crash at any moment loses no event; it can only send some again. A slice is sent when the one before it is
acknowledged, so at most one slice of each of `LEDGERS_AT_ONCE` ledgers is in memory. Only one worker publishes: the one whose
connection has the lock.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from projector.publishing.broker import Broker, BrokerFailure, open_broker
from projector.publishing.cloud_events import CloudEvents
from shared.backoff import backoff_seconds
from shared.log.read import read_stored
from shared.publishing import checkpoints
from shared.publishing.checkpoints import DueLedger
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

SLICE_EVENTS_MAX: Final = 1_000
LEDGERS_AT_ONCE: Final = 4
CONNECTIONS_MAX: Final = LEDGERS_AT_ONCE + 1
"""One has the lock. The others are used for a statement or two before and after each slice, and never while it is sent."""
RETRY_SECONDS: Final = (0.5, 30.0)


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[None]:
    """Publishes until the block ends, if DAYBOOK_PUBLISH_URL is set.

    Raises:
        SettingsInvalid: the packages of the broker are not installed.
    """
    if not settings.publish_url:
        yield
        return
    broker = open_broker(settings)
    async with open_postgres(settings, "daybook_projector", CONNECTIONS_MAX, keeps_session=True) as engine:
        task = keep_running("publisher", Publisher(engine, settings, broker).run)
        try:
            yield
        finally:
            await end_tasks(task)
            await broker.close()


class Publisher:
    """Publishes from `run` until it is cancelled. Needs `CONNECTIONS_MAX` connections of its own."""

    def __init__(self, engine: AsyncEngine, settings: Settings, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker
        self._cloud_events = CloudEvents(settings)
        self._look_seconds = settings.projector_look_ms / 1000

    async def run(self) -> None:
        """Looks at regular intervals what is due. Raises the errors of PostgreSQL; then run it again."""
        alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            try:
                while not await checkpoints.lead(connection):  # noqa: ASYNC110 # another process has the lock
                    await asyncio.sleep(self._look_seconds)
                while True:
                    if not await self._publish_due(connection):
                        await asyncio.sleep(self._look_seconds)
            finally:
                # The pool would keep the connection, and with it the lock.
                await connection.invalidate()

    async def _publish_due(self, connection: AsyncConnection) -> bool:
        """Publishes a slice of each ledger that is due. Returns False if none was."""
        due = await checkpoints.read_due(connection, LEDGERS_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for ledger in due:
                tasks.create_task(self._publish_slice(ledger))
        return bool(due)

    async def _publish_slice(self, ledger: DueLedger) -> None:
        try:
            if await self._broker.has_topic(ledger.ledger_id):
                await self._send(ledger)
            elif ledger.position:
                # The broker is a new one, or has lost the topic. Rewind first: after a crash, the topic must not lack its begin.
                await self._move(ledger, 0)
                log.warning("a topic is missing and is filled from event 1", ledger=ledger.ledger_id, before=ledger.position)
            else:
                await self._broker.make_topic(ledger.ledger_id)
        except BrokerFailure as failure:
            if failure.acknowledged:
                await self._move(ledger, ledger.position + failure.acknowledged)
            await self._postpone(ledger, failure.cause, has_moved=failure.acknowledged > 0)

    async def _send(self, ledger: DueLedger) -> None:
        async with self._engine.connect() as connection:
            events = await read_stored(connection, ledger.ledger_id, ledger.position, SLICE_EVENTS_MAX)
            messages, unreadable = await self._cloud_events.messages(connection, ledger.position, events)
        if messages:
            await self._broker.publish(ledger.ledger_id, messages)
            await self._move(ledger, messages[-1].position)
            if ledger.failures:
                log.info("published again", ledger=ledger.ledger_id, position=messages[-1].position)
        elif unreadable:
            await self._postpone(ledger, unreadable)

    async def _move(self, ledger: DueLedger, position: int) -> None:
        """Moves the checkpoint. If an operator has moved it meanwhile, it stays where it is."""
        async with self._engine.begin() as connection:
            await checkpoints.move(connection, ledger.ledger_id, ledger.position, position)

    async def _postpone(self, ledger: DueLedger, cause: str, *, has_moved: bool = False) -> None:
        """Plans the next attempt. The pauses grow from one failure to the next, until the checkpoint moves."""
        failures = 0 if has_moved else ledger.failures
        async with self._engine.begin() as connection:
            await checkpoints.postpone(connection, ledger.ledger_id, cause, backoff_seconds(failures + 1, RETRY_SECONDS))
        if not failures:
            log.warning("not published", ledger=ledger.ledger_id, after=ledger.position, cause=cause)
