"""The simulated machine: command APIs, workers, stores and clients, and a nemesis that strikes them, all by one seed."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec
from pymongo.errors import PyMongoError
from redis.exceptions import ConnectionError as RedisConnectionError

from command_api.domain.stream_folds import fold_of
from command_api.due_runs import make_due_runs
from command_api.expired_holds import record_expired_holds
from command_api.writer.command_request import CommandRequest, Reply
from command_api.writer.handover import Handover
from command_api.writer.ledger_writer import CommandHandler
from command_api.writer.wake_up import Waker
from projector.due import EXPIRED_HOLDS, SCHEDULED_RUNS, DueTeller
from projector.feed import Feed
from projector.generations.generations import Generations
from projector.generations.rebuild import rebuild
from projector.live_workers import ALIVE_KEY
from projector.projections.balances import BALANCES_PROJECTION
from projector.projections.holds import HOLDS_PROJECTION
from projector.projections.projection import Projection
from projector.projections.schedules import SCHEDULES_PROJECTION
from projector.runner import Runner
from shared.log.account_events import AccountOpened
from shared.log.append import NewEvent, StreamEvent, prepare_append
from shared.log.events import Event
from shared.log.heads import Head
from shared.log.money_events import FundsDeposited
from shared.log.snapshots import make_head
from shared.privacy.person_keys import PersonKeys
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DUE_RUNS_CHANNEL, DueHolds, DueRun, DueRuns
from shared.settings import Settings
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from tests.harness.log import MASTER_KEY
from tests.simulation.memory_log import LEDGER, NEW_YEAR, Fence, MemoryLog, Tables
from tests.simulation.memory_postgres import MemoryEngine, MemoryServer
from tests.simulation.memory_read_models import MemoryMongo, MemorySink, MemoryStore, make_memory_sinks
from tests.simulation.memory_sockets import SOCKET_FOLDER, MemorySockets
from tests.simulation.virtual_time import Process, VirtualLoop, run_virtually
from tests.simulation.weather import Weather

ACCOUNTS: Final = tuple(str(UUID(int=number)) for number in (1, 2, 3))
FIRST_BALANCE: Final = 300
"""Of each account, in minor units. Small, so that money runs out."""
PROJECTIONS: Final[tuple[Projection[Any], ...]] = (BALANCES_PROJECTION, HOLDS_PROJECTION, SCHEDULES_PROJECTION)
SETTINGS: Final = Settings(
    database_url="",
    mongo_url="",
    redis_url="",
    secret="x" * 32,
    master_keys=MASTER_KEY,
    command_deadline_ms=3_000,
    batch_commands_max=4,
    projector_look_ms=2_000,
    projector_batch_events_max=3,
)
DUE_SECONDS: Final = 1.5
STRUCK_SECONDS: Final = 2.0
SETTLED_SECONDS_MAX: Final = 120.0
"""Virtual seconds until everything must be as it should after the last fault. The product's own pauses grow up to 60 s."""


class Plant(msgspec.Struct, frozen=True):
    """A bug to plant in the models of the stores."""

    unique_keys: bool = True
    fence: Fence = "head"
    sink: Callable[[MemoryStore], MemorySink] = MemorySink


def _first_tables() -> Tables:
    """Returns a log in which each account was opened and has money."""
    tables = Tables()
    events: list[Event] = []
    for account_id in ACCOUNTS:
        events.append(AccountOpened(account_id=account_id, owner_id=account_id, currency="EUR", overdraft_limit=0))
        money: dict[str, Any] = {"amount": FIRST_BALANCE, "balance": FIRST_BALANCE, "currency": "EUR"}
        events.append(FundsDeposited(transfer_id=account_id, account_id=account_id, **money))
    new, members, states = [], [], dict[str, tuple[int, int, Any]]()
    for position, event in enumerate(events, 1):
        new.append(NewEvent(str(UUID(int=position)), event, {}))
        for stream_id in event.streams():
            fold = fold_of(stream_id)
            version, _, state = states.get(stream_id, (0, 0, fold.initial))
            states[stream_id] = version + 1, position, fold.evolve(state, event)
            members.append(StreamEvent(stream_id, version + 1, position))
    stream_heads = [
        make_head(fold_of(stream_id), LEDGER, stream_id, version, position, state, {})
        for stream_id, (version, position, state) in states.items()
    ]
    tables.append_first(prepare_append(LEDGER, Head(0, b"", NEW_YEAR), new, members, stream_heads, [], {}))
    return tables


