"""Workers die and freeze at every await of the projecting path, and what they leave is what one worker in peace would have made.

`PROVING_SEEDS=20` in the environment does it with more seeds than one, and excuses no place that was not come to.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable
from typing import Any, Final

import msgspec
import pymongo
import pytest
from pymongo.errors import ExecutionTimeout, NetworkTimeout

from projector.dead_letters import Parking, PutAside
from projector.projections import PROJECTIONS
from projector.sinks import TOGETHER_CHANGES_MAX, Step, make_sinks
from projector.verify_read_models import verify_read_model
from shared.dead_letters import Aside, read_aside, read_letters, read_parked
from shared.errors import Rebuilding
from shared.event_store import read_all
from shared.read_models import WAKE_CHANNEL
from shared.settings import Settings
from tests.await_points import Moment, Point, points_of
from tests.log import Book
from tests.mortal_workers import PATH, POISON, POISONED_EVERY, Fate, poisoned
from tests.projecting import Ledger, eventually, open_ledger
from tests.running import environment_of

pytestmark = pytest.mark.services

SEEDS: Final = range(1, 1 + int(os.environ.get("PROVING_SEEDS", "1")))
MISSED_MAX: Final = 0 if "PROVING_SEEDS" in os.environ else 0.05
"""The share of places that a busy machine may not come to: some there are only for an instant."""

WORKERS: Final = 3
LATE_SECONDS: Final = 0.004
LIFE_SECONDS: Final = 6.0
CHANCES: Final = 10
FROZEN_SECONDS: Final = 1.6
"""Longer than a transaction may stand idle before others end it."""

ELSEWHERE: Final = frozenset(
    {
        # Asked by `verify`, by queries and by rebuilds that a person starts.
        *("digest", "content", "read_keys", "key_names", "read_position", "open_new"),
        # What an operator does: see test_operating.
        *("roll_back", "drop_kept", "reopen", "pause", "resume", "_set_paused", "labels", "forget"),
        # What is compared before a switch is only read; who dies meanwhile does so within `Generations.finish`, which is here.
        *("at", "streams", "count_types", "count", "sample", "pick"),
        # Where a projection fails, which none does here.
        *("note", "check", "read_letters", "read_parked", "_put_aside", "_give_up"),
    }
)
PARKING: Final = frozenset(
    {
        "letters = await self._sink.read_letters(self.generation)",
        "parked = await self._sink.read_parked(self.generation)",
        "await self._put_aside(refused, self._parking)",
        "await self._sink.check(self.generation, step, changes)",
        "await self._write(event, aside, self._projection.new_changes())",
        "await collection.insert_many(documents, session=session)",
        "await self._put_aside(generation, step.aside, session)",
        'if flaw := await self._check(keys=[generation.key("checkpoint")], args=arguments):',
        "return await letters_in_mongo(self._mongo, generation)",
        "return await parked_in_mongo(self._mongo, generation)",
        "return await letters_in_redis(self._redis, generation)",
        "return await parked_in_redis(self._redis, generation)",
        "await self._troubles.note(self._model, self._feed.ledger_id, self._position, error)",
        "await _wait(self._stopping, seconds)",
    }
)
"""Where a worker is that puts events aside."""

NOT_HERE: Final = frozenset(
    {
        *PARKING,
        # Where an operator has paused it.
        "await _wait(self._stopping, PAUSED_SECONDS)",
        # Where an operator asks for more, or what was built is wrong.
        "await check(copy.generation, found)",
        "await self._give_up(pointer)",
        # In the instant between two looks at the head.
        "elif after < head and after < await self.refresh():",
        # These have a test of their own.
        'await admin.command("killSessions", [{"id": idle["lsid"]["id"]}])',
        "async for idle in admin.aggregate(pipeline):",
        "await self._end_abandoned_transactions()",
        "await self._after_refusal(checkpoint_id(generation), step.before)",
        # These never wait.
        "async with self._redis.pipeline(transaction=True) as pipe:",
        "async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:",
        "async with asyncio.TaskGroup() as tasks:",
        "async with asyncio.timeout(left):",
        "async with asyncio.timeout(seconds):",
        "async with self._redis.pipeline(transaction=False) as pipe:",
        "async with self._listening:",
        # Where a worker is told to end, which none is here.
        "await self._telling.close()",
        "await feed.close()",
        "await self._kept.release()",
        # Where Redis does not know a script: before the first batch.
        "await self._redis.script_load(_APPLY)",
        "return await self._call(calls)",
        # Where Redis is away.
        "await asyncio.sleep(self._look_seconds)",
        # Where one read model is thousands of events behind another.
        "await asyncio.sleep(LOOK_SECONDS)",
    }
)


COMMANDS: Final = 5
"""Of a transaction for several read models: the checkpoints, what three of them get, and the commit."""

ALONE: Final = TOGETHER_CHANGES_MAX + 50
"""So many events come to a batch that shares its transaction with no other."""

MOMENTS: Final[tuple[Moment, ...]] = ("asleep", "awake")

WRITING: Final = "await collection.insert_many(changes.inserted"
"""In a transaction."""


class Nursery:
    """Starts workers with a fate, and knows which fates were met."""

    def __init__(self, folder: Path, settings: Settings, **more: str) -> None:
        self._met = folder / "met"
        self._log = (folder / "workers.log").open("wb")
        command = [executable, "-m", "tests.mortal_workers", str(self._met)]
        environment = os.environ | environment_of(settings) | more
        self._parent = Popen(command, stdin=PIPE, stdout=PIPE, stderr=self._log, env=environment)
        self._pids: set[int] = set()
        self._asking = asyncio.Lock()

    async def start(self, fate: Fate) -> int:
        async with self._asking:
            return await asyncio.to_thread(self._start, fate)

    def _start(self, fate: Fate) -> int:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.write(msgspec.json.encode(fate) + b"\n")
        self._parent.stdin.flush()
        pid = int(self._parent.stdout.readline())
        self._pids.add(pid)
        return pid

    def met(self) -> set[Point]:
        """Where workers died or froze."""
        lines = self._met.read_text().splitlines() if self._met.exists() else []
        return {Point(file, int(line)) for file, _, line in (line.partition(":") for line in lines)}

    def met_count(self) -> int:
        return self._met.stat().st_size if self._met.exists() else 0

    def is_alive(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        self._pids.discard(pid)
        return False

    async def kill(self, pid: int) -> None:
        self.signal(pid, signal.SIGKILL)
        while self.is_alive(pid):
            await asyncio.sleep(0.005)

    def signal(self, pid: int, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def close(self) -> None:
        for pid in self._pids:
            self.signal(pid, signal.SIGKILL)
        self._parent.kill()
        self._parent.wait()
        for pipe in (self._parent.stdin, self._parent.stdout):
            assert pipe
            pipe.close()
        self._log.close()


@contextmanager
def nursery(folder: Path, settings: Settings, **more: str) -> Iterator[Nursery]:
    """`more` are environment variables on top of the settings."""
    opened = Nursery(folder, settings, **more)
    try:
        yield opened
    finally:
        opened.close()


@asynccontextmanager
async def meanwhile(*coroutines: Any) -> AsyncIterator[None]:
    """They run as long as the block does; if one fails, so does the test."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        running = set(tasks)
        while running:
            # More than once: a driver may take a cancellation for the end of its own time.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=1)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        assert isinstance(result, asyncio.CancelledError), result


