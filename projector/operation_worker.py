"""Does the operations on read models that operators ask for over HTTP: see `shared.read_models.operations`.

Only one worker does them: the one whose connection has the lock. Operations on different read models run at the same time. If the
worker dies, another one begins the same operations again, but never a rollback. A rebuild goes on with the generation that was
being built.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, assert_never

import msgspec
import structlog
from pymongo.errors import PyMongoError
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.dead_letters import ApplyAttempts, read_skips
from projector.feed import Feed
from projector.generations.dead_letter_operations import retry_dead_letters, skip_event
from projector.generations.generations import PausedError
from projector.generations.operations import Operations
from projector.generations.operator_rebuilds import rebuild_live, retry_while_overtaken
from projector.projections.projection import Projection
from projector.projections.registry import projections_of
from shared.errors import (
    EventNotApplied,
    GenerationMismatch,
    NotFound,
    NothingKept,
    Overloaded,
    ProjectionPaused,
    StackError,
    StoreUnavailable,
)
from shared.logs import kind_of
from shared.privacy.person_keys import PersonKeys
from shared.read_models import operations
from shared.read_models.channels import SKIPS_CHANNEL, RequestedSkip
from shared.read_models.operations import PAUSING, ReadModelOperation
from shared.settings import Settings
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks

log = structlog.get_logger()

CONNECTIONS_MAX: Final = 6
"""One has the lock. Each build needs one or two at a time."""
BUILDS_MAX: Final = 2
FORGET_SECONDS: Final = 3600.0
SKIP_SECONDS: Final = 10.0
"""How long to wait until a command API has recorded a skip."""
SKIP_PAUSE_SECONDS: Final = 0.25
INTERRUPTED: Final = "the worker ended while it rolled back: look which generation is live, and ask again if it is the wrong one"
"""A second rollback would undo the first, so nobody but the operator may repeat one."""
INTERNAL_ERROR: Final = "internal-error"
REFUSALS: Final = (NotFound, ProjectionPaused, NothingKept, EventNotApplied, GenerationMismatch, StoreUnavailable)
"""The errors with which the operator's request is answered. Any other error is our mistake, or a damaged store."""


class EventsRead:
    """The progress of an operation, for its row."""

    def __init__(self) -> None:
        self.done = self.total = 0

    def extend(self, total: int) -> None:
        self.total = total

    def advance(self, count: int = 1) -> None:
        self.done += count

    @contextmanager
    def show(self, _label: str, total: int, _unit: str) -> Iterator["EventsRead"]:
        self.total = total
        yield self


class RunningOperation(NamedTuple):
    """The progress of an operation, and the task that does it."""

    progress: EventsRead
    task: asyncio.Task[None]


