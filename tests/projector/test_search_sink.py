"""What only the sink of the search store has to care for: it has no transactions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dev.search_servers import OpenSearchServer
from projector.projections.search import SEARCH_PROJECTION
from projector.sinks.content_digest import digest
from projector.sinks.protocols import Step
from projector.sinks.search import SearchSink
from projector.verify.difference import DifferenceFound
from projector.verify.read_models import verify_read_model
from shared.errors import SettingsInvalid, StoreUnavailable
from shared.read_models.generations import Generation
from shared.read_models.shapes import SEARCH
from shared.search.store import KeptState, SearchStore, open_store
from shared.settings import Settings
from shared.stores.doctor import examine_as_any_role
from tests.harness.log import Book, recorded
from tests.harness.projecting import open_ledger
from tests.harness.search import empty_search, with_search

pytestmark = pytest.mark.services


@pytest_asyncio.fixture
async def searching(settings: Settings, opensearch: OpenSearchServer) -> AsyncIterator[Settings]:
    settings = with_search(settings, opensearch)
    yield settings
    async with open_store(settings, read_only=False) as store:
        await empty_search(store)


class MortalStore(SearchStore):
    """A store whose process dies before it writes the next checkpoint."""

    is_dying = False

    async def put_state(self, index: str, state_id: str, content: Any, before: KeptState | None) -> KeptState | None:
        if self.is_dying and "ahead" not in content["checkpoint"]:
            raise StoreUnavailable
        return await super().put_state(index, state_id, content, before)


class Written:
    """A generation to which parts of a history are delivered."""

    def __init__(self, store: SearchStore, number: int, history: list[Any]) -> None:
        self.sink, self.store = SearchSink(store), store
        self.generation = Generation(SEARCH, "main", number)
        self.history = history

    async def deliver(self, start: int, end: int) -> bool:
        changes = SEARCH_PROJECTION.new_changes()
        SEARCH_PROJECTION.fold(changes, self.history[start:end])
        return await self.sink.apply(self.generation, Step(start, end, self.history[end - 1].hash.hex()), changes)


async def test_after_a_crash_between_data_and_checkpoint_other_batches_make_the_same(searching: Settings) -> None:
    book = Book(seed=21)
    user = book.create_user("Ada")
    names = [book.change_user(user.user_id, f"Ada {number}", number=str(number)) for number in range(9)]
    history = recorded([user, *names, *book.history(30)])
    async with open_store(searching, read_only=False) as store:
        whole = Written(store, 1, history)
        await whole.sink.prepare(whole.generation)
        assert await whole.deliver(0, len(history))
        dying = Written(MortalStore(store.client, store.prefix, 20), 2, history)
        await dying.sink.prepare(dying.generation)
        assert await dying.deliver(0, 3)
        assert isinstance(dying.store, MortalStore)
        dying.store.is_dying = True
        with pytest.raises(StoreUnavailable):
            await dying.deliver(3, 20)
        dying.store.is_dying = False
        name = f"users/{user.user_id}"
        ahead = (await dying.sink.pick(dying.generation, [name]))[name]
        checkpoint = await dying.sink.read_checkpoint(dying.generation)
        assert checkpoint
        assert (checkpoint.position, ahead["position"], ahead["name"]) == (3, 10, "Ada 8")
        assert await dying.deliver(3, 6)
        assert (await dying.sink.pick(dying.generation, [name]))[name] == ahead, "what is ahead stays ahead"
        assert await dying.deliver(6, len(history))
        assert await digest(dying.sink, dying.generation) == await digest(whole.sink, whole.generation)


@pytest.mark.parametrize("recorded_since", [0, 20])
async def test_documents_of_events_that_a_restored_log_does_not_have_are_found_and_search_is_built_again(
    searching: Settings, recorded_since: int
) -> None:
    """A worker dies before the checkpoint. Then the log is restored from before its batch, and maybe gets other events."""
    book = Book(seed=25)
    ada = book.create_user("Ada")
    async with open_ledger(searching) as ledger:
        head = await ledger.append([ada, *book.history(20)])
        await ledger.build("search")
        live, store = await ledger.live("search"), ledger.stores.optional["search"]
        dying = MortalStore(store.client, store.prefix, 20)
        dying.is_dying = True
        changes = SEARCH_PROJECTION.new_changes()
        SEARCH_PROJECTION.fold(changes, recorded([book.change_user(ada.user_id, "Adele")] * 3, head + 1))
        sink = SearchSink(dying)
        with pytest.raises(StoreUnavailable):
            await sink.apply(live, Step(head, head + 3, "ab" * 32), changes)
        name = f"users/{ada.user_id}"
        assert (await sink.pick(live, [name]))[name]["name"] == "Adele"
        if recorded_since:
            await ledger.append(book.history(recorded_since))
        await ledger.build("search")
        mended = await ledger.live("search")
        assert mended.number > live.number
        assert (await sink.pick(mended, [name]))[name]["name"] == "Ada"
        await verify_read_model(ledger.stores, SEARCH_PROJECTION, ledger.feed(), lambda _: None)


async def test_a_killed_server_loses_nothing_and_the_worker_goes_on(searching: Settings, opensearch: OpenSearchServer) -> None:
    book = Book(seed=24)
    async with open_ledger(searching) as ledger:
        await ledger.append(book.history(40))
        await ledger.build("search")
        async with ledger.followed(SEARCH_PROJECTION) as runner:
            await ledger.append(book.history(100))
            runner.wake()
            await opensearch.kill()
            head = await ledger.append(book.history(50))
            await opensearch.start()
            await ledger.caught_up(head, "search")
        live = await digest(ledger.generations("search").sink, await ledger.live("search"))
        assert await ledger.rebuild("search") == {"search": live}


async def test_a_late_write_of_an_earlier_version_changes_nothing(searching: Settings) -> None:
    async with open_store(searching, read_only=False) as store:
        await SearchSink(store).prepare(Generation(SEARCH, "main", 1))
        index = store.index_of(Generation(SEARCH, "main", 1))
        for position in (7, 7, 5):
            assert await store.write(index, [{"_id": "users/1", "name": f"as of {position}", "position": position}]) == []
        assert (await store.fetch(index, ["users/1"]))["users/1"]["name"] == "as of 7"
        assert await store.write(index, [{"_id": "users/2", "position": 8, "amount": "no number"}]) != []


async def test_an_alias_shows_people_the_documents_of_the_live_generation_alone(searching: Settings) -> None:
    async with open_ledger(searching) as ledger:
        store: SearchStore = ledger.stores.optional["search"]
        book = Book(seed=22)
        await ledger.append([book.create_user(), book.create_user()])
        await ledger.build("search")
        await ledger.rebuild("search")
        await store.refresh(f"{store.prefix}.main.search")
        found = await store.search(f"{store.prefix}.main.search", {"query": {"match_all": {}}})
        live = store.index_of(await ledger.live("search"))
        assert found
        assert [hit["_index"] for hit in found["hits"]["hits"]] == [live, live]


async def test_verify_and_the_doctor_find_an_index_with_another_mapping(searching: Settings) -> None:
    async with open_ledger(searching) as ledger:
        store: SearchStore = ledger.stores.optional["search"]
        await ledger.append([Book(seed=23).create_user()])
        await ledger.build("search")
        assert "search-mapping-changed" not in {each.name for each in await examine_as_any_role(searching)}
        live = await ledger.live("search")
        index, content = store.index_of(live), await store.read_state(store.index_of(live), "@checkpoint")
        assert content
        await store.drop_index(index)
        await store.client.indices.delete_index_template(name=store.template_name)
        await store.put_state(index, "@checkpoint", content.content, None)
        with pytest.raises(DifferenceFound, match="daybook projections rebuild search"):
            await verify_read_model(ledger.stores, SEARCH_PROJECTION, ledger.feed(), lambda _: None)
        found = [each for each in await examine_as_any_role(searching) if each.name == "search-mapping-changed"]
        assert {"the index template is missing", f"field reference of {index} is missing"} <= {
            each.what.removeprefix("in the search store, ") for each in found
        }


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "https://", "https://host?verify=no", "https://host:port", "https://h?ca_certs=/none"]
)
async def test_a_url_that_is_none_of_opensearch_is_refused_without_its_text(settings: Settings, url: str) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_SEARCH_URL") as refused:
        async with open_store(settings.model_copy(update={"search_url": url}), read_only=True):
            pass
    assert not url or url not in str(refused.value)