async def write(ledger: Ledger, chance: random.Random) -> None:
    """Traffic, of which some wake-ups are lost."""
    book = Book(seed=chance.random().__hash__())
    while True:
        await ledger.append(book.history(chance.randrange(1, 30)))
        if chance.random() < 0.7:
            await ledger.stores.redis.publish(WAKE_CHANNEL, "main")
        await asyncio.sleep(0.03)


async def deliver(ledger: Ledger, chance: random.Random) -> None:
    """Batches of the log straight to the stores: twice, late, out of turn and overlapping what the workers are doing."""
    sinks = make_sinks(ledger.stores.mongo, ledger.stores.redis)
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
    """Has workers meet their fates, `WORKERS` at a time, until every point was one."""

    def __init__(self, workers: Nursery, chance: random.Random, points: set[Point]) -> None:
        self._workers = workers
        self._chance = chance
        self._wanted = sorted(points)
        chance.shuffle(self._wanted)
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
            if fate.signal == signal.SIGSTOP:
                await self._freeze(pid, point)
            else:
                await self._await_end(pid)
            await self._workers.kill(pid)
            if point not in self._workers.met():
                self._miss(point)

    async def _await_end(self, pid: int) -> None:
        end = time.monotonic() + LIFE_SECONDS
        while self._workers.is_alive(pid) and time.monotonic() < end:
            await asyncio.sleep(0.01)

    async def _freeze(self, pid: int, point: Point) -> None:
        end = time.monotonic() + LIFE_SECONDS
        while point not in self._workers.met() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await asyncio.sleep(FROZEN_SECONDS)
        self._workers.signal(pid, signal.SIGCONT)
        await asyncio.sleep(self._chance.random())

    def _fate(self, point: Point) -> Fate:
        missed = self._missed.get(point, 0)
        return Fate(
            file=point.file,
            line=point.line,
            moment="asleep" if missed else self._chance.choice(("asleep", "awake")),
            nth=1 if missed else self._chance.choice((1, 1, 2, 3)),
            late=0.0 if missed else self._chance.choice((0.0, LATE_SECONDS)),
            signal=signal.SIGSTOP if self._chance.random() < 0.1 and not missed else signal.SIGKILL,
        )

    def _miss(self, point: Point) -> None:
        self._missed[point] = self._missed.get(point, 0) + 1
        if self._missed[point] < CHANCES:
            self._wanted.insert(0, point)