FIRST_TABLES: Final = _first_tables()


class Replica:
    """One process of the command API, without HTTP. If the world has a handover, it hands its commands to the one that writes."""

    def __init__(self, world: "World", number: int) -> None:
        self.process = Process(f"command API {number}")
        self._world = world
        self._handler: CommandHandler | None = None
        self._handover: Handover | None = None
        self.process.start(self._run())

    async def _run(self) -> None:
        redis: Any = self._world.redis
        waker = Waker(redis, SETTINGS.wake_timeout_ms)
        engine: Any = MemoryEngine(self._world.postgres)
        if self._world.has_handover:
            self._handover = Handover(engine, SOCKET_FOLDER)
        handler = CommandHandler(engine, SETTINGS, waker.wake, self._handover)
        if self._handover:
            await self._handover.start(handler.accept)
        self._handler = handler
        await asyncio.gather(make_due_runs(redis, self._handler), record_expired_holds(redis, self._handler))

    async def stop(self) -> None:
        """Ends as the command API does: it takes no more requests, lets another process write, and answers what it has taken."""
        handler, self._handler = self._handler, None
        if handler and self._handover:
            await self._handover.resign()
            await handler.close()
            await self._handover.close()

    def ask(self, request: CommandRequest) -> "asyncio.Future[Reply]":
        """Sends a request. If the process dies, there is no reply."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.process.start(self._answer(request, reply))
        return reply

    async def _answer(self, request: CommandRequest, reply: "asyncio.Future[Reply]") -> None:
        weather = self._world.weather
        await weather.travel()
        if self._handler is None:
            return
        try:
            [answer] = await self._handler.handle(LEDGER, [request])
        except Exception as error:  # noqa: BLE001 # what HTTP would make a problem of
            outcome: Reply | Exception = error
        else:
            outcome = answer
        await weather.travel()
        if weather.loss() != "none" or reply.done():
            return
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)


class SimulatedWorker:
    """One worker: the runner of the read models, and the finder of what is due."""

    def __init__(self, world: "World", number: int) -> None:
        self.process = Process(f"worker {number}")
        self._world = world
        # In every other history each worker takes itself for the only one, so that they get in each other's way.
        self._alive_key = ALIVE_KEY if world.shares_ledgers else str(number)
        self.process.start(self._run())

    async def _run(self) -> None:
        world = self._world
        engine: Any = MemoryEngine(world.postgres)
        mongo: Any = MemoryMongo(world.mongo)
        redis: Any = world.redis
        sinks: Any = {"mongo": world.plant.sink(world.mongo), "redis": world.plant.sink(world.redis)}
        stores = Stores(engine, mongo, redis, {})
        runner = Runner(stores, SETTINGS, PROJECTIONS, sinks, alive_key=self._alive_key)
        await asyncio.gather(runner.run(), self._find_due(stores))

    async def _find_due(self, stores: Stores) -> None:
        tellers = DueTeller(EXPIRED_HOLDS), DueTeller(SCHEDULED_RUNS)
        while True:
            await asyncio.sleep(DUE_SECONDS)
            for teller in tellers:
                await teller.tell(stores)


class Messenger:
    """Stands for workers in histories without any: names everything that may be due, too early, too late and twice."""

    def __init__(self, world: "World") -> None:
        self.process = Process("messenger")
        self._world = world
        self.process.start(self._run())

    async def _run(self) -> None:
        world = self._world
        while True:
            await asyncio.sleep(world.random.uniform(0.5, 2.5))
            streams = list(world.log.tables.streams)
            holds = [stream_id.removeprefix("hold-") for stream_id in streams if stream_id.startswith("hold-")]
            schedules = [stream_id.removeprefix("schedule-") for stream_id in streams if stream_id.startswith("schedule-")]
            with suppress(RedisConnectionError):
                if holds:
                    await world.redis.publish(DUE_HOLDS_CHANNEL, msgspec.json.encode(DueHolds(LEDGER, holds)))
                if schedules:
                    runs = [DueRun("", schedule_id, 1) for schedule_id in schedules]
                    await world.redis.publish(DUE_RUNS_CHANNEL, msgspec.json.encode(DueRuns(LEDGER, runs)))


class World:
    """Everything of one history. Without workers it costs much less, so most histories have none."""

    def __init__(self, seed: int, loop: VirtualLoop, plant: Plant, *, has_workers: bool, has_handover: bool) -> None:
        self.random = Random(seed)
        self.loop = loop
        self.plant = plant
        self.has_handover = has_handover
        self.shares_ledgers = seed % 2 == 0
        self.weather = Weather(self.random)
        self.sockets = loop.sockets = MemorySockets(self.weather)
        self.postgres = MemoryServer(FIRST_TABLES.copy(), self.weather, unique_keys=plant.unique_keys, fence=plant.fence)
        self.mongo, self.redis = make_memory_sinks(self.weather)
        self.replicas = [Replica(self, number) for number in (1, 2)]
        self.workers = [SimulatedWorker(self, number) for number in (1, 2)] if has_workers else []
        self.messenger = None if has_workers else Messenger(self)
        self.strikes = 0

    @property
    def log(self) -> MemoryLog:
        return self.postgres.log

    def new_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128)))

    def any_replica(self) -> Replica:
        return self.random.choice(self.replicas)

    # ── the nemesis ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def strike(self) -> None:
        """Strikes parts in random order, also several at once, until the time is over. Then every part runs again."""
        end = self.loop.time() + STRUCK_SECONDS
        stores: list[MemoryServer | MemoryStore] = [self.postgres, self.redis]
        targets: list[Callable[[], Coroutine[Any, Any, None]]] = [partial(self._strike_store, store) for store in stores]
        targets.append(self._strike_replica)
        if self.has_handover:
            targets += [self._freeze_replica, self._stop_replica]
        if self.workers:
            targets += [self._strike_worker, self._strike_rebuild, partial(self._strike_store, self.mongo)]
        mending = []
        while self.loop.time() < end:
            await asyncio.sleep(self.random.expovariate(1 / 0.6))
            mending.append(asyncio.create_task(self.random.choice(targets)()))
            self.strikes += 1
        await asyncio.gather(*mending)
        self.weather.rough = False

    async def _strike_replica(self) -> None:
        await self._kill_replica(self.random.randrange(len(self.replicas)))

    async def _kill_replica(self, place: int) -> None:
        self.loop.kill(self.replicas[place].process)
        await self._outage()
        if not self.replicas[place].process.alive:
            self.replicas[place] = Replica(self, place + 1)

    async def _freeze_replica(self) -> None:
        """Freezes a process, often for longer than its lease lasts. It does not know that when it goes on."""
        process = self.random.choice(self.replicas).process
        self.loop.freeze(process)
        await self._outage()
        self.loop.thaw(process)

    async def _stop_replica(self) -> None:
        """Asks a process to end, and kills it if that takes long."""
        place = self.random.randrange(len(self.replicas))
        replica = self.replicas[place]
        replica.process.start(replica.stop())
        await self._outage()
        if self.replicas[place] is replica:
            await self._kill_replica(place)

    async def _strike_worker(self) -> None:
        place = self.random.randrange(len(self.workers))
        self.loop.kill(self.workers[place].process)
        await self._outage()
        if not self.workers[place].process.alive:
            self.workers[place] = SimulatedWorker(self, place + 1)

    async def _strike_rebuild(self) -> None:
        """Begins to rebuild a read model beside the workers, and kills the rebuild if it takes long. Nobody goes on with it."""
        rebuilding = Process("rebuild")
        rebuilding.start(self._rebuild(self.random.choice(PROJECTIONS)))
        await self._outage()
        self.loop.kill(rebuilding)

    async def _rebuild(self, projection: Projection[Any]) -> None:
        engine: Any = MemoryEngine(self.postgres)
        sink = self.plant.sink(self.mongo if projection.model.store == "mongo" else self.redis)
        with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            await rebuild(Generations(projection, sink, Feed(engine, LEDGER, PersonKeys(SETTINGS))), lambda _: None)

    async def _strike_store(self, store: MemoryServer | MemoryStore) -> None:
        store.crash(self.loop)
        await self._outage()
        if not store.process.alive:
            store.restart()

    async def _outage(self) -> None:
        await asyncio.sleep(self.random.uniform(0.05, 1.5))


def simulate(
    seed: int, live: Callable[["World"], Awaitable[None]], plant: Plant, *, has_workers: bool, has_handover: bool
) -> None:
    """Runs one history. `live` uses the world, and raises if the history breaks a promise."""
    random.seed(seed)  # for the product's own pauses

    async def main(loop: VirtualLoop) -> None:
        await live(World(seed, loop, plant, has_workers=has_workers, has_handover=has_handover))

    run_virtually(main, STRUCK_SECONDS + 2 * SETTLED_SECONDS_MAX)
