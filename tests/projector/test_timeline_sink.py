"""What only the sink of the timeline store has to care for: it has no transactions, and its partitions have a limit."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dev.cassandra_server import CassandraServer
from projector.projections.timeline import TIMELINE_PROJECTION
from projector.sinks.content_digest import digest
from projector.sinks.protocols import Step
from projector.sinks.timeline import TimelineSink
from projector.verify.difference import DifferenceFound
from projector.verify.read_models import verify_read_model
from shared.errors import SettingsInvalid, StoreUnavailable
from shared.read_models.generations import Generation
from shared.read_models.shapes import TIMELINE, TIMELINE_BUCKET
from shared.settings import Settings
from shared.stores.doctor import examine_as_any_role
from shared.timeline.connection import read_address
from shared.timeline.rows import key_of
from shared.timeline.store import TimelineStore, open_store
from tests.harness.log import Book, recorded
from tests.harness.projecting import open_ledger
from tests.harness.timeline import empty_timeline, with_timeline

ROWS_MAX = 100_000


@pytest_asyncio.fixture
async def keeping(settings: Settings, cassandra: CassandraServer) -> AsyncIterator[Settings]:
    settings = with_timeline(settings, cassandra)
    yield settings
    async with open_store(settings, read_only=False) as store:
        await empty_timeline(store)


class MortalStore(TimelineStore):
    """A store whose process dies before it writes the next checkpoint."""

    is_dying = False

    async def put_state(self, *arguments: Any) -> bool:
        if self.is_dying:
            raise StoreUnavailable
        return await super().put_state(*arguments)


class Written:
    """A generation to which parts of a history are delivered."""

    def __init__(self, store: TimelineStore, number: int, history: list[Any]) -> None:
        self.sink, self.store = TimelineSink(store), store
        self.generation = Generation(TIMELINE, "main", number)
        self.history = history

    async def deliver(self, start: int, end: int) -> bool:
        changes = TIMELINE_PROJECTION.new_changes()
        TIMELINE_PROJECTION.fold(changes, self.history[start:end])
        return await self.sink.apply(self.generation, Step(start, end, self.history[end - 1].hash.hex()), changes)


async def test_after_a_crash_between_rows_and_checkpoint_other_batches_make_the_same(keeping: Settings) -> None:
    book = Book(seed=21)
    account = book.open_account(book.create_user("Ada").user_id)
    history = recorded(book.deposit(account.account_id, 5) for _ in range(30))
    async with open_store(keeping, read_only=False) as store:
        whole, dying = Written(store, 1, history), Written(store, 2, history)
        for each in (whole, dying):
            await each.sink.prepare(each.generation)
        assert await whole.deliver(0, 30)
        assert await dying.deliver(0, 3)
        mortal = MortalStore(store.session, store.address, 20)
        mortal.is_dying = True
        with pytest.raises(StoreUnavailable):
            await Written(mortal, 2, history).deliver(3, 20)
        [day] = [name for name in await dying.sink.sample(dying.generation, 100) if name.startswith("days/")]
        ahead = (await dying.sink.pick(dying.generation, [day]))[day]
        checkpoint = await dying.sink.read_checkpoint(dying.generation)
        assert checkpoint
        assert (checkpoint.position, ahead["position"], ahead["balance"]) == (3, 20, 100)
        assert await dying.deliver(3, 6)
        assert (await dying.sink.pick(dying.generation, [day]))[day] == ahead, "what is ahead stays ahead"
        assert await dying.deliver(6, 30)
        assert await digest(dying.sink, dying.generation) == await digest(whole.sink, whole.generation)


async def test_a_killed_server_loses_nothing_and_the_worker_goes_on(keeping: Settings, cassandra: CassandraServer) -> None:
    book = Book(seed=24)
    async with open_ledger(keeping) as ledger:
        await ledger.append(book.history(40))
        await ledger.build("timeline")
        async with ledger.followed(TIMELINE_PROJECTION) as runner:
            await ledger.append(book.history(100))
            runner.wake()
            await cassandra.kill()
            head = await ledger.append(book.history(50))
            await cassandra.start()
            await ledger.caught_up(head, "timeline")
        live = await digest(ledger.generations("timeline").sink, await ledger.live("timeline"))
        assert await ledger.rebuild("timeline") == {"timeline": live}


async def test_verify_and_the_doctor_find_a_table_with_other_columns(keeping: Settings) -> None:
    async with open_ledger(keeping) as ledger:
        store: TimelineStore = ledger.stores.optional["timeline"]
        await ledger.append(Book(seed=25).history(20))
        await ledger.build("timeline")
        assert "timeline-table-changed" not in {each.name for each in await examine_as_any_role(keeping)}
        await store.change(f"ALTER TABLE {store.table_of(await ledger.live('timeline'))} DROP reference")
        with pytest.raises(DifferenceFound, match="daybook projections rebuild timeline"):
            await verify_read_model(ledger.stores, TIMELINE_PROJECTION, ledger.feed(), lambda _: None)
        [found] = [each for each in await examine_as_any_role(keeping) if each.name == "timeline-table-changed"]
        assert "column reference of" in found.what


def test_no_partition_of_entries_can_have_a_hundred_thousand_rows() -> None:
    """The busiest account there can be: each event of the ledger is an entry of it."""
    book = Book(seed=26)
    account = book.open_account(book.create_user("Ada").user_id)
    deposit = book.deposit(account.account_id, 5)
    partitions: Counter[tuple[Any, ...]] = Counter()
    for position in (1, TIMELINE_BUCKET - 1, TIMELINE_BUCKET, TIMELINE_BUCKET + 1, 2 * TIMELINE_BUCKET, 2 * TIMELINE_BUCKET + 5):
        changes = TIMELINE_PROJECTION.new_changes()
        TIMELINE_PROJECTION.fold(changes, recorded([deposit], position))
        [key] = [key_of(name) for name in changes.inserted if name.startswith("entries/")]
        partitions[key.account_id, key.part[:4], key.bucket] += 1
    assert [*partitions.values()] == [2, 2, 2]
    assert TIMELINE_BUCKET < ROWS_MAX


@pytest.mark.parametrize(
    "url",
    [
        "http://host/daybook",
        "cassandra://host",
        "cassandra://host/Day-book",
        "cassandra:///daybook",
        "cassandra://host:port/daybook",
        "cassandra://host/daybook?replicas=0",
        "cassandra://host/daybook?hammer=1",
        "cassandra://host/daybook?ca_certs=/no/such/file",
    ],
)
async def test_a_url_that_is_none_of_cassandra_is_refused_without_its_text(settings: Settings, url: str) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_TIMELINE_URL") as refused:
        async with open_store(settings.model_copy(update={"timeline_url": url}), read_only=True):
            raise AssertionError
    assert url not in str(refused.value)


def test_a_url_names_several_hosts_a_login_and_how_many_copies_there_are() -> None:
    address = read_address("cassandra://ada:p%40ss@one:9043,two/daybook?datacenter=eu&replicas=3")
    assert address.hosts == (("one", 9043), ("two", 9042))
    assert (address.user, address.password, address.keyspace) == ("ada", "p@ss", "daybook")
    assert (address.datacenter, address.replicas) == ("eu", 3)
