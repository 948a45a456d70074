"""Full-text search: what is found, in which order, by whom, and what happens without the store."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dev.search_servers import OpenSearchServer
from shared.search.store import open_store
from shared.settings import Settings
from tests.harness.keys import add_key
from tests.harness.log import Book, make_ledger
from tests.harness.projecting import Ledger, open_ledger
from tests.harness.questions import Questions, query_api
from tests.harness.search import empty_search, with_search
from tests.query_api.test_query_openapi import conforms

pytestmark = pytest.mark.services

BOUND_SECONDS = 3.0
ROOM_SECONDS = 4.0


class Scene:
    """Ada and Zoë have an account each, and Bob has two. Money moves with references and metadata."""

    def __init__(self) -> None:
        book = self.book = Book(seed=31)
        people = [book.create_user(name, f"{name.lower()}@example.com") for name in ("Ada", "Bob", "Zoe")]
        self.ada, self.bob, self.zoe = (each.user_id for each in people)
        accounts = [book.open_account(owner) for owner in (self.ada, self.bob, self.zoe)]
        dollars = book.open_account(self.bob, "USD")
        self.a, self.b, self.z = (each.account_id for each in accounts)
        self.moves: list[Any] = [
            book.deposit(self.a, 9_000, reference="Salary October", occurred_at="2026-10-31T00:00:00.000000Z"),
            book.transfer(self.a, self.b, 800, reference="Rent November", metadata={"flat": "Häuserweg 7"}),
            book.transfer(self.a, self.z, 50, reference="Dinner <script>"),
            book.transfer(self.b, self.z, 20, reference="rent of a bicycle"),
            book.deposit(dollars.account_id, 7, reference="Gift"),
        ]
        named = book.change_user(self.zoe, "Zoë Quist", hobby="bicycles")
        self.events: list[Any] = [*people, *accounts, dollars, *self.moves, named]

    def id(self, number: int) -> str:
        return str(self.moves[number].transfer_id)


@pytest_asyncio.fixture
async def ledger(settings: Settings, opensearch: OpenSearchServer) -> AsyncIterator[Ledger]:
    async with open_ledger(with_search(settings, opensearch)) as ledger:
        yield ledger
        await empty_search(ledger.stores.optional["search"])


async def built(ledger: Ledger, scene: Scene) -> None:
    await ledger.append(scene.events)
    await ledger.build("search")


async def ids(questions: Questions, q: str | None = None, **parameters: Any) -> list[str]:
    asked = parameters if q is None else {"q": q} | parameters
    return [each["id"] for each in (await questions.get("/v1/search", asked))["items"]]


async def test_words_are_found_in_references_metadata_and_names_also_nearly(ledger: Ledger) -> None:
    scene = Scene()
    await built(ledger, scene)
    async with query_api(ledger.settings) as questions:
        questions.position = len(scene.events)
        body = await questions.get("/v1/search", {"q": "rent"})
        conforms("search", body)
        assert {each["id"] for each in body["items"]} == {scene.id(1), scene.id(3)}
        assert body["position"] == len(scene.events)
        assert await ids(questions, "hauserweg") == [scene.id(1)]
        assert await ids(questions, "november rent") == [scene.id(1)]
        assert await ids(questions, "rent salary") == []
        assert await ids(questions, "salry") == [scene.id(0)]
        assert await ids(questions, "quist", type="user") == [scene.zoe]
        assert set(await ids(questions, "zoe", type="transfer")) == {scene.id(2), scene.id(3)}
        assert await ids(questions, "rent zoë", type="transfer") == [scene.id(3)]
        assert (await ids(questions, "bicycle"))[0] == scene.id(3), "what is spelled so comes before what is spelled nearly so"
        assert await ids(questions, "—") == []
        both = (await questions.get("/v1/search", {"q": "quist bicycle", "type": "transfer"}))["items"]
        assert [(each["from_name"], each["to_name"], each["amount"]) for each in both] == [("Bob", "Zoë Quist", 20)]
        marked = {"reference": ["rent of a <em>bicycle</em>"], "to_name": ["Zoë <em>Quist</em>"]}
        assert both[0]["highlights"] == marked
        [dinner] = (await questions.get("/v1/search", {"q": "dinner"}))["items"]
        assert dinner["highlights"] == {"reference": ["<em>Dinner</em> &lt;script&gt;"]}


async def test_filters_facets_and_pages_agree(ledger: Ledger) -> None:
    scene = Scene()
    await built(ledger, scene)
    async with query_api(ledger.settings) as questions:
        questions.position = len(scene.events)
        body = await questions.get("/v1/search", {"type": "transfer"})
        assert len(body["items"]) == len(scene.moves)
        assert {each["value"]: each["count"] for each in body["facets"]["currency"]} == {"EUR": 4, "USD": 1}
        assert {each["value"]: each["count"] for each in body["facets"]["kind"]} == {"transfer": 3, "deposit": 2}
        assert {"value": "2026-10", "count": 1} in body["facets"]["month"]
        for name, facet in body["facets"].items():
            for each in facet:
                assert len(await ids(questions, type="transfer", **{name: each["value"]})) == each["count"]
        assert set(await ids(questions, account_id=scene.z)) == {scene.id(2), scene.id(3)}
        for asked in ({"q": "rent"}, {"sort": "recorded_at"}, {}, {"q": "rent", "sort": "-recorded_at"}):
            whole = await ids(questions, **asked)
            pages = await questions.pages("/v1/search", {**asked, "limit": "1"})
            assert [each["id"] for page in pages for each in page] == whole
        cursor = (await questions.get("/v1/search", {"q": "rent", "limit": "1"}))["next"]
        for other in ({"q": "rents"}, {"q": "rent", "sort": "recorded_at"}, {"q": "rent", "currency": "EUR"}):
            answer = await questions.ask("/v1/search", other | {"limit": "1", "cursor": cursor})
            assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")
        for wrong in ({"q": ""}, {"q": "x" * 201}, {"month": "2026-13"}, {"sort": "amount"}, {"x": "1"}, {"type": "account"}):
            answer = await questions.ask("/v1/search", wrong)
            assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")


async def test_customers_find_their_own_and_learn_nothing_of_others(ledger: Ledger) -> None:
    scene = Scene()
    salaries = scene.book.move((scene.a, -30), (scene.b, 10), (scene.z, 20), reference="salaries")
    await built(ledger, scene)
    await ledger.append([salaries])
    await make_ledger(ledger.writer, "other")
    await ledger.build("search")
    url = ledger.settings.database_url
    async with query_api(ledger.settings) as questions:
        questions.position = len(scene.events) + 1
        bearers = {
            "zoe": await add_key(url, "zoe", user_id=scene.zoe),
            "blind": await add_key(url, "blind", scopes=["events:read"]),
            "elsewhere": await add_key(url, "elsewhere", ledger_id="other"),
        }
        zoe, blind, elsewhere = (f"Bearer {bearers[name]}" for name in ("zoe", "blind", "elsewhere"))
        own = await questions.get("/v1/search", authorization=zoe)
        conforms("search", own)
        assert {each["id"] for each in own["items"]} == {scene.id(2), scene.id(3), scene.zoe}
        assert {each["from_name"] for each in own["items"] if each["type"] == "transfer"} == {None}
        assert sum(each["count"] for each in own["facets"]["kind"]) == 2, "facets count nothing of others"
        for nothing in ({"q": "bob"}, {"q": "ada"}, {"q": "salary"}, {"q": "salaries"}, {"account_id": scene.a, "q": "rent"}):
            found = await questions.get("/v1/search", nothing, authorization=zoe)
            assert (found["items"], found["facets"]["kind"]) == ([], []), nothing
        assert len((await questions.get("/v1/search", {"q": "salaries"}))["items"]) == 1
        cursor = (await questions.get("/v1/search", {"limit": "1"}))["next"]
        answer = await questions.ask("/v1/search", {"limit": "1", "cursor": cursor}, authorization=zoe)
        assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")
        for token, status in ((blind, 403), ("Bearer nobody", 401)):
            assert (await questions.ask("/v1/search", {"q": "rent"}, authorization=token)).status_code == status
        there = await questions.ask("/v1/search", prefer="", daybook_ledger="main", authorization=elsewhere)
        assert there.status_code == 404
        questions.position = 0
        other = await questions.ask("/v1/search", prefer="", daybook_ledger="other", authorization=elsewhere)
        assert (other.status_code, other.json()["code"]) == (503, "rebuilding")


async def test_an_erased_person_is_found_no_more(ledger: Ledger) -> None:
    scene = Scene()
    await built(ledger, scene)
    async with query_api(ledger.settings) as questions:
        questions.position = await ledger.append([scene.book.erase_user(scene.zoe)])
        await ledger.build("search")
        for q in ("zoë", "quist", "zoe@example.com", "hobby"):
            assert scene.zoe not in await ids(questions, q)
        assert await ids(questions, "quist") == []
        [erased] = [each for each in (await questions.get("/v1/search", {"type": "user"}))["items"] if each["id"] == scene.zoe]
        assert (erased["name"], erased["email"], erased["metadata"], erased["status"]) == (None, None, None, "erased")


# ── without the store ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_where_search_is_off_the_answer_says_how_to_turn_it_on(settings: Settings) -> None:
    async with query_api(settings) as questions:
        answer = await questions.ask("/v1/search", {"q": "rent"})
        assert (answer.status_code, answer.json()["code"]) == (404, "search-off")
        assert "DAYBOOK_SEARCH_URL" in answer.json()["detail"]


async def test_a_store_that_is_gone_or_hangs_is_a_503_in_bounded_time(settings: Settings) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client goes away
        writer.close()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    for number in (port, 1):
        asked = settings.model_copy(update={"search_url": f"http://127.0.0.1:{number}"})
        async with query_api(asked, is_patient=False) as questions:
            began = time.monotonic()
            answer = await questions.ask("/v1/search", {"q": "rent"}, prefer="")
            assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
            assert "retry-after" in answer.headers
            assert time.monotonic() - began < BOUND_SECONDS + ROOM_SECONDS
            assert (await questions.ask("/v1/currencies")).status_code == 200
    hanging.close()


async def test_a_store_that_is_new_says_that_it_is_being_filled(settings: Settings, opensearch: OpenSearchServer) -> None:
    settings = with_search(settings, opensearch)
    async with query_api(settings) as questions:
        answer = await questions.ask("/v1/search", {"q": "rent"}, prefer="")
        assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
    async with open_store(settings, read_only=True) as store:
        assert await store.read_mappings() == {}
