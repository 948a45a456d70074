"""Workers die and freeze at every await of the projecting path, and what they leave is what one worker in peace would have made.

`make prove` does it with 20 seeds, and excuses no point that was not come to.
"""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo.errors import ExecutionTimeout, NetworkTimeout

from projector.dead_letters import DeadLetterTracker
from projector.projections.registry import PROJECTIONS
from projector.sinks.protocols import TOGETHER_CHANGES_MAX, Step, StepDeadLetters
from projector.sinks.registry import make_sinks
from projector.verify.read_models import verify_read_model
from shared.errors import Rebuilding
from shared.log.read import read_all
from shared.read_models.channels import WAKE_CHANNEL
from shared.read_models.dead_letters import DeadLetterSummary, read_dead_letter_summary, read_dead_letters, read_parked_streams
from shared.settings import Settings
from tests.harness.await_points import Moment, Point
from tests.harness.log import Book
from tests.harness.mortal_workers import POISON, POISONED_EVERY, Fate, poisoned
from tests.harness.nursery import Nursery, meanwhile, nursery
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.projecting_points import END_ABANDONED, following_points, parking_points

pytestmark = pytest.mark.services

SEEDS: Final = (1, 20)
MISSED_MAX: Final = 0.3
"""The share of points that a busy machine may miss, because some of them last only for an instant. `make prove` allows none."""

SHORT_SHARE: Final = 4
"""The short form of the proof takes one of so many points, chosen by the seed."""

SHORT_PARKING_SHARE: Final = 2
"""The same for the points that only a worker with dead letters reaches, which are few."""

WORKERS: Final = 3
LATE_SECONDS: Final = 0.004
LONG_LOG_EVENTS: Final = 2_000
START_SECONDS: Final = 30.0
LIFE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 1.0
"""How long a worker lives for one point, before any other that is wanted will do."""
CHANCES: Final = 10
DAY_SECONDS: Final = 86_400
FROZEN_SECONDS: Final = 1.6
"""Longer than a transaction may stand idle before others end it."""

COMMANDS: Final = 5
"""Of a transaction for several read models: the checkpoints, what three of them get, and the commit."""

COMMANDS_ALONE: Final = 3
"""Of a transaction for one read model: the checkpoint, the documents, and the commit."""

INSERT: Final = Point("command", 2)
"""The command with which the transaction of one read model inserts documents."""

ALONE: Final = TOGETHER_CHANGES_MAX + 50
"""So many events come to a batch that shares its transaction with no other."""

MOMENTS: Final[tuple[Moment, ...]] = ("asleep", "awake")


async def write(ledger: Ledger, chance: random.Random) -> None:
    """Appends events all the time, and loses some of the wake-ups.

    When the log is long, it appends one event at a time. Otherwise, on a busy machine, a rebuild would never reach the head.
    """
    book, head = Book(seed=chance.random().__hash__()), 0
    while True:
        head = await ledger.append(book.history(chance.randrange(1, 30) if head < LONG_LOG_EVENTS else 1))
        if chance.random() < 0.7:
            await ledger.stores.redis.publish(WAKE_CHANNEL, "main")
        await asyncio.sleep(0.03)


async def deliver(ledger: Ledger, chance: random.Random) -> None:
    """Batches of the log straight to the stores: twice, late, out of turn and overlapping what the workers are doing."""
    sinks = make_sinks(ledger.stores)
    while True:
        projection: Any = chance.choice(PROJECTIONS)
        with suppress(Rebuilding):
            live = await ledger.live(projection.model.name)
            start = max(live.position + chance.choice((-50, -3, -1, 0, 0, 0, 1)), 0)
            async with ledger.stores.engine.connect() as connection:
                page = await read_all(connection, "main", start, chance.randrange(1, 40))
            if page:
                changes = projection.new_changes()
                projection.fold(changes, page)
                step = Step(start, page[-1].position, page[-1].hash.hex())
                for _ in range(2):
                    await sinks[projection.model.store].apply(live, step, changes)
        await asyncio.sleep(0.02)


