"""A store that needs too long for a batch gets smaller ones, until it takes them in time."""

import asyncio

import pytest
from pymongo.errors import NetworkTimeout

from projector.generations.batch_size import BATCHES_BETWEEN, HALVINGS_MAX, BatchSize
from projector.projections.changes import DocumentChanges
from projector.projections.registry import PROJECTIONS_BY_NAME
from projector.runner import Runner
from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import Step
from projector.sinks.registry import make_sinks
from shared.read_models.generations import Generation
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import open_ledger

EVENTS = 1_000
IN_TIME = 100


def test_a_batch_is_half_as_large_after_each_failure_and_never_empty() -> None:
    size = BatchSize()
    sizes = []
    for _ in range(4):
        sizes.append(size.at_most(1_000))
        size.failed()
    assert sizes == [1_000, 500, 250, 125]
    for _ in range(HALVINGS_MAX):
        size.failed()
    assert size.at_most(1_000) == 1


def test_a_batch_grows_again_after_some_that_were_taken() -> None:
    size = BatchSize()
    size.failed()
    size.failed()
    sizes = []
    for _ in range(3 * BATCHES_BETWEEN):
        sizes.append(size.at_most(1_000))
        size.taken()
    assert [sizes.count(each) for each in (250, 500, 1_000)] == [BATCHES_BETWEEN] * 3
    size.failed()
    assert size.at_most(1_000) == 500, "it does not grow beyond the limit"


class SlowSink(MongoSink):
    """A sink whose MongoDB needs longer for a large batch than the driver waits."""

    async def apply(self, generation: Generation, step: Step, changes: DocumentChanges) -> bool:
        if len(changes) > IN_TIME:
            raise NetworkTimeout
        return await super().apply(generation, step, changes)


@pytest.mark.services
async def test_a_read_model_gets_to_the_end_although_no_large_batch_is_taken_in_time(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        head = await ledger.append(Book(seed=4).history(EVENTS))
        sinks = make_sinks(ledger.stores) | {"mongo": SlowSink(ledger.stores.mongo)}
        runner = Runner(ledger.stores, settings, [PROJECTIONS_BY_NAME["entries"]], sinks)
        running = asyncio.create_task(runner.run())
        await ledger.caught_up(head, "entries")
        runner.stop()
        await running
