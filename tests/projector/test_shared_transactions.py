"""Batches of several read models share a transaction or a round trip, and positions are published: faster, otherwise the same."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from projector.projections.changes import KeyChanges, KeyValues
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import Sink, Step
from projector.sinks.redis import RedisSink
from query_api.read_model_positions import ReadModelPositions
from query_api.reading import Reader
from shared.errors import ReadModelDamaged
from shared.read_models.channels import MOVED_CHANNEL
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import ACCOUNTS, ACTIVITY, STATISTICS, USERS, ReadModel
from shared.read_models.stored_state import Pointer
from shared.settings import Settings
from tests.harness.documents import documents_of
from tests.harness.log import Book, recorded
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

IN_REDIS: Final = [projection for projection in PROJECTIONS if projection.model.store == "redis"]
IN_MONGO: Final = [projection for projection in PROJECTIONS if projection.model.store == "mongo"]
HISTORY: Final = recorded(Book(seed=5).history(20))
NEXT: Final = recorded(Book(seed=5).history(24))[20:]


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


@pytest.fixture
async def alone(settings: Settings) -> AsyncIterator[Questions]:
    """A query API without a projector."""
    async with query_api(settings) as questions:
        yield questions


# ── one transaction ──────────────────────────────────────────────────────────────────────────────────────────────────


class Batches:
    """Delivers the next events to every read model in MongoDB at once."""

    def __init__(self, ledger: Ledger) -> None:
        self.mongo = ledger.stores.mongo
        self.sink: Sink[Any] = MongoSink(self.mongo)

    async def prepare(self) -> None:
        for projection in IN_MONGO:
            await self.sink.prepare(Generation(projection.model, "main", 1))
        assert await self.deliver(HISTORY) == [True] * len(IN_MONGO)

    async def deliver(self, events: Any, wrong: ReadModel | None = None) -> list[Any]:
        """The batch of `wrong` is out of turn."""
        deliveries = []
        for projection in IN_MONGO:
            changes = projection.new_changes()
            projection.fold(changes, events)
            before = events[0].position - 1 if projection.model is not wrong else 7
            step = Step(before, events[-1].position, events[-1].hash.hex())
            deliveries.append(self.sink.apply(Generation(projection.model, "main", 1), step, changes))
        return await asyncio.gather(*deliveries, return_exceptions=True)

    async def positions(self) -> dict[str, int]:
        found = await self.mongo.checkpoints.find().to_list(None)
        return {document["_id"].split("/")[1]: document["position"] for document in found}

    async def transactions(self) -> int:
        status = await self.mongo.client.admin.command("serverStatus")
        return int(status["transactions"]["totalCommitted"])


async def test_batches_that_are_ready_together_are_one_transaction(ledger: Ledger) -> None:
    batches = Batches(ledger)
    await batches.prepare()
    before = await batches.transactions()
    assert await batches.deliver(NEXT) == [True] * len(IN_MONGO)
    assert await batches.transactions() - before == 1
    assert set((await batches.positions()).values()) == {24}


async def test_a_batch_out_of_turn_holds_up_no_other(ledger: Ledger) -> None:
    batches = Batches(ledger)
    await batches.prepare()
    done = await batches.deliver(NEXT, wrong=ACCOUNTS)
    others = [each.name for each in IN_MONGO if each.model != ACCOUNTS]
    assert dict(zip([each.name for each in IN_MONGO], done, strict=True)) == {**dict.fromkeys(others, True), "accounts": False}
    assert await batches.positions() == {**dict.fromkeys(others, 24), "accounts": 20}


async def test_a_damaged_read_model_holds_up_no_other(ledger: Ledger) -> None:
    batches = Batches(ledger)
    await batches.prepare()
    await documents_of(batches.mongo, "accounts").clear()
    done = dict(zip([each.name for each in IN_MONGO], await batches.deliver(NEXT), strict=True))
    assert isinstance(done.pop("accounts"), ReadModelDamaged)
    assert set(done.values()) == {True}
    assert await batches.positions() == {**dict.fromkeys(done, 24), "accounts": 20}


# ── one round trip ───────────────────────────────────────────────────────────────────────────────────────────────────


class RedisBatches:
    """The same for every read model in Redis, from any number of workers."""

    def __init__(self, ledger: Ledger) -> None:
        self.redis: Any = ledger.stores.redis
        self.ledger = ledger

    async def prepare(self) -> None:
        sink = self.worker()
        for projection in IN_REDIS:
            await sink.prepare(Generation(projection.model, "main", 1))
            await sink.move_pointer(projection.model, "main", Pointer(), Pointer(live=1))

    def worker(self) -> RedisSink:
        return RedisSink(self.redis)

    async def deliver(self, worker: RedisSink, events: Any) -> list[Any]:
        deliveries = []
        for projection in IN_REDIS:
            changes = projection.new_changes()
            projection.fold(changes, events)
            step = Step(events[0].position - 1, events[-1].position, events[-1].hash.hex())
            deliveries.append(worker.apply(Generation(projection.model, "main", 1), step, changes))
        return await asyncio.gather(*deliveries, return_exceptions=True)

    async def positions(self) -> list[int]:
        return [int(await self.redis.get(Generation(each.model, "main", 1).key("checkpoint"))) for each in IN_REDIS]

    async def is_the_log(self, events: Any) -> bool:
        """Tells whether the sums of money equal one fold of all these events."""
        changes = KeyChanges()
        PROJECTIONS_BY_NAME["statistics"].fold(changes, events)
        keys: KeyValues = {}
        changes.apply_to(keys)
        generation = Generation(STATISTICS, "main", 1)
        return all([await self.redis.hgetall(generation.key(key)) == keys[key] for key in changes.sums])


async def test_sums_are_added_to_those_in_the_store_even_if_another_worker_wrote_them(ledger: Ledger) -> None:
    """A worker remembers the sums that it wrote, and another worker has changed them since."""
    batches = RedisBatches(ledger)
    await batches.prepare()
    one, other = batches.worker(), batches.worker()
    for worker, some in ((one, HISTORY[:8]), (other, HISTORY[8:12]), (one, HISTORY[12:]), (one, NEXT)):
        assert await batches.deliver(worker, some) == [True] * len(IN_REDIS)
    assert await batches.is_the_log([*HISTORY, *NEXT])


async def test_sums_that_were_lost_are_not_remembered(ledger: Ledger) -> None:
    batches = RedisBatches(ledger)
    await batches.prepare()
    worker = batches.worker()
    assert await batches.deliver(worker, HISTORY) == [True] * len(IN_REDIS)
    await batches.redis.flushdb()
    await batches.prepare()
    assert await batches.deliver(worker, HISTORY) == [True] * len(IN_REDIS)
    assert await batches.deliver(worker, HISTORY) == [False] * len(IN_REDIS)
    assert await batches.is_the_log(HISTORY)


async def test_a_batch_that_redis_cannot_take_holds_up_no_other(ledger: Ledger) -> None:
    batches = RedisBatches(ledger)
    await batches.prepare()
    await batches.deliver(batches.worker(), HISTORY)
    key = Generation(ACTIVITY, "main", 1).key("recent")
    await batches.redis.delete(key)
    await batches.redis.set(key, "no list")
    # As after a restart of Redis, too: it does not know the script any more.
    await batches.redis.script_flush()
    done = dict(zip([each.name for each in IN_REDIS], await batches.deliver(batches.worker(), NEXT), strict=True))
    assert isinstance(done.pop("activity"), ReadModelDamaged)
    assert set(done.values()) == {True}
    assert await batches.positions() == [24, 24, 20]


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_a_position_is_published_after_it_was_written(ledger: Ledger) -> None:
    """A position is published for every read model, and a reader that looks then finds it."""
    book = Book()
    told: dict[str, int] = {}
    async with ledger.stores.redis.pubsub(ignore_subscribe_messages=True) as channel, ledger.followed():
        await channel.subscribe(MOVED_CHANNEL)
        head = await ledger.append(book.history(20))
        await ledger.caught_up(head)
        for _ in range(20):
            await ledger.append([book.create_user()])
            head += 1
            while told.get("main/users") != head:
                message = await channel.get_message(timeout=120)
                if message is None:  # as for a message about the subscription
                    continue
                for read_model, position in json.loads(message["data"]).items():
                    assert (await ledger.live(read_model.partition("/")[2])).position >= position
                    assert told.get(read_model, 0) < position
                    told[read_model] = position
        await ledger.caught_up(head)
    assert set(told) == {pointer_id(projection.model, "main") for projection in PROJECTIONS}


async def test_a_reader_that_waits_is_woken_by_the_message(alone: Questions) -> None:
    redis = alone.stores.redis
    moves = ReadModelPositions(redis)
    waiting = asyncio.create_task(moves.next("main/users", 30))
    await eventually(lambda: _is(moves.is_heard))
    await redis.publish(MOVED_CHANNEL, "no JSON")
    await redis.publish(MOVED_CHANNEL, '{"main/users": "soon"}')
    await redis.publish(MOVED_CHANNEL, '{"main/accounts": 3}')
    assert not waiting.done()
    await redis.publish(MOVED_CHANNEL, '{"main/users": 8, "main/accounts": 4}')
    await asyncio.wait_for(waiting, 120)
    assert (moves.position("main/users"), moves.position("main/accounts")) == (8, 4)
    moves.forget("main/users")
    assert moves.position("main/users") is None
    await moves.close()
    assert (moves.is_heard, moves.position("main/accounts")) == (False, None)


async def _is(value: Any) -> Any:
    return value


@pytest.mark.slow
@pytest.mark.parametrize("lie", [0, 999])
async def test_a_wrong_message_changes_no_answer(settings: Settings, alone: Questions, lie: int) -> None:
    """A message that is too high loses no events, and one that is too low makes no reader wait for ever."""
    book = Book()
    await alone.record([book.create_user() for _ in range(5)])
    reader = Reader(alone.stores.engine, alone.stores.mongo, alone.stores.redis, settings)
    asking = asyncio.create_task(reader.positions.next("main/users", 30))
    await eventually(lambda: _is(reader.positions.is_heard))

    is_over = asyncio.Event()

    async def keep_lying() -> None:
        # Ended by asking: a cancellation in the middle of a command would leave the connection to chance.
        while not is_over.is_set():
            await alone.stores.redis.publish(MOVED_CHANNEL, json.dumps({"main/users": lie}))
            await asyncio.sleep(0.01)

    lying = asyncio.create_task(keep_lying())
    try:
        async with projecting(alone, settings):
            for number in range(6, 12):
                recording = asyncio.create_task(_soon(alone, book))
                answer = await alone.ask("/v1/users", {"limit": 100}, daybook_min_position=str(number))
                assert (answer.status_code, len(answer.json()["items"])) == (200, number)
                await recording
    finally:
        is_over.set()
        await lying
    await asking
    await reader.positions.close()


async def _soon(api: Questions, book: Book) -> None:
    await asyncio.sleep(0.05)
    await api.record([book.create_user()])


@pytest.mark.slow
async def test_a_read_model_whose_store_was_emptied_is_rebuilding_whatever_was_published(
    settings: Settings, alone: Questions
) -> None:
    book = Book()
    paths = ("/v1/users", "/v1/stats")
    async with projecting(alone, settings):
        for _ in range(3):
            wanted = str(alone.position + 1)
            recording = asyncio.create_task(_soon(alone, book))
            for path in paths:
                assert (await alone.ask(path, daybook_min_position=wanted)).status_code == 200
            await recording
    await alone.stores.redis.flushdb()
    await alone.stores.mongo.client.drop_database(settings.mongo_database)
    for path in paths:
        answer = await alone.ask(path, prefer="wait=1, handling=strict")
        assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
    async with projecting(alone, settings):
        for path in paths:
            assert (await alone.ask(path)).status_code == 200
    assert len((await Reader(*alone.stores[:3], settings).look_in_mongo(USERS, "main", [{"$match": {}}])).data) == 3