async def lose(ledger: Ledger, chance: random.Random) -> None:
    """Read models get lost, so that new ones have to be built and made live under the workers' hands."""
    while True:
        await asyncio.sleep(0.3)
        projection = chance.choice(PROJECTIONS)
        is_lost = chance.random() < 0.5  # else it is of other code
        # Where a dead worker holds the lock, it is another read model's turn.
        with suppress(Rebuilding, ExecutionTimeout, NetworkTimeout), pymongo.timeout(0.5):
            live = await ledger.live(projection.model.name)
            checkpoints, key = ledger.stores.mongo.checkpoints, {"_id": f"main/{projection.model.name}/{live.number}"}
            if projection.model.store == "redis":
                redis: Any = ledger.stores.redis
                await (redis.delete(live.key("checkpoint")) if is_lost else redis.hset(live.key("origin"), "model_version", 99))
            elif is_lost:
                await checkpoints.delete_one(key)
            else:
                await checkpoints.update_one(key, {"$set": {"model_version": 99}})


class Reaper:
    """Has workers meet their fates, `WORKERS` at a time, until each point has been the place of one."""

    def __init__(self, workers: Nursery, chance: random.Random, points: set[Point]) -> None:
        self._workers = workers
        self._chance = chance
        self._wanted = sorted(points)
        chance.shuffle(self._wanted)
        # The points in stores come first: a worker that dies there dies in each function that waits for them, too.
        self._wanted.sort(key=lambda point: point.function.startswith(("Mongo", "Redis")))
        self._missed: dict[Point, int] = {}

    async def run(self) -> None:
        await asyncio.gather(*(self._one_after_another() for _ in range(WORKERS)))

    async def _one_after_another(self) -> None:
        while self._wanted:
            point = self._wanted.pop()
            if point in self._workers.met():
                continue
            fate = self._fate(point)
            pid = await self._workers.start(fate)
            await self._await_fate(pid)
            if fate.signal == signal.SIGSTOP:
                await asyncio.sleep(FROZEN_SECONDS)
                self._workers.signal(pid, signal.SIGCONT)
                await asyncio.sleep(self._chance.random())
            await self._workers.kill(pid)
            if point not in self._workers.met():
                self._miss(point)

    async def _await_fate(self, pid: int) -> None:
        end = time.monotonic() + START_SECONDS + LIFE_SECONDS
        while self._workers.is_going(pid) and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _fate(self, point: Point) -> Fate:
        missed = self._missed.get(point, 0)
        return Fate(
            function=point.function,
            number=point.number,
            otherwise=frozenset(self._wanted) - self._workers.met(),
            patience=PATIENCE_SECONDS,
            life=LIFE_SECONDS,
            moment="asleep" if missed else self._chance.choice(MOMENTS),
            nth=1 if missed else self._chance.choice((1, 1, 2, 3)),
            late=0.0 if missed else self._chance.choice((0.0, LATE_SECONDS)),
            signal=signal.SIGSTOP if self._chance.random() < 0.1 and not missed else signal.SIGKILL,
        )

    def _miss(self, point: Point) -> None:
        self._missed[point] = self._missed.get(point, 0) + 1
        if self._missed[point] < CHANCES:
            self._wanted.insert(0, point)