class OperationWorker:
    """Does the operations of all ledgers from `run` until it is cancelled. `stores` has a pool of `CONNECTIONS_MAX` for it."""

    def __init__(self, stores: Stores, settings: Settings, projections: Sequence[Projection[Any]] | None = None) -> None:
        """`projections` are all those whose store is in use, if they are not given."""
        known = projections_of(stores.optional) if projections is None else projections
        self._projections = {projection.name: projection for projection in known}
        self._stores = stores
        self._settings = settings
        self._person_keys = PersonKeys(settings)
        self._look_seconds = settings.projector_look_ms / 1000
        self._running: dict[str, RunningOperation] = {}
        self._building = asyncio.Semaphore(BUILDS_MAX)

    async def run(self) -> None:
        """Looks at regular intervals what is asked for. Raises the errors of PostgreSQL; then run it again."""
        alone = self._stores.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            try:
                while not await operations.lead(connection):  # noqa: ASYNC110 # another process has the lock
                    await asyncio.sleep(self._look_seconds)
                await self._do_all(connection)
            finally:
                await end_tasks(*(running.task for running in self._running.values()))
                self._running.clear()
                # The pool would keep the connection, and with it the lock.
                await connection.invalidate()

    async def _do_all(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        forget_at = loop.time()
        while True:
            if loop.time() >= forget_at:
                await operations.forget_old(connection)
                forget_at = loop.time() + FORGET_SECONDS
            # Copied before the rows are read: an operation that ends meanwhile must not be begun again.
            known = dict(self._running)
            for operation in await operations.read_open(connection):
                if operation.id in known:
                    progress = known[operation.id].progress
                    await operations.note(connection, operation, progress.done, progress.total)
                elif operation.kind == "rollback" and operation.status == "running":
                    await operations.end(connection, operation, StoreUnavailable.code, INTERRUPTED, 0, 0)
                else:
                    await operations.note(connection, operation, 0, 0)
                    self._begin(operation)
            await asyncio.sleep(self._look_seconds)

    def _begin(self, operation: ReadModelOperation) -> None:
        progress = EventsRead()
        task = asyncio.create_task(self._do(operation, progress))
        task.add_done_callback(lambda _: self._running.pop(operation.id, None))
        self._running[operation.id] = RunningOperation(progress, task)

    async def _do(self, operation: ReadModelOperation, progress: EventsRead) -> None:
        """Does one operation and stores its end. If that fails, the next look begins it again."""
        try:
            async with nullcontext() if operation.kind in PAUSING else self._building:
                code, outcome = await self._ended(operation, progress)
            async with self._stores.engine.begin() as connection:
                await operations.end(connection, operation, code, outcome, progress.done, progress.total)
        except POSTGRES_AND_REDIS_ERRORS as error:
            log.warning("an operation is done again", **_about(operation), error=kind_of(error))
        else:
            log.info("operation ended", **_about(operation), code=code)

    async def _ended(self, operation: ReadModelOperation, progress: EventsRead) -> tuple[str | None, str]:
        """Does one operation. Returns the code of its failure, or None, and a sentence about its end."""
        try:
            return None, await self._outcome(operation, progress)
        except PausedError as paused:
            return ProjectionPaused.code, f"{operation.read_model} is paused since {paused}: resume it first"
        except StackError as error:
            return Overloaded.code, error.detail
        except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError) as error:
            return StoreUnavailable.code, f"a store does not answer ({kind_of(error)})"
        except REFUSALS as error:
            return error.code, error.detail
        except Exception as error:
            log.exception("an operation failed", **_about(operation))
            return INTERNAL_ERROR, kind_of(error)

    async def _outcome(self, operation: ReadModelOperation, progress: EventsRead) -> str:
        settings, name = self._settings, operation.read_model
        feed = Feed(self._stores.engine, operation.ledger_id, self._person_keys)
        events = await feed.refresh()
        attempts = ApplyAttempts(settings.projector_attempts_max, settings.projector_dead_letters_max)
        one = Operations(self._stores, feed, self._projections[name], attempts)
        try:
            return await self._perform(operation, one, events, progress)
        finally:
            await feed.close()

    async def _perform(self, operation: ReadModelOperation, one: Operations, events: int, progress: EventsRead) -> str:
        match operation.kind:
            case "rebuild":
                done = await rebuild_live(one, events, progress.show, whole=False)
                more = f"; {done.letters} events could not be applied" if done.letters else ""
                return f"a new generation is live, built up to position {done.rebuilt.position}{more}"
            case "rollback":
                generation = await retry_while_overtaken(one.generations.roll_back)
                return f"generation {generation.number} is live again"
            case "retry":
                return f"every event up to position {await retry_dead_letters(one, progress.show)} is applied"
            case "skip":
                return await self._skip(operation, one, progress)
            case "pause":
                return f"paused since {await one.pause(datetime.now(UTC))}"
            case "resume":
                await one.resume()
                return "follows the log again"
        assert_never(operation.kind)

    async def _skip(self, operation: ReadModelOperation, one: Operations, progress: EventsRead) -> str:
        position = operation.event_position or 0
        if position not in await read_skips(self._stores.engine, operation.ledger_id, operation.read_model):
            await skip_event(one, position, lambda: self._record(operation, position), progress.show)
        else:
            # It was recorded before the worker died. Build what the skip changes, unless a follower has.
            await rebuild_live(one, await one.generations.feed.refresh(), progress.show, whole=False)
        return f"event {position} is left out"

    async def _record(self, operation: ReadModelOperation, position: int) -> None:
        """Makes a command API record the skip.

        Raises:
            StoreUnavailable: none has recorded it within `SKIP_SECONDS`.
        """
        message = msgspec.json.encode(RequestedSkip(operation.ledger_id, operation.id))
        for _ in range(int(SKIP_SECONDS / SKIP_PAUSE_SECONDS)):
            await self._stores.redis.publish(SKIPS_CHANNEL, message)
            await asyncio.sleep(SKIP_PAUSE_SECONDS)
            if position in await read_skips(self._stores.engine, operation.ledger_id, operation.read_model):
                return
        raise StoreUnavailable("no command API has recorded the skip: ask again")


def _about(operation: ReadModelOperation) -> dict[str, Any]:
    return {
        "ledger_id": operation.ledger_id,
        "projection": operation.read_model,
        "kind": operation.kind,
        "operation": operation.id,
    }
