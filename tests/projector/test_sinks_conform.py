"""Every sink keeps the same promises: these tests run against each store, and against each kind of database of SQL reporting.

To add a sink, add it to `SINKS`. Tests that only one store needs are in files of their own.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from projector.dead_letters import ApplyAttempts
from projector.feed import Feed
from projector.generations.build import BUILD_EVENTS_MAX, OvertakenError
from projector.generations.operations import Operations
from projector.generations.rebuild import rebuild
from projector.projections.projection import Projection
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME, projections_of
from projector.sinks.content_digest import digest
from projector.sinks.protocols import Sink, Step
from projector.sinks.registry import make_sinks
from projector.verify.difference import DifferenceFound
from projector.verify.read_models import verify_read_model
from shared.errors import ProjectionPaused, Rebuilding
from shared.log.events import RecordedEvent
from shared.read_models.generations import Generation
from shared.reporting.tables import DATA_TABLES
from shared.settings import Settings
from shared.stores.doctor import examine_as_any_role
from shared.stores.redis import servers_of
from shared.timeline.rows import key_of
from tests.harness.documents import StoredDocuments
from tests.harness.log import PERSON_KEYS, Book, recorded
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.reporting import migrate_reporting, new_database
from tests.harness.running import Servers
from tests.harness.search import empty_search, with_search
from tests.harness.timeline import empty_timeline, with_timeline

SINKS: Final = ("mongo", "redis", "redis-cluster", "sqlite", "mariadb", "postgresql", "search", "timeline")
"""MongoDB, Redis, a Redis Cluster, the databases of SQL reporting, OpenSearch, and Cassandra."""
SLOW: Final = {"search", "timeline"}
NAMES: Final = {"mongo": "users", "redis": "balances", "redis-cluster": "balances", "search": "search", "timeline": "timeline"}
"""The read model with which a sink is tested, if it is not `reports`."""
HISTORY: Final = recorded(Book(seed=3).history(60))
_NUMBERS: Final = count(1_000)


class Sunk:
    """A ledger, and a read model of it in the sink that is tested."""

    def __init__(self, ledger: Ledger, kind: str) -> None:
        self.ledger = ledger
        self.kind = kind
        self.name = NAMES.get(kind, "reports")
        self.projection: Projection[Any] = ALL_PROJECTIONS_BY_NAME[self.name]
        self.sink: Sink[Any] = make_sinks(ledger.stores)[self.projection.model.store]

    def operations(self) -> Operations:
        return Operations(self.ledger.stores, self.feed(), self.projection)

    def feed(self) -> Feed:
        return Feed(self.ledger.stores.engine, self.ledger.ledger_id, PERSON_KEYS)

    async def live_digest(self) -> str:
        return await digest(self.sink, await self.ledger.live(self.name))

    async def rebuilt_digest(self) -> str:
        return (await rebuild(self.ledger.generations(self.name), lambda _: None)).digest


@pytest_asyncio.fixture(params=[pytest.param(each, marks=pytest.mark.slow) if each in SLOW else each for each in SINKS])
async def sunk(request: pytest.FixtureRequest, settings: Settings, servers: Servers, tmp_path: Path) -> AsyncIterator[Sunk]:
    kind = request.param
    if kind not in NAMES:
        mariadb = request.getfixturevalue("mariadb") if kind == "mariadb" else None
        url = await new_database(kind, servers, mariadb, tmp_path)
        await migrate_reporting(url)
        settings = settings.model_copy(update={"reporting_url": url})
    if kind == "redis-cluster":
        settings = settings.model_copy(update={"redis_url": request.getfixturevalue("redis_cluster").url})
    if kind == "search":
        settings = with_search(settings, request.getfixturevalue("opensearch"))
    if kind == "timeline":
        settings = with_timeline(settings, request.getfixturevalue("cassandra"))
    async with open_ledger(settings) as ledger:
        yield Sunk(ledger, kind)
        if kind == "redis-cluster":
            await asyncio.gather(*(server.flushall() for server in await servers_of(ledger.stores.redis)))
        if kind == "search":
            await empty_search(ledger.stores.optional["search"])
        if kind == "timeline":
            await empty_timeline(ledger.stores.optional["timeline"])


# ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Batches:
    """Delivers parts of a fixed history straight to the sink, into a generation of their own."""

    def __init__(self, sunk: Sunk) -> None:
        self.sink, self.projection = sunk.sink, sunk.projection
        self.generation = Generation(sunk.projection.model, "main", next(_NUMBERS))

    async def prepare(self) -> "Batches":
        await self.sink.prepare(self.generation)
        before = await self.sink.read_pointer(self.projection.model, "main")
        after = msgspec.structs.replace(before, building=self.generation.number)
        assert await self.sink.move_pointer(self.projection.model, "main", before, after)
        return self

    async def deliver(self, start: int, end: int) -> bool:
        changes = self.projection.new_changes()
        self.projection.fold(changes, HISTORY[start:end])
        return await self.sink.apply(self.generation, Step(start, end, HISTORY[end - 1].hash.hex()), changes)

    async def position(self) -> int:
        checkpoint = await self.sink.read_checkpoint(self.generation)
        assert checkpoint is not None
        return checkpoint.position

    async def finished(self) -> str:
        """Delivers what is left, and returns the digest.

        A delivery that was cut off may still be on its way in the store, and then the next one is turned away once.
        """
        await eventually(self._deliver_the_rest)
        return await digest(self.sink, self.generation)

    async def _deliver_the_rest(self) -> bool:
        position = await self.position()
        return position == len(HISTORY) or await self.deliver(position, len(HISTORY))


async def test_a_batch_is_applied_once_whether_it_comes_twice_late_or_too_early(sunk: Sunk) -> None:
    batches = await Batches(sunk).prepare()
    assert await batches.deliver(0, 20)
    assert await batches.deliver(20, 40)
    before = await digest(batches.sink, batches.generation)
    for start, end in ((20, 40), (0, 20), (10, 50), (41, 60), (39, 41)):
        assert not await batches.deliver(start, end)
    assert (await batches.position(), await digest(batches.sink, batches.generation)) == (40, before)


@pytest.mark.slow
async def test_batches_cut_doubled_and_shuffled_in_any_way_make_the_same_read_model(sunk: Sunk) -> None:
    at_once = await (await Batches(sunk).prepare()).finished()
    for seed in range(4):
        chance, batches = random.Random(seed), await Batches(sunk).prepare()
        for _ in range(25):
            start = chance.choice([await batches.position(), chance.randint(0, 59)])
            if start < 60:
                await batches.deliver(start, chance.randint(start + 1, 60))
        assert await batches.finished() == at_once, f"seed {seed}"


async def test_the_same_batch_from_many_workers_at_once_is_applied_once(sunk: Sunk) -> None:
    at_once = await (await Batches(sunk).prepare()).finished()
    batches = await Batches(sunk).prepare()
    results = await asyncio.gather(*(batches.deliver(0, 60) for _ in range(6)), return_exceptions=True)
    # SQLite may turn a worker away because another one writes. The worker tries again, and finds the checkpoint moved.
    assert {True, False}.issuperset({each for each in results if not isinstance(each, SQLAlchemyError)})
    assert results.count(True) == 1
    assert await batches.finished() == at_once


@pytest.mark.slow
async def test_a_batch_that_is_cut_off_at_any_moment_is_applied_whole_or_not_at_all(sunk: Sunk) -> None:
    at_once = await (await Batches(sunk).prepare()).finished()
    for steps in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144):
        batches = await Batches(sunk).prepare()
        delivering = asyncio.create_task(batches.deliver(0, 60))
        for _ in range(steps):
            await asyncio.sleep(0)
        delivering.cancel()
        await asyncio.wait([delivering])
        assert await batches.position() in {0, 60}
        assert await batches.finished() == at_once, f"after {steps} steps"


async def test_an_empty_step_moves_the_checkpoint_alone(sunk: Sunk) -> None:
    batches = await Batches(sunk).prepare()
    assert await batches.sink.apply(batches.generation, Step(0, 7, "ab"), batches.projection.new_changes())
    assert (await batches.position(), await batches.sink.count(batches.generation)) == (7, 0)


# ── following ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_two_workers_that_follow_at_once_make_what_a_rebuild_makes(sunk: Sunk) -> None:
    book, ledger = Book(seed=5), sunk.ledger
    await ledger.append(book.history(40))
    async with ledger.followed(sunk.projection) as one, ledger.followed(sunk.projection) as other:
        for _ in range(5):
            head = await ledger.append(book.history(20))
            one.wake()
            other.wake()
        await ledger.caught_up(head, sunk.name)
    live = await sunk.live_digest()
    assert live == await sunk.rebuilt_digest()
    verified = await verify_read_model(ledger.stores, sunk.projection, sunk.feed(), lambda _: None)
    assert verified.position == head


@pytest.mark.slow
async def test_a_store_that_was_emptied_is_filled_again_from_the_log(sunk: Sunk) -> None:
    ledger = sunk.ledger
    head = await ledger.append(Book(seed=6).history(50))
    await ledger.build(sunk.name)
    before = await sunk.live_digest()
    await ledger.wipe()
    async with ledger.followed(sunk.projection):
        await ledger.caught_up(head, sunk.name)
    assert await sunk.live_digest() == before


@pytest.mark.slow
async def test_a_rebuild_takes_the_place_of_the_live_generation_which_takes_no_more_batches(sunk: Sunk) -> None:
    book, ledger = Book(seed=7), sunk.ledger
    await ledger.append(book.history(40))
    await ledger.build(sunk.name)
    generations = ledger.generations(sunk.name)
    slow = generations.resume(await generations.open())
    before = await sunk.live_digest()
    assert await sunk.rebuilt_digest() == before
    await ledger.append([book.create_user()])
    with pytest.raises(OvertakenError):
        await slow.advance(BUILD_EVENTS_MAX)
    live = await ledger.live(sunk.name)
    kept = {live.number} if sunk.projection.model.personal else {live.number, live.number - 1}
    assert await sunk.sink.numbers(sunk.projection.model, "main") == kept
    assert [each.role for each in await sunk.operations().summaries()][-1] == "live"
    await sunk.operations().prune()
    assert await sunk.sink.numbers(sunk.projection.model, "main") == {live.number}


async def test_the_generations_of_a_read_model_are_those_of_one_ledger(sunk: Sunk) -> None:
    """Also if the name of another ledger begins alike."""
    model = sunk.projection.model
    ours, others = Generation(model, "main", next(_NUMBERS)), Generation(model, "mainland", next(_NUMBERS))
    for generation in (ours, others):
        await sunk.sink.prepare(generation)
    assert await sunk.sink.numbers(model, "main") == {ours.number}
    assert await sunk.sink.numbers(model, "mainland") == {others.number}
    await sunk.sink.drop(ours)
    assert await sunk.sink.numbers(model, "main") == set()
    assert await sunk.sink.read_checkpoint(ours) is None
    assert await sunk.sink.numbers(model, "mainland") == {others.number}


@pytest.mark.slow
async def test_a_pause_holds_workers_and_rebuilds_until_it_ends(sunk: Sunk) -> None:
    book, ledger = Book(seed=8), sunk.ledger
    head = await ledger.append(book.history(20))
    await ledger.build(sunk.name)
    generations = ledger.generations(sunk.name)
    build = generations.resume(await generations.open())
    since = await sunk.operations().pause(datetime.now(UTC))
    await ledger.append(book.history(10))
    with pytest.raises(OvertakenError):
        await build.advance(BUILD_EVENTS_MAX)
    with pytest.raises(ProjectionPaused):
        await sunk.rebuilt_digest()
    status = await sunk.operations().status()
    assert (status.paused_since, status.live and status.live.position) == (since, head)
    assert status.lag_events == status.head - head > 0
    assert status.lag_seconds > 0
    await sunk.operations().resume()
    await ledger.build(sunk.name)
    status = await sunk.operations().status()
    assert (status.paused_since, status.lag_events, status.lag_seconds) == (None, 0, 0)


@pytest.mark.slow
async def test_an_event_that_cannot_be_applied_is_put_aside_and_its_streams_wait(sunk: Sunk) -> None:
    ledger, book = sunk.ledger, Book(seed=9)
    users = [book.create_user() for _ in range(2)]
    account = book.open_account(users[0].user_id)
    events: list[Any] = [*users, account, book.deposit(account.account_id, 5), book.change_user(users[1].user_id, "Bo")]
    head = await ledger.append(events)
    place = 4 if sunk.name in {"balances", "timeline"} else 2

    def project(changes: Any, event: RecordedEvent, fact: Any) -> None:
        if event.position == place:
            raise RuntimeError("Ada Lovelace")
        sunk.projection.project(changes, event, fact)

    poisoned: Projection[Any] = msgspec.structs.replace(sunk.projection, project=project)
    generations = ledger.generations(sunk.name, poisoned)
    generations.attempts = ApplyAttempts(attempts_max=1)
    await generations.finish(generations.resume(await generations.open()))
    live = await ledger.live(sunk.name)
    [letter] = await sunk.sink.read_letters(live)
    assert (letter.position, live.position, "Ada" in letter.cause) == (place, head, False)
    checkpoint = await sunk.sink.read_checkpoint(live)
    assert checkpoint is not None
    assert (checkpoint.aside.letters, checkpoint.aside.put_aside) == (1, int(place == 2))
    parked = await sunk.sink.read_parked(live)
    stream = f"account-{account.account_id}" if place == 4 else f"user-{users[1].user_id}"
    assert parked[stream] == place
    assert set(parked.values()) == {place}
    verified = await verify_read_model(ledger.stores, sunk.projection, sunk.feed(), lambda _: None)
    assert verified.aside.letters == 1


@pytest.mark.slow
async def test_an_erased_person_is_gone(sunk: Sunk) -> None:
    """Also from a rebuild, and from the generation before it."""
    ledger, book = sunk.ledger, Book(seed=10)
    user = book.create_user("Erasable", "erasable@example.com")
    await ledger.append([user, *book.history(10)])
    await ledger.build(sunk.name)

    async def content() -> bytes:
        numbers = await sunk.sink.numbers(sunk.projection.model, "main")
        generations = [Generation(sunk.projection.model, "main", number) for number in numbers]
        found = [part for each in generations async for part in sunk.sink.content(each)]
        return b"".join(found).lower()

    assert (b"erasable" in await content()) is sunk.projection.model.personal
    await ledger.append([book.erase_user(user.user_id)])
    await ledger.build(sunk.name)
    assert b"erasable" not in await content()
    await sunk.rebuilt_digest()
    assert b"erasable" not in await content()
    if sunk.kind == "sqlite":
        file = Path(ledger.stores.optional["sql"].engine.url.database)
        async with ledger.stores.optional["sql"].engine.connect() as connection:
            await connection.rollback()
            await connection.exec_driver_sql("COMMIT")
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            await connection.exec_driver_sql("BEGIN")
        assert b"erasable" not in b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*")).lower()


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def tamper(sunk: Sunk, what: str) -> None:
    """Changes or deletes one document, key or row of the live generation."""
    live, stores = await sunk.ledger.live(sunk.name), sunk.ledger.stores
    if sunk.kind == "mongo":
        documents = StoredDocuments(stores.mongo, live)
        found = await documents.one()
        if what == "change":
            await documents.set({"version": 77}, {"_id": found["_id"]})
        else:
            await documents.delete(found["_id"])
        return
    if sunk.kind.startswith("redis"):
        [name, *_] = await sunk.sink.sample(live, 1)
        redis: Any = stores.redis
        await (redis.hset(live.key(name), "version", "77") if what == "change" else redis.delete(live.key(name)))
        return
    if sunk.kind == "search":
        [name, *_] = await sunk.sink.sample(live, 1)
        index, client = stores.optional["search"].index_of(live), stores.optional["search"].client
        changed = {"doc": {"resource": "hammer"}}
        await (client.update(index=index, id=name, body=changed) if what == "change" else client.delete(index=index, id=name))
        return
    if sunk.kind == "timeline":
        [name, *_] = await sunk.sink.sample(live, 1)
        store, key = stores.optional["timeline"], key_of(name)
        where = "account_id = ? AND part = ? AND bucket = ? AND moment = ? AND place = ?"
        statement = "UPDATE {} SET balance = 77 WHERE {}" if what == "change" else "DELETE FROM {} WHERE {}"
        await store.ask(statement.format(store.table_of(live), where), msgspec.structs.astuple(key))
        return
    days = DATA_TABLES["days"]
    async with stores.optional["sql"].engine.begin() as connection:
        row_id = await connection.scalar(select(days.c.id).limit(1))
        which = days.c.id == row_id
        await connection.execute(
            update(days).where(which).values(transfers=77) if what == "change" else delete(days).where(which)
        )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["change", "deletion"])
async def test_verify_finds_a_row_that_somebody_changed_or_deleted(sunk: Sunk, what: str) -> None:
    await sunk.ledger.append(Book(seed=11).history(40))
    await sunk.ledger.build(sunk.name)
    await verify_read_model(sunk.ledger.stores, sunk.projection, sunk.feed(), lambda _: None)
    await tamper(sunk, what)
    with pytest.raises(DifferenceFound, match=sunk.name):
        await verify_read_model(sunk.ledger.stores, sunk.projection, sunk.feed(), lambda _: None)


@pytest.mark.slow
async def test_verify_and_the_doctor_find_an_index_that_somebody_dropped_and_say_how_to_make_it(sunk: Sunk) -> None:
    if sunk.kind != "sqlite":
        pytest.skip("tests of the tables ask each kind of database what is missing")
    await sunk.ledger.build(sunk.name)
    async with sunk.ledger.stores.optional["sql"].writing() as connection:
        await connection.execute(text("DROP INDEX ix_days_generation_id_day"))
    making = r"CREATE INDEX ix_days_generation_id_day ON days \(generation_id, day\)"
    with pytest.raises(DifferenceFound, match=f"reports, index .* of days .*{making}.*expected 'one', found nothing"):
        await verify_read_model(sunk.ledger.stores, sunk.projection, sunk.feed(), lambda _: None)
    found = {each.name: each for each in await examine_as_any_role(sunk.ledger.settings)}
    assert found["reporting-schema-changed"].severity == "warning"
    assert re.fullmatch(making, found["reporting-schema-changed"].fix)
    async with sunk.ledger.stores.optional["sql"].writing() as connection:
        await connection.execute(text("UPDATE reporting_version SET version_num = '0000'"))
    assert "reporting-schema-other" in {each.name for each in await examine_as_any_role(sunk.ledger.settings)}


async def test_metadata_is_a_json_text_and_an_erasure_empties_that_of_the_person(sunk: Sunk) -> None:
    if sunk.name != "reports":
        pytest.skip("the columns of SQL reporting")
    book = Book(seed=13)
    ada = book.create_user()
    account = book.open_account(ada.user_id)
    deposit = book.deposit(account.account_id, 5, metadata={"b": "ü", "a": "1"})
    await sunk.ledger.append([ada, account, deposit, book.change_user(ada.user_id, "Ada", colour="blue")])
    await sunk.ledger.build(sunk.name)

    async def found() -> list[str | None]:
        tables = ("users", "accounts", "transfers")
        async with sunk.ledger.stores.optional["sql"].reading() as connection:
            return [await connection.scalar(select(DATA_TABLES[name].c.metadata)) for name in tables]

    assert await found() == ['{"colour":"blue"}', None, '{"a":"1","b":"ü"}']
    await sunk.ledger.append([book.erase_user(ada.user_id)])
    await sunk.ledger.build(sunk.name)
    assert await found() == [None, None, '{"a":"1","b":"ü"}']


# ── with all others ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_store_that_is_away_stops_only_its_own_read_models(sunk: Sunk, tmp_path: Path) -> None:
    """An optional store is away, and all other read models follow."""
    if sunk.kind != "sqlite":
        pytest.skip("one kind of optional store is enough")
    settings = sunk.ledger.settings.model_copy(update={"reporting_url": f"sqlite+aiosqlite:///{tmp_path}/none/file"})
    async with open_ledger(settings) as ledger:
        head = await ledger.append(Book(seed=12).history(30))
        others = [each.name for each in projections_of(()) if each.name != "reports"]

        async def is_told() -> bool:
            return "reports" in await ledger.troubles()

        async with ledger.followed():
            for name in others:
                await eventually(partial(reached, ledger, name, head))
            await eventually(is_told)
        assert set(await ledger.troubles()) == {"reports"}


async def reached(ledger: Ledger, name: str, head: int) -> bool:
    try:
        return (await ledger.live(name)).position == head
    except Rebuilding:
        return False