@pytest.mark.proof(*SEEDS)
async def test_workers_die_at_every_await_and_every_event_is_in_once(
    settings: Settings, tmp_path: Path, seed: int, *, proving: bool
) -> None:
    chance = random.Random(seed)
    points = following_points()
    if not proving:
        points = set(chance.sample(sorted(points), len(points) // SHORT_SHARE))
    small = settings.model_copy(update={"projector_batch_events_max": 25, "projector_look_ms": 50})
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, small) as workers:
            traffic = [work(ledger, random.Random(chance.random())) for work in (write, deliver, lose)]
            async with meanwhile(*traffic):
                await Reaper(workers, chance, points).run()
            head = await ledger.append(Book(seed=seed).history(50))
            await workers.start(Fate())
            await ledger.caught_up(head)
            assert not await ledger.troubles()
        unmet = points - workers.met()
        assert len(unmet) <= (0 if proving else MISSED_MAX * len(points)), (
            f"{len(unmet)} of {len(points)} never reached: {sorted(map(str, unmet))}"
        )
        assert await ledger.digests() == await ledger.rebuilt()


async def write_apart(ledger: Ledger) -> None:
    """Accounts that never meet: what one of them parks, parks no other."""
    book = Book()
    while True:
        user = book.create_user()
        account = book.open_account(user.user_id)
        head = await ledger.append([user, account, *(book.deposit(account.account_id, 1) for _ in range(5))])
        # As above: each dead letter takes attempts with pauses, so a long log with many of them takes minutes to apply.
        await asyncio.sleep(0.02 if head < LONG_LOG_EVENTS else 0.5)


async def expected_aside(ledger: Ledger, projection: Any) -> tuple[list[int], dict[str, int], int]:
    """Letters, parked streams, and how many events are put aside, as the log alone tells."""
    feed = ledger.generations(projection.name).feed
    head, position, log_hash = await feed.refresh(), 0, b""
    letters: list[int] = []
    parking, noted = DeadLetterTracker(), StepDeadLetters()
    while position < head:
        page = await feed.next_events(position, log_hash, feed)
        for event in page:
            if (
                event.position % POISONED_EVERY == 0
                and parking.sift(projection, [event], StepDeadLetters())
                and type(event.event) in projection.handles
            ):
                letters.append(event.position)
                parking.letters.add(event.position)
            parking.sift(projection, [event], noted)
            parking.settle(noted)
        position, log_hash = page[-1].position, page[-1].hash
    return letters, noted.parked, noted.put_aside


@pytest.mark.proof(*SEEDS)
async def test_workers_die_while_they_put_events_aside_and_every_letter_is_there_once(
    settings: Settings, tmp_path: Path, seed: int, *, proving: bool
) -> None:
    chance = random.Random(seed)
    points = parking_points()
    if not proving:
        points = set(chance.sample(sorted(points), len(points) // SHORT_PARKING_SHARE))
    quick = {
        "projector_batch_events_max": 25,
        "projector_look_ms": 50,
        "projector_attempts_max": 2,
        "projector_dead_letters_max": 100_000,
    }
    small = settings.model_copy(update=quick)
    models = poisoned(POISONED_EVERY)
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, small, **{POISON: "1"}) as workers:
            async with meanwhile(write_apart(ledger)):
                await Reaper(workers, chance, points).run()
            head = await ledger.append([Book(seed=seed).create_user()])
            await workers.start(Fate())
            await ledger.caught_up(head)
        unmet = points - workers.met()
        assert len(unmet) <= (0 if proving else MISSED_MAX * len(points)), (
            f"{len(unmet)} of {len(points)} never reached: {sorted(map(str, unmet))}"
        )
        for projection in models:
            live = await ledger.live(projection.name)
            letters, parked, put_aside = (
                await expected_aside(ledger, projection) if projection.name in {"accounts", "balances"} else ([], {}, 0)
            )
            stores = ledger.stores.mongo, ledger.stores.redis
            assert [letter.position for letter in await read_dead_letters(*stores, live)] == letters
            assert await read_parked_streams(*stores, live) == parked
            assert await read_dead_letter_summary(*stores, live) == DeadLetterSummary(len(letters), len(parked), put_aside)
            assert bool(letters) == (projection.name in {"accounts", "balances"})
            await verify_read_model(ledger.stores, projection, ledger.generations(projection.name).feed, lambda _: None)


@asynccontextmanager
async def transactions_that_last(ledger: Ledger, seconds: int) -> AsyncIterator[None]:
    """MongoDB ends no transaction before this time."""
    admin, limit = ledger.stores.mongo.client.admin, "transactionLifetimeLimitSeconds"
    before = await admin.command({"setParameter": 1, limit: seconds})
    try:
        yield
    finally:
        await admin.command({"setParameter": 1, limit: before["was"]})


@pytest.mark.slow
async def test_a_replaced_worker_goes_on_before_mongodb_would_let_it(settings: Settings, tmp_path: Path) -> None:
    """A worker that dies within a transaction leaves its locks behind. Here, MongoDB itself would keep them for a day."""
    async with open_ledger(settings) as ledger, transactions_that_last(ledger, DAY_SECONDS):
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=1)
            for moment in MOMENTS:
                pid = await workers.start(Fate(command=INSERT.number, alone=True, moment=moment, nth=2))
                async with meanwhile(_trickle(ledger, book, ALONE)):
                    await eventually(partial(_ended, workers, pid))
                other = await workers.start(Fate())
                await ledger.caught_up(await ledger.append(book.history(5)))
                await workers.kill(other)


@pytest.mark.slow
async def test_who_ends_the_transaction_of_a_frozen_worker_may_die_of_it(settings: Settings, tmp_path: Path) -> None:
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=2)
            frozen = await workers.start(Fate(command=INSERT.number, alone=True, nth=3, signal=signal.SIGSTOP))
            async with meanwhile(_trickle(ledger, book, ALONE)):
                await eventually(partial(_met, workers, INSERT))
            for moment in MOMENTS:
                pid = await workers.start(Fate(*END_ABANDONED, moment=moment))
                head = await ledger.append(book.history(200))
                await eventually(partial(_ended_or_done, workers, pid, ledger, head))
            await workers.start(Fate())
            await ledger.caught_up(head)
            workers.signal(frozen, signal.SIGCONT)
            head = await ledger.append(book.history(200))
            await ledger.caught_up(head)
            assert END_ABANDONED in workers.met()
        assert await ledger.digests() == await ledger.rebuilt()


