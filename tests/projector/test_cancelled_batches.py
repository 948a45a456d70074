"""A batch whose caller is cancelled in its middle is written as a whole, or not at all."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from projector.projections.changes import DocumentChanges
from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import TOGETHER_CHANGES_MAX, Step
from shared.read_models.generations import Generation, checkpoint_id
from shared.read_models.shapes import TRANSFERS
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from tests.harness.mongo_listeners import listen
from tests.harness.projecting import eventually

pytestmark = pytest.mark.services

COUNT: Final = TOGETHER_CHANGES_MAX + 1
"""More than what shares a transaction with other read models, which has always been written by one thread."""


class _Cancellation(CommandListener):
    """Cancels a batch when its thread begins to insert, and lets that thread go on when the transaction has been aborted.

    If nothing aborts the transaction, the thread goes on after a while.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[bool] | None = None
        self.loop = asyncio.get_running_loop()
        self.aborted = threading.Event()

    def cancel(self) -> None:
        assert self.task
        self.loop.call_soon_threadsafe(self.task.cancel)
        if self.aborted.wait(timeout=2):
            time.sleep(0.05)  # the driver notes that it has aborted

    def started(self, event: CommandStartedEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "abortTransaction":
            self.loop.call_soon_threadsafe(time.sleep, 0.5)  # a busy machine: the session is ended later
            self.aborted.set()


class _CancellingDocuments(dict[str, Any]):
    def __init__(self, cancellation: _Cancellation) -> None:
        super().__init__({f"transfer {number}": {"_id": f"transfer {number}"} for number in range(COUNT)})
        self.cancellation = cancellation

    def values(self) -> Any:
        """The driver asks for the first document in its thread."""
        yield from self._after_cancellation(super().values())

    def _after_cancellation(self, documents: Iterable[Any]) -> Iterator[Any]:
        self.cancellation.cancel()
        yield from documents


@pytest.fixture
async def cancellation(monkeypatch: pytest.MonkeyPatch) -> _Cancellation:
    listener = _Cancellation()
    listen(monkeypatch, listener)
    return listener


async def test_a_cancelled_batch_is_not_written_beside_its_transaction(settings: Settings, cancellation: _Cancellation) -> None:
    """Motor went on with a write that was cancelled. It came after the abort of its transaction, so MongoDB kept it."""
    async with open_stores(settings, "daybook_projector") as stores:
        sink, generation = MongoSink(stores.mongo), Generation(TRANSFERS, "main", 1)
        await sink.prepare(generation)
        changes = DocumentChanges()
        changes.inserted = _CancellingDocuments(cancellation)
        cancellation.task = asyncio.create_task(sink.apply(generation, Step(0, COUNT, "00"), changes))
        with contextlib.suppress(asyncio.CancelledError):
            await cancellation.task
        await asyncio.sleep(2)  # the driver's thread ends

        async def is_whole() -> bool:
            checkpoint = await stores.mongo.checkpoints.find_one({"_id": checkpoint_id(generation)})
            assert checkpoint is not None
            return bool(await generation.documents().count(stores.mongo) == checkpoint["position"])

        # On a busy machine, the thread may commit between the two reads. What was written beside a transaction stays.
        await eventually(is_whole, 30)
        assert await generation.documents().count(stores.mongo) in {0, COUNT}