@pytest.mark.parametrize("seed", SEEDS)
async def test_workers_die_at_every_await_and_every_event_is_in_once(settings: Settings, tmp_path: Path, seed: int) -> None:
    points = {point for point in points_of(PATH, ELSEWHERE) if _source(point) not in NOT_HERE}
    chance = random.Random(seed)
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
        assert len(unmet) <= MISSED_MAX * len(points), (
            f"{len(unmet)} of {len(points)} never reached: {sorted(map(_source, unmet))}"
        )
        assert await ledger.digests() == await ledger.rebuilt()


async def write_apart(ledger: Ledger) -> None:
    """Accounts that never meet: what one of them parks, parks no other."""
    book = Book()
    while True:
        user = book.create_user()
        account = book.open_account(user.user_id)
        await ledger.append([user, account, *(book.deposit(account.account_id, 1) for _ in range(5))])
        await asyncio.sleep(0.02)


async def expected_aside(ledger: Ledger, projection: Any) -> tuple[list[int], dict[str, int], int]:
    """Letters, parked streams, and how many events are put aside, as the log alone tells."""
    feed = ledger.generations(projection.name).feed
    head, position, log_hash = await feed.refresh(), 0, b""
    letters: list[int] = []
    parking, noted = Parking(), PutAside()
    while position < head:
        page = await feed.page(position, log_hash, feed)
        for event in page:
            if (
                event.position % POISONED_EVERY == 0
                and parking.sift(projection, [event], PutAside())
                and type(event.event) in projection.handles
            ):
                letters.append(event.position)
                parking.letters.add(event.position)
            parking.sift(projection, [event], noted)
            parking.settle(noted)
        position, log_hash = page[-1].position, page[-1].hash
    return letters, noted.parked, noted.put_aside