@pytest.mark.slow
@pytest.mark.parametrize(("commands", "alone"), [(COMMANDS, False), (COMMANDS_ALONE, True)], ids=["several read models", "one"])
async def test_workers_die_within_transactions(settings: Settings, tmp_path: Path, commands: int, *, alone: bool) -> None:
    """These are written in a thread, command by command, and so have no place of their own among those above."""
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=3)
            await ledger.append(book.history(30))
            await ledger.build()
            for command in range(1, commands + 1):
                for moment in MOMENTS:
                    pid = await workers.start(Fate(command=command, alone=alone, moment=moment))
                    async with meanwhile(_trickle(ledger, book, ALONE if alone else 2)):
                        await eventually(partial(_ended, workers, pid))
            other = await workers.start(Fate())
            await ledger.caught_up(await ledger.append(book.history(5)))
            assert not await ledger.troubles()
            assert workers.met() == {Point("command", command) for command in range(1, commands + 1)}
            await workers.kill(other)
        assert await ledger.digests() == await ledger.rebuilt()


async def _trickle(ledger: Ledger, book: Book, events: int) -> None:
    while True:
        await ledger.append(book.history(events))
        await ledger.stores.redis.publish(WAKE_CHANNEL, "main")
        await asyncio.sleep(0.02)


async def _met(workers: Nursery, point: Point) -> bool:
    return point in workers.met()


async def _ended_or_done(workers: Nursery, pid: int, ledger: Ledger, head: int) -> bool:
    """The transaction was ended by the one before, after all."""
    return not workers.is_alive(pid) or set((await ledger.positions()).values()) == {head}


async def _ended(workers: Nursery, pid: int) -> bool:
    return not workers.is_alive(pid)
