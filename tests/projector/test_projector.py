"""The projector on real stores: each event takes effect once, whatever is repeated, lost, killed or emptied."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import msgspec
import pytest
import pytest_asyncio
import sqlalchemy.event
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError
from structlog.testing import capture_logs

from dev.child_processes import Child
from dev.daybook_processes import worker
from dev.servers import Mongo, Postgres, Redis, Server, start_all, stop_all
from projector.feed import AHEAD_MAX, AHEAD_SECONDS, Feed, LogChangedError
from projector.generations.build import BUILD_EVENTS_MAX, GenerationBuild, OvertakenError
from projector.generations.generations import Generations
from projector.generations.rebuild import rebuild
from projector.projections.changes import KeyChanges
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from projector.sinks.content_digest import digest
from projector.sinks.protocols import Sink, Step
from projector.sinks.registry import make_sinks
from shared.errors import EventNotApplied, Rebuilding, UnknownEvent
from shared.log.account_events import AccountOpened
from shared.log.events import RecordedEvent
from shared.log.read import READ_EVENTS_MAX
from shared.log.user_events import UserCreated
from shared.read_models.channels import WAKE_CHANNEL
from shared.read_models.dead_letters import read_dead_letters
from shared.read_models.generations import Generation
from shared.read_models.shapes import Store
from shared.read_models.worker_reports import HEALTH_KEY
from shared.settings import Settings
from shared.stores.all_stores import Stores
from tests.harness.databases import copy_postgres
from tests.harness.documents import StoredDocuments
from tests.harness.log import MASTER_KEY, PERSON_KEYS, Book, make_ledger, recorded
from tests.harness.projecting import Ledger, eventually, open_ledger, tamper
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

HISTORY = recorded(Book(seed=3).history(60))
by_projection = pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.name)


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


@pytest.fixture
def stores(ledger: Ledger) -> Stores:
    return ledger.stores


# ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Delivery:
    """Delivers batches of a fixed history straight to the sink of one generation."""

    numbers = count(1_000)

    def __init__(self, stores: Stores, projection: Projection[Any], history: list[RecordedEvent]) -> None:
        self.projection = projection
        self.history = history
        self.sink: Sink[Any] = make_sinks(stores)[projection.model.store]
        self.generation = Generation(projection.model, "main", next(self.numbers))

    async def prepare(self) -> None:
        await self.sink.prepare(self.generation)
        before = await self.sink.read_pointer(self.projection.model, "main")
        after = msgspec.structs.replace(before, building=self.generation.number)
        assert await self.sink.move_pointer(self.projection.model, "main", before, after)

    async def deliver(self, start: int, end: int) -> bool:
        """The events after `start` up to `end`."""
        changes = self.projection.new_changes()
        self.projection.fold(changes, self.history[start:end])
        return await self.sink.apply(self.generation, Step(start, end, self.history[end - 1].hash.hex()), changes)

    async def deliver_the_rest(self) -> None:
        checkpoint = await self.sink.read_checkpoint(self.generation)
        assert checkpoint is not None
        if checkpoint.position < len(self.history):
            assert await self.deliver(checkpoint.position, len(self.history))

    async def digest(self) -> str:
        return await digest(self.sink, self.generation)


async def delivery_of(stores: Stores, projection: Projection[Any], *batches: tuple[int, int]) -> Delivery:
    delivery = Delivery(stores, projection, HISTORY)
    await delivery.prepare()
    for start, end in batches:
        assert await delivery.deliver(start, end)
    return delivery


@by_projection
async def test_a_batch_that_comes_once_is_applied(stores: Stores, projection: Projection[Any]) -> None:
    delivery = await delivery_of(stores, projection)
    assert await delivery.deliver(0, 60)
    checkpoint = await delivery.sink.read_checkpoint(delivery.generation)
    assert checkpoint is not None
    assert (checkpoint.position, checkpoint.log_hash) == (60, HISTORY[59].hash.hex())


@by_projection
async def test_a_batch_that_comes_twice_changes_nothing(stores: Stores, projection: Projection[Any]) -> None:
    delivery = await delivery_of(stores, projection, (0, 40))
    before = await delivery.digest()
    assert not await delivery.deliver(0, 40)
    assert await delivery.digest() == before


@by_projection
async def test_a_batch_that_comes_late_or_too_early_changes_nothing(stores: Stores, projection: Projection[Any]) -> None:
    delivery = await delivery_of(stores, projection, (0, 20), (20, 40))
    before = await delivery.digest()
    for start, end in ((0, 20), (10, 50), (41, 60), (39, 41)):
        assert not await delivery.deliver(start, end)
    assert await delivery.digest() == before


@pytest.mark.slow
@by_projection
@hypothesis.settings(max_examples=8, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(batches=st.lists(st.tuples(st.integers(0, 59), st.integers(1, 60)).filter(lambda b: b[0] < b[1]), max_size=25))
async def test_batches_cut_doubled_and_shuffled_in_any_way_make_the_same_read_model(
    stores: Stores, projection: Projection[Any], batches: list[tuple[int, int]]
) -> None:
    delivery = await delivery_of(stores, projection)
    for start, end in batches:
        await delivery.deliver(start, end)
    await delivery.deliver_the_rest()
    at_once = await delivery_of(stores, projection, (0, 60))
    assert await delivery.digest() == await at_once.digest()


async def test_the_same_batch_from_many_workers_at_once_is_applied_once(stores: Stores) -> None:
    for projection in PROJECTIONS:
        delivery = await delivery_of(stores, projection)
        applied = await asyncio.gather(*(delivery.deliver(0, 60) for _ in range(8)))
        assert applied.count(True) == 1
        assert await delivery.digest() == await (await delivery_of(stores, projection, (0, 60))).digest()


async def test_sums_of_money_grow_beyond_64_bits(stores: Stores) -> None:
    delivery = await delivery_of(stores, PROJECTIONS_BY_NAME["statistics"])
    for step in range(3):
        changes = KeyChanges()
        changes.add("sums", {"EUR": 2**63 - 1, "JPY": -(2**80)})
        assert await delivery.sink.apply(delivery.generation, Step(step, step + 1, "00"), changes)
    stored = await stores.redis.hgetall(delivery.generation.key("sums"))  # type: ignore[misc]
    assert stored == {"EUR": str(3 * (2**63 - 1)), "JPY": str(-3 * 2**80)}


async def test_money_in_a_read_model_of_redis_is_exact(stores: Stores) -> None:
    book = Book()
    account = book.open_account(book.create_user().user_id)
    events = recorded([account, book.deposit(account.account_id, 2**53 - 1), book.withdraw(account.account_id, 2**53 - 2)])
    delivery = Delivery(stores, PROJECTIONS_BY_NAME["balances"], events)
    await delivery.prepare()
    for position in range(3):
        assert await delivery.deliver(position, position + 1)
    posted = await stores.redis.hget(delivery.generation.key(f"account:{account.account_id}"), "posted")  # type: ignore[misc]
    assert posted == "1"


@pytest.mark.slow
async def test_a_generation_that_the_pointer_no_longer_names_takes_no_batch(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(30))
    await ledger.build()
    for name in PROJECTIONS_BY_NAME:
        generations = ledger.generations(name)
        slow = generations.resume(await generations.open())
        await ledger.rebuild(name)
        await ledger.append([book.create_user()])
        with pytest.raises(OvertakenError):
            await slow.advance(BUILD_EVENTS_MAX)


# ── keeping up ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_a_live_read_model_equals_a_rebuild_and_one_built_in_empty_stores(ledger: Ledger) -> None:
    book = Book(seed=5)
    events = list(book.history(600))
    async with ledger.followed():
        head = 0
        for start in range(0, 600, 37):
            head = await ledger.append(events[start : start + 37])
            await asyncio.sleep(0.01)
        await ledger.caught_up(head)
    live = await ledger.digests()
    assert await ledger.rebuild() == live
    assert await ledger.digests() == live
    await ledger.wipe()
    async with ledger.followed():
        await ledger.caught_up(head)
    assert await ledger.digests() == live


async def test_events_are_projected_when_every_wake_up_is_lost(ledger: Ledger) -> None:
    """`append` sends no wake-up."""
    book = Book()
    async with ledger.followed():
        await ledger.caught_up(await ledger.append(book.history(10)))
        await ledger.caught_up(await ledger.append([book.create_user()]))


async def test_a_wake_up_makes_the_projector_look_at_once(ledger: Ledger) -> None:
    seldom = ledger.settings.model_copy(update={"projector_look_ms": 3_600_000})
    async with ledger.followed(settings=seldom):
        await ledger.caught_up(0)
        head = await ledger.append(Book().history(10))

        async def woken() -> bool:
            # Published again and again: the projector takes a moment until it listens.
            await ledger.stores.redis.publish(WAKE_CHANNEL, "main")
            return set((await ledger.positions()).values()) == {head}

        await eventually(woken)


@pytest.mark.slow
async def test_two_projectors_at_once_apply_each_event_once(ledger: Ledger) -> None:
    events = list(Book(seed=6).history(400))
    async with ledger.followed(), ledger.followed():
        for start in range(0, 400, 23):
            head = await ledger.append(events[start : start + 23])
            await asyncio.sleep(0.005)
        await ledger.caught_up(head)
    assert await ledger.digests() == await ledger.rebuilt()


@pytest.mark.slow
async def test_a_new_ledger_is_followed(ledger: Ledger, settings: Settings) -> None:
    async with ledger.followed():
        await ledger.caught_up(0)
        await make_ledger_as_owner(settings, "second")
        async with open_ledger(settings, "second") as second:
            head = await second.append(Book(seed=8).history(20))
            await second.caught_up(head)
        assert set((await ledger.positions()).values()) == {0}


async def make_ledger_as_owner(settings: Settings, ledger_id: str) -> None:
    async with open_ledger(settings) as opened:
        await make_ledger(opened.writer, ledger_id)


async def test_an_empty_log_has_empty_read_models(ledger: Ledger) -> None:
    with pytest.raises(Rebuilding):
        await ledger.live("users")
    await ledger.build()
    assert set((await ledger.positions()).values()) == {0}


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "version"), [("MoonLanded", 1), ("AccountFrozen", 99)])
async def test_an_unknown_event_stops_the_projection_and_its_position_is_reported(
    ledger: Ledger, servers: Servers, kind: str, version: int
) -> None:
    head = await ledger.append(Book().history(20))
    await tamper(
        servers.postgres,
        ledger.settings,
        "INSERT INTO events SELECT ledger_id, position + 1, gen_random_uuid(), "
        f"'{kind}', {version}, '{{}}', '{{}}', recorded_at, hash FROM events WHERE position = {head}",
        f"UPDATE log_heads SET position = {head + 1}",
    )
    generations = ledger.generations("users")
    build = generations.resume(await generations.open())
    assert await build.advance(BUILD_EVENTS_MAX) == head
    with pytest.raises(UnknownEvent, match=f"position {head + 1} .*{kind}.*; deploy the code that wrote it"):
        await build.advance(BUILD_EVENTS_MAX)
    async with ledger.followed():

        async def all_say_so() -> bool:
            causes = [trouble.cause for trouble in (await ledger.troubles()).values()]
            return len(causes) == len(PROJECTIONS_BY_NAME) and all(kind in cause for cause in causes)

        await eventually(all_say_so)


async def test_a_missing_event_stops_the_projection(ledger: Ledger, servers: Servers) -> None:
    await ledger.append(Book().history(20))
    await tamper(servers.postgres, ledger.settings, "DELETE FROM events WHERE position = 10")
    async with ledger.followed():

        async def said() -> bool:
            troubles = await ledger.troubles()
            return "users" in troubles and "position 10 of ledger 'main' is missing" in troubles["users"].cause

        await eventually(said)


async def test_a_projection_that_fails_holds_up_no_other_and_goes_on_when_it_can(ledger: Ledger) -> None:
    broken = True

    def project(changes: Any, event: RecordedEvent, fact: Any) -> None:
        if broken and event.position == 5:
            raise RuntimeError("out of ink")
        PROJECTIONS_BY_NAME["users"].project(changes, event, fact)

    users = msgspec.structs.replace(PROJECTIONS_BY_NAME["users"], project=project, handles=PROJECTIONS_BY_NAME["users"].handles)
    others = [projection for projection in PROJECTIONS if projection.name != "users"]
    book = Book()
    await ledger.append(book.create_user() for _ in range(4))
    patient = ledger.settings.model_copy(update={"projector_attempts_max": 1_000})
    async with ledger.followed(users, *others, settings=patient):
        await ledger.caught_up(4)
        head = await ledger.append([book.create_user()])
        await ledger.caught_up(head, *(projection.name for projection in others))
        await eventually(ledger.troubles)
        trouble = (await ledger.troubles())["users"]
        assert trouble.position == 4
        assert re.search(
            r"event 5 \(UserCreated .*\) cannot be applied: RuntimeError in project, test_projector.py", trouble.cause
        )
        assert "out of ink" not in trouble.cause, "what a foreign error says may quote a person"
        assert list(await ledger.troubles()) == ["users"]
        broken = False
        await ledger.caught_up(head)
        await eventually(lambda: no_troubles(ledger))


@pytest.mark.slow
async def test_a_read_model_that_cannot_be_built_is_built_with_growing_pauses(ledger: Ledger) -> None:
    """Each build gets to its end and is then refused. The pauses grow, the cause stays shown, and the others are unhurt."""
    broken = msgspec.structs.replace(PROJECTIONS_BY_NAME["balances"], makes={AccountOpened: 2})
    others = [projection for projection in PROJECTIONS if projection.name != "balances"]
    head = await ledger.append(Book().history(50))

    with capture_logs() as lines:
        async with ledger.followed(broken, *others):
            await ledger.caught_up(head, *(projection.name for projection in others))

            async def has_failed_often() -> bool:
                return len([line for line in lines if line["event"] == "projection stopped"]) >= 6

            await eventually(has_failed_often)
            assert "number of documents" in (await ledger.troubles())["balances"].cause
            assert list(await ledger.troubles()) == ["balances"]
    pauses = [line["again_in_seconds"] for line in lines if line["event"] == "projection stopped"]
    # Chance takes away at most half of a pause, and each is twice as long as the one before.
    assert pauses[5] > 8 * pauses[0], pauses


async def no_troubles(ledger: Ledger) -> bool:
    return not await ledger.troubles()


async def test_a_missing_document_is_noticed_when_it_is_written_to(ledger: Ledger) -> None:
    book = Book()
    user = book.create_user()
    await ledger.append([user])
    await ledger.build("users")
    build = await build_of_live(ledger, "users")
    await StoredDocuments(ledger.stores.mongo, build.generation).delete(user.user_id)
    await ledger.append([book.change_user(user.user_id, "Countess")])
    with pytest.raises(EventNotApplied, match=r"event 2 .*\(1 documents are missing.*daybook replay users"):
        await build.advance(BUILD_EVENTS_MAX)
    assert (await ledger.live("users")).position == 1


async def test_a_batch_that_fails_half_way_in_redis_makes_the_generation_count_as_lost(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(30))
    await ledger.build("statistics")
    build = await build_of_live(ledger, "statistics")
    await ledger.stores.redis.set(build.generation.key("busiest"), "not a sorted set")
    await ledger.append(book.history(30))
    with pytest.raises(OvertakenError):
        await build.advance(BUILD_EVENTS_MAX)
    with pytest.raises(Rebuilding):
        await ledger.live("statistics")
    await ledger.build("statistics")
    assert (await ledger.live("statistics")).number == build.generation.number + 1


async def build_of_live(ledger: Ledger, name: str) -> GenerationBuild:
    generations = ledger.generations(name)
    opened = await generations.open()
    assert opened.live
    return generations.resume(opened)


# ── stores that were emptied or restored ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("store", ["mongo", "redis"])
async def test_an_emptied_store_is_rebuilt_by_itself(ledger: Ledger, store: Store) -> None:
    head = await ledger.append(Book(seed=4).history(200))
    async with ledger.followed():
        await ledger.caught_up(head)
        before = await ledger.digests()
        if store == "redis":
            await ledger.stores.redis.flushdb()
        else:
            await ledger.stores.mongo.client.drop_database(ledger.settings.mongo_database)
        head = await ledger.append([Book(seed=11).create_user()])
        await ledger.caught_up(head)
    after = await ledger.digests()
    assert {name for name in PROJECTIONS_BY_NAME if before[name] != after[name]} == {"users", "statistics"}


async def test_a_dropped_collection_is_rebuilt_and_not_served_in_pieces(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(50))
    await ledger.build("transfers")
    live = await ledger.live("transfers")
    before = await digest(ledger.generations("transfers").sink, live)
    documents = StoredDocuments(ledger.stores.mongo, live)
    await documents.collection.drop()
    # The next write makes it anew.
    await documents.insert({"_id": "stray"})
    await ledger.build("transfers")
    after = await ledger.live("transfers")
    assert after.number == live.number + 1
    assert await digest(ledger.generations("transfers").sink, after) == before


@pytest.mark.slow
async def test_read_models_ahead_of_a_restored_log_are_rebuilt(ledger: Ledger, servers: Servers) -> None:
    await ledger.append(Book(seed=1).history(100))
    await ledger.build()
    await restore_first_events(servers, ledger.settings, 40)
    for name in PROJECTIONS_BY_NAME:
        assert not (await ledger.generations(name).open()).live
        with pytest.raises(Rebuilding):
            await ledger.live(name)
    async with ledger.followed():
        await ledger.caught_up(40)


@pytest.mark.slow
async def test_read_models_of_another_history_are_rebuilt(ledger: Ledger, servers: Servers) -> None:
    """The log was restored and then grew beyond the positions of the read models."""
    book = Book(seed=1)
    await ledger.append(book.history(30))
    await ledger.build()
    await restore_first_events(servers, ledger.settings, 0)
    head = await ledger.append(Book(seed=2).history(80))
    async with ledger.followed():
        await ledger.caught_up(head)
    assert await ledger.digests() == await ledger.rebuilt()


@pytest.mark.slow
async def test_a_projector_that_runs_does_not_go_on_with_another_log(ledger: Ledger, servers: Servers) -> None:
    """The log is exchanged between two looks, so that its head never seems to go back."""
    seldom = ledger.settings.model_copy(update={"projector_look_ms": 3_600_000})
    await ledger.append(Book(seed=1).history(30))
    async with ledger.followed(settings=seldom) as runner:
        await ledger.caught_up(30)
        await restore_first_events(servers, ledger.settings, 0)
        head = await ledger.append(Book(seed=2).history(80))
        runner.wake()
        await ledger.caught_up(head)
    assert await ledger.digests() == await ledger.rebuilt()


async def restore_first_events(servers: Servers, settings: Settings, head: int) -> None:
    """Restores the log to what a backup taken at that position holds."""
    await tamper(
        servers.postgres,
        settings,
        f"DELETE FROM events WHERE position > {head}",
        f"DELETE FROM stream_events WHERE position > {head}",
        "DELETE FROM streams" if head == 0 else "SELECT 1",
        f"UPDATE log_heads SET position = {head}, hash = coalesce((SELECT hash FROM events WHERE position = {head}), '')",
    )


async def test_a_projection_of_a_new_version_is_built_while_the_old_one_is_read(ledger: Ledger) -> None:
    await ledger.append(Book().history(30))
    await ledger.build("users")
    live = await ledger.live("users")
    model = msgspec.structs.replace(live.model, version=live.model.version + 1)
    generations = ledger.generations("users", msgspec.structs.replace(PROJECTIONS_BY_NAME["users"], model=model))
    opened = await generations.open()
    assert (opened.live, opened.generation.number) == (False, 2)
    assert (await ledger.live("users")).number == 1
    await generations.finish(generations.resume(opened))
    assert ((await ledger.live("users")).number, (await generations.open()).live) == (2, True)


async def test_an_unfinished_generation_of_older_code_is_not_continued(ledger: Ledger) -> None:
    await ledger.append(Book().history(30))
    started = (await ledger.generations("users").open_new()).generation
    model = msgspec.structs.replace(started.model, version=started.model.version + 1)
    newer = ledger.generations("users", msgspec.structs.replace(PROJECTIONS_BY_NAME["users"], model=model))
    assert (await newer.open_new()).generation.number == started.number + 1


@pytest.mark.slow
async def test_positions_never_go_back_when_a_rebuild_takes_over(ledger: Ledger) -> None:
    """The new generation is at 30 when the live one is at 60, so it may not become live yet."""
    book = Book()
    await ledger.append(book.history(30))
    await ledger.build()
    for name in PROJECTIONS_BY_NAME:
        generations = ledger.generations(name)
        built = generations.resume(await generations.open_new())
        await built.advance(BUILD_EVENTS_MAX)
        await ledger.append([book.create_user()])
        await ledger.build(name)
        assert not await generations.sink.switch(built.generation, await generations.read_pointer())
        await generations.finish(built)
        assert (await ledger.live(name)).number == built.generation.number


@pytest.mark.slow
async def test_the_generation_before_is_kept_only_until_the_next_rebuild(ledger: Ledger) -> None:
    await ledger.append(Book().history(30))
    await ledger.build()
    await ledger.rebuild()
    await ledger.rebuild()
    for name, projection in PROJECTIONS_BY_NAME.items():
        numbers = await ledger.generations(name).sink.numbers(projection.model, "main")
        assert numbers == ({3} if projection.model.personal else {2, 3})


# ── processes that are killed ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_a_worker_killed_in_mid_batch_goes_on_and_applies_nothing_twice(ledger: Ledger, tmp_path: Path) -> None:
    """Batches are small, so that every kill hits one."""
    head = await ledger.append(Book(seed=13).history(8_000, accounts=30))
    process = worker(tmp_path, environment_of(ledger.settings) | {"DAYBOOK_PROJECTOR_BATCH_EVENTS_MAX": "50"})
    try:
        # The first build, then catching up with more.
        for _ in range(3):
            await process.start()
            reached = await furthest(ledger)
            await eventually(partial(has_moved, ledger, reached))
            await process.kill()
            head = await ledger.append(Book(seed=head).history(1_000, accounts=30))
        await process.start()
        await ledger.caught_up(head)
    finally:
        await process.kill()
    assert await ledger.digests() == await ledger.rebuilt()


@pytest.mark.slow
async def test_a_frozen_worker_holds_nobody_up_and_changes_nothing_when_it_wakes(ledger: Ledger, tmp_path: Path) -> None:
    """The worker is frozen where it may hold a transaction open."""
    book = Book(seed=14)
    await ledger.append(book.history(4_000, accounts=30))
    small = environment_of(ledger.settings) | {"DAYBOOK_PROJECTOR_BATCH_EVENTS_MAX": "50"}
    (tmp_path / "other").mkdir()
    frozen, other = worker(tmp_path, small), worker(tmp_path / "other", small)
    try:
        await frozen.start()
        reached = await furthest(ledger)
        await eventually(partial(has_moved, ledger, reached))
        frozen.freeze()
        await other.start()
        await ledger.caught_up(await ledger.append(book.history(200)))
        frozen.thaw()
        await ledger.caught_up(await ledger.append(book.history(200)))
    finally:
        await frozen.kill()
        await other.kill()
    assert await ledger.digests() == await ledger.rebuilt()


async def furthest(ledger: Ledger) -> int:
    """The sum of all checkpoints, live or not."""
    documents = await ledger.stores.mongo.checkpoints.find().to_list(None)
    keys = [key async for key in ledger.stores.redis.scan_iter(match="daybook:*:checkpoint")]
    stored = [await ledger.stores.redis.get(key) for key in keys]
    return sum(int(position or 0) for position in stored) + sum(int(document["position"]) for document in documents)


async def has_moved(ledger: Ledger, reached: int) -> bool:
    return await furthest(ledger) > reached


@pytest.mark.slow
async def test_a_worker_that_is_told_to_stop_finishes_its_batch_and_exits_with_0(ledger: Ledger, tmp_path: Path) -> None:
    head = await ledger.append(Book().history(200))
    process = worker(tmp_path, environment_of(ledger.settings))
    await process.start()
    await ledger.caught_up(head)
    await process.stop()
    assert process.process is not None
    assert process.process.returncode == 0, process.last_words()
    assert await ledger.stores.redis.exists(HEALTH_KEY) == 0


@pytest.mark.slow
async def test_a_worker_that_cannot_start_says_why_in_one_line(settings: Settings, tmp_path: Path) -> None:
    for changed, reason in (
        ({"DAYBOOK_REDIS_URL": "redis://127.0.0.1:1/0"}, "Redis does not answer"),
        ({"DAYBOOK_MONGO_URL": "mongodb://127.0.0.1:1"}, "MongoDB does not answer"),
        ({"DAYBOOK_DATABASE_URL": settings.database_url.rpartition("/")[0] + "/postgres"}, "run `daybook migrate`"),
        ({"DAYBOOK_SECRET": "short"}, "DAYBOOK_SECRET"),
    ):
        process = worker(tmp_path, environment_of(settings) | changed)
        process.log.unlink(missing_ok=True)
        await process.start()
        assert await process.ended(15)
        assert process.process is not None
        assert process.process.returncode == 1
        lines = process.log.read_text().splitlines()
        assert len(lines) == 1, lines
        assert reason in lines[0]


@pytest.mark.slow
async def test_a_worker_outlives_the_loss_of_every_store(migrated_postgres: Path, tmp_path: Path) -> None:
    """The servers are killed and started again, one by one, while events come in."""
    folder = tmp_path / "servers"
    folder.mkdir()
    postgres = copy_postgres(migrated_postgres, folder)
    mongo, redis = Mongo("mongo", folder), Redis("redis", folder)
    await start_all(postgres, mongo, redis)
    process = None
    try:
        settings = Settings(
            database_url=postgres.url,
            mongo_url=mongo.url,
            redis_url=redis.url,
            secret="long enough to be taken and for tests",
            master_keys=MASTER_KEY,
            projector_attempts_max=1,  # an outage that is taken for a bad event would show at once
        )
        process = worker(tmp_path, environment_of(settings))
        await process.start()
        await lose_each(settings, process, (postgres, mongo, redis))
    finally:
        if process is not None:
            await process.kill()
        await stop_all(postgres, mongo, redis)


async def lose_each(settings: Settings, process: Child, servers: tuple[Server, ...]) -> None:
    async with open_ledger(settings) as ledger:
        book = Book(seed=21)
        head = await ledger.append(book.history(300))
        await ledger.caught_up(head)
        for server in servers:
            await server.kill()
            if not isinstance(server, Postgres):
                head = await ledger.append(book.history(200))
            # Longer than what the worker waits for an answer.
            await asyncio.sleep(2.5)
            await server.start()
            await ledger.writer.dispose()
            head = await ledger.append([book.create_user()])
            await ledger.caught_up(head)
            assert process.running, process.last_words()
        for name in PROJECTIONS_BY_NAME:
            assert not await read_dead_letters(ledger.stores.mongo, ledger.stores.redis, await ledger.live(name))
        digests = await ledger.digests()
        await process.kill()  # or it would rebuild too what is deleted now
        assert digests == await ledger.rebuilt()


# ── the feed ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_a_slice_of_the_log_is_read_once_for_all_followers(ledger: Ledger) -> None:
    await ledger.append(Book().history(3 * READ_EVENTS_MAX))
    reads: list[str] = []
    sqlalchemy.event.listen(
        ledger.stores.engine.sync_engine,
        "before_cursor_execute",
        lambda *execution: reads.append(execution[2]) if "FROM events" in execution[2] and "LIMIT" in execution[2] else None,
    )
    feed = Feed(ledger.stores.engine, "main", PERSON_KEYS)
    sinks = make_sinks(ledger.stores)
    everyone = [Generations(projection, sinks[projection.model.store], feed) for projection in PROJECTIONS]
    await asyncio.gather(*(rebuild(generations, lambda _: None) for generations in everyone))
    # Three pages and the end of the log; some look at the end more than once.
    assert len(reads) < 2 * len(PROJECTIONS) + 4
    assert set((await ledger.positions()).values()) == {3 * READ_EVENTS_MAX}


async def test_new_events_are_read_although_the_kept_connection_is_gone(ledger: Ledger, servers: Servers) -> None:
    feed = Feed(ledger.stores.engine, "main", PERSON_KEYS)
    book = Book()
    user = book.create_user()
    await ledger.append([user])
    await feed.look()
    for number in (2, 3):
        superuser = await asyncpg.connect(servers.postgres.superuser_url)
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'daybook-projector'"
        )
        await superuser.close()
        await ledger.append([book.open_account(user.user_id)])
        # Those in the pool are gone as well, and each of them is found out once.
        with suppress(SQLAlchemyError):
            await feed.look()
        await feed.look()
        assert feed.head == number
    read = [recorded.event for recorded in await feed.next_events(0, b"", feed)]
    # Also what is personal is there, for which other connections read the keys.
    assert isinstance(read[0], UserCreated)
    assert (read[0].name, read[0].email) == (user.name, user.email)
    assert len(read) == 3
    await feed.close()


async def test_a_feed_that_is_closed_in_the_middle_of_a_look_leaves_no_connection(ledger: Ledger) -> None:
    await ledger.append(Book().history(3))
    pool: Any = ledger.stores.engine.pool
    before = pool.checkedout()
    feed = Feed(ledger.stores.engine, "main", PERSON_KEYS)
    looking = asyncio.create_task(feed.look())
    while not feed.is_looking:
        await asyncio.sleep(0)
    await feed.close()
    await looking
    assert pool.checkedout() == before


@pytest.mark.slow
async def test_a_reader_that_is_far_ahead_waits_a_bounded_time_for_the_others(ledger: Ledger) -> None:
    await ledger.append(Book().history(100))
    feed = Feed(ledger.stores.engine, "main", PERSON_KEYS)

    class Reader:
        """Something that can be told from another."""

    slow, fast = Reader(), Reader()
    assert len(await feed.next_events(0, b"", slow)) == 100
    started = asyncio.get_running_loop().time()
    with pytest.raises(LogChangedError):  # there is no such event, which shows only after the wait
        await feed.next_events(AHEAD_MAX + 1, b"", fast)
    assert asyncio.get_running_loop().time() - started >= AHEAD_SECONDS * 0.9


async def test_the_digest_of_a_document_does_not_depend_on_the_order_of_its_fields(ledger: Ledger) -> None:
    """MongoDB adds fields, such as those of holds, in an order that depends on how events were divided into batches."""
    await ledger.append(Book().history(30))
    await ledger.build("accounts")
    live = await ledger.live("accounts")
    before = await digest(ledger.generations("accounts").sink, live)
    accounts = StoredDocuments(ledger.stores.mongo, live)
    for document in await accounts.all():
        await accounts.replace(dict(reversed(document.items())))
    assert await digest(ledger.generations("accounts").sink, live) == before