@pytest.mark.parametrize("seed", SEEDS)
async def test_workers_die_while_they_put_events_aside_and_every_letter_is_there_once(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    points = {point for point in points_of(PATH) if _source(point) in PARKING}
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
                await Reaper(workers, random.Random(seed), points).run()
            head = await ledger.append([Book(seed=seed).create_user()])
            await workers.start(Fate())
            await ledger.caught_up(head)
        unmet = points - workers.met()
        assert len(unmet) <= MISSED_MAX * len(points), (
            f"{len(unmet)} of {len(points)} never reached: {sorted(map(_source, unmet))}"
        )
        for projection in models:
            live = await ledger.live(projection.name)
            letters, parked, put_aside = (
                await expected_aside(ledger, projection) if projection.name in {"accounts", "balances"} else ([], {}, 0)
            )
            stores = ledger.stores.mongo, ledger.stores.redis
            assert [letter.position for letter in await read_letters(*stores, live)] == letters
            assert await read_parked(*stores, live) == parked
            assert await read_aside(*stores, live) == Aside(len(letters), len(parked), put_aside)
            assert bool(letters) == (projection.name in {"accounts", "balances"})
            await verify_read_model(ledger.stores, projection, ledger.generations(projection.name).feed, lambda _: None)


async def test_a_replaced_worker_goes_on_long_before_mongodb_would_let_it(settings: Settings, tmp_path: Path) -> None:
    """A worker that dies within a transaction leaves its locks behind; MongoDB itself keeps them for a minute."""
    write_line = next(point for point in points_of(PATH) if _source(point).startswith(WRITING))
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=1)
            for moment in MOMENTS:
                pid = await workers.start(Fate(*write_line, moment=moment, nth=2))
                async with meanwhile(_trickle(ledger, book, ALONE)):
                    await eventually(partial(_ended, workers, pid))
                died = time.monotonic()
                other = await workers.start(Fate())
                await ledger.caught_up(await ledger.append(book.history(5)))
                gone_on = time.monotonic() - died
                limit = await ledger.stores.mongo.client.admin.command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
                assert gone_on < limit["transactionLifetimeLimitSeconds"] / 2
                await workers.kill(other)


async def test_who_ends_the_transaction_of_a_frozen_worker_may_die_of_it(settings: Settings, tmp_path: Path) -> None:
    points = {_source(point): point for point in points_of(PATH)}
    write_line = next(point for source, point in points.items() if source.startswith(WRITING))
    kill_line = next(point for source, point in points.items() if source.startswith("await admin.command("))
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=2)
            frozen = await workers.start(Fate(*write_line, nth=3, signal=signal.SIGSTOP))
            async with meanwhile(_trickle(ledger, book, ALONE)):
                await eventually(partial(_met, workers, write_line))
            for moment in MOMENTS:
                pid = await workers.start(Fate(*kill_line, moment=moment))
                head = await ledger.append(book.history(200))
                await eventually(partial(_ended_or_done, workers, pid, ledger, head))
            await workers.start(Fate())
            await ledger.caught_up(head)
            workers.signal(frozen, signal.SIGCONT)
            head = await ledger.append(book.history(200))
            await ledger.caught_up(head)
            assert kill_line in workers.met()
        assert await ledger.digests() == await ledger.rebuilt()


async def test_workers_die_within_transactions_of_several_read_models(settings: Settings, tmp_path: Path) -> None:
    """These are written in a thread, command by command, and so have no place of their own among those above."""
    async with open_ledger(settings) as ledger:
        with nursery(tmp_path, settings) as workers:
            book = Book(seed=3)
            await ledger.append(book.history(30))
            await ledger.build()
            for command in range(1, COMMANDS + 1):
                for moment in MOMENTS:
                    pid = await workers.start(Fate(command=command, moment=moment))
                    async with meanwhile(_trickle(ledger, book, 2)):
                        await eventually(partial(_ended, workers, pid))
            other = await workers.start(Fate())
            await ledger.caught_up(await ledger.append(book.history(5)))
            assert not await ledger.troubles()
            assert workers.met() == {Point("command", command) for command in range(1, COMMANDS + 1)}
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


def _source(point: Point) -> str:
    path = next(Path(module.__file__ or "") for module in PATH if (module.__file__ or "").endswith(f"/{point.file}"))
    return path.read_text().splitlines()[point.line - 1].strip()
