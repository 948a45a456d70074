"""The timeline of an account: what it shows, in which order, to whom, and what happens without the store."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from dev.cassandra_server import CassandraServer
from projector.projections.timeline import TIMELINE_PROJECTION
from projector.sinks.protocols import Step
from projector.sinks.timeline import TimelineSink
from query_api.lists import ListSlice
from query_api.timeline_queries import PARTITIONS_MAX, AccountTimeline
from shared.read_models import shapes
from shared.read_models.generations import Generation
from shared.settings import Settings
from shared.timeline import rows
from shared.timeline.store import open_store
from tests.harness.keys import add_key
from tests.harness.log import Book, make_ledger, recorded
from tests.harness.projecting import Ledger, open_ledger
from tests.harness.questions import Questions, query_api
from tests.harness.timeline import empty_timeline, with_timeline
from tests.query_api.test_query_openapi import conforms

pytestmark = pytest.mark.services

BOUND_SECONDS = 3.0
ROOM_SECONDS = 4.0
BUCKET = 7


class Scene:
    """Ada and Zoë have an account each. Money moves between them, and Bob's account is empty."""

    def __init__(self) -> None:
        book = self.book = Book(seed=31)
        people = [book.create_user(name, f"{name.lower()}@example.com") for name in ("Ada", "Bob", "Zoe")]
        accounts = [book.open_account(each.user_id) for each in people]
        self.zoe = people[2].user_id
        self.a, self.b, self.z = (each.account_id for each in accounts)
        salary = book.deposit(self.a, 9_000, reference="Salary", occurred_at="2025-10-31T00:00:00.000000Z")
        self.events: list[Any] = [*people, *accounts, salary, *(book.transfer(self.a, self.z, 10 + each) for each in range(20))]


@pytest_asyncio.fixture
async def ledger(settings: Settings, cassandra: CassandraServer) -> AsyncIterator[Ledger]:
    async with open_ledger(with_timeline(settings, cassandra)) as ledger:
        yield ledger
        await empty_timeline(ledger.stores.optional["timeline"])


def path(account_id: str) -> str:
    return f"/v1/accounts/{account_id}/timeline"


async def all_items(questions: Questions, account_id: str, limit: int) -> list[Any]:
    """Returns the items of all pages, which are of the expected size."""
    pages = await questions.pages(path(account_id), {"limit": str(limit)})
    assert all(len(page) == limit for page in pages[:-1])
    return [item for page in pages for item in page]


async def test_pages_have_all_entries_newest_first_also_over_buckets_and_a_rebuild(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (shapes, rows):
        monkeypatch.setattr(module, "TIMELINE_BUCKET", BUCKET)
    scene = Scene()
    head = await ledger.append(scene.events)
    await ledger.build("accounts", "entries", "days", "timeline")
    async with query_api(ledger.settings) as questions:
        questions.position = head
        whole = {"limit": "50"}
        body = await questions.get(path(scene.a), whole)
        conforms("get_timeline", body)
        entries = (await questions.get(f"/v1/accounts/{scene.a}/entries", whole))["items"]
        told = [{name: value for name, value in each.items() if name != "after_close"} for each in entries]
        assert body["items"] == told
        assert len(told) == 21
        assert (body["next"], body["closing_balances"][0]["balance"]) == (None, told[0]["balance"])
        for limit in (1, 4, 20, 21):
            assert await all_items(questions, scene.a, limit) == told, limit
        month = told[0]["recorded_at"][:7]
        assert (await questions.get(path(scene.a), whole | {"month": month}))["items"] == told
        assert (await questions.get(path(scene.a), {"month": "2001-01"}))["items"] == []
        assert (await questions.get(path(scene.b)))["items"] == []

        first = await questions.get(path(scene.a), {"limit": "4"})
        await ledger.rebuild("timeline")
        second = await questions.get(path(scene.a), {"limit": "4", "cursor": first["next"]})
        assert first["items"] + second["items"] == told[:8], "a cursor stays good when the generation changes"
        for changed in ({"limit": "4", "month": month, "cursor": first["next"]}, {"cursor": first["next"][:-2] + "AA"}):
            answer = await questions.ask(path(scene.a), changed)
            assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")
        for wrong in ({"month": "2026-13"}, {"limit": "0"}, {"unknown": "1"}):
            assert (await questions.ask(path(scene.a), wrong)).status_code == 422


async def test_pages_go_back_over_more_months_than_one_page_reads(settings: Settings, cassandra: CassandraServer) -> None:
    """An account that moves on each day of three years, and one that moves once a month."""
    book, began = Book(seed=32), datetime(2020, 1, 1, 12, tzinfo=UTC)
    user = book.create_user("Ada")
    daily, monthly = book.open_account(user.user_id), book.open_account(user.user_id)
    facts: list[tuple[Any, datetime]] = []
    for day in range(1_100):
        moment = began + timedelta(days=day)
        facts.append((book.deposit(daily.account_id, 5), moment))
        if moment.day == 1:
            facts.append((book.deposit(monthly.account_id, 7), moment + timedelta(hours=1)))
    history = [
        msgspec.structs.replace(each, recorded_at=moment)
        for each, (_, moment) in zip(recorded(fact for fact, _ in facts), facts, strict=True)
    ]
    async with open_store(with_timeline(settings, cassandra), read_only=False) as store:
        generation, changes = Generation(shapes.TIMELINE, "main", 1), TIMELINE_PROJECTION.new_changes()
        TIMELINE_PROJECTION.fold(changes, history)
        await TimelineSink(store).prepare(generation)
        assert await TimelineSink(store).apply(generation, Step(0, len(history), "ab"), changes)
        for account_id, limit, count in (
            (daily.account_id, 500, 1_100),
            (monthly.account_id, 5, 37),
            (monthly.account_id, 50, 37),
        ):
            account = AccountTimeline(store, store.table_of(generation), account_id)
            pages: list[ListSlice] = [await account.page(None, limit, None)]
            while pages[-1].next_key:
                pages.append(await account.page(None, limit, pages[-1].next_key))
            positions = [item["position"] for page in pages for item in page.items]
            assert len(positions) == count
            assert positions == sorted({*positions}, reverse=True)
            balances = await account.closing_balances(pages[0].items)
            assert [each["balance"] for each in balances] == [item["balance"] for item in pages[0].items]
        assert len((await AccountTimeline(store, store.table_of(generation), monthly.account_id).page(None, 50, None)).items) == (
            PARTITIONS_MAX
        )
        await empty_timeline(store)


async def test_customers_see_their_own_accounts_alone(ledger: Ledger) -> None:
    scene = Scene()
    head = await ledger.append(scene.events)
    await make_ledger(ledger.writer, "other")
    await ledger.build("accounts", "entries", "days", "timeline")
    url = ledger.settings.database_url
    async with query_api(ledger.settings) as questions:
        questions.position = head
        zoe = f"Bearer {await add_key(url, 'zoe', user_id=scene.zoe)}"
        blind = f"Bearer {await add_key(url, 'blind', scopes=['events:read'])}"
        elsewhere = f"Bearer {await add_key(url, 'elsewhere', ledger_id='other')}"
        own = await questions.get(path(scene.z), authorization=zoe)
        assert len(own["items"]) == 20
        cursor = (await questions.get(path(scene.z), {"limit": "4"}))["next"]
        stolen = await questions.ask(path(scene.z), {"limit": "4", "cursor": cursor}, authorization=zoe)
        assert (stolen.status_code, stolen.json()["code"]) == (400, "cursor-invalid")
        nobody = "00000000-0000-7000-8000-000000000000"
        for account_id, token, status in (
            (scene.a, zoe, 404),
            (nobody, zoe, 404),
            (scene.z, blind, 403),
            (scene.z, "Bearer nobody", 401),
        ):
            assert (await questions.ask(path(account_id), authorization=token)).status_code == status
        assert (await questions.ask(path(nobody))).status_code == 404
        questions.position = 0
        there = await questions.ask(path(scene.z), prefer="", daybook_ledger="other", authorization=elsewhere)
        assert there.status_code in {404, 503}


# ── without the store ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_where_the_timeline_is_off_the_answer_says_how_to_turn_it_on(settings: Settings) -> None:
    async with query_api(settings) as questions:
        answer = await questions.ask(path(Scene().a))
        assert (answer.status_code, answer.json()["code"]) == (404, "timeline-off")
        assert "DAYBOOK_TIMELINE_URL" in answer.json()["detail"]


async def test_a_store_that_is_gone_or_hangs_is_a_503_in_bounded_time(settings: Settings) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client goes away
        writer.close()

    scene = Scene()
    async with open_ledger(settings) as ledger:
        await ledger.append(scene.events)
        await ledger.build("accounts")
    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    for number in (port, 1):
        asked = settings.model_copy(update={"timeline_url": f"cassandra://127.0.0.1:{number}/daybook"})
        async with query_api(asked, is_patient=False) as questions:
            began = time.monotonic()
            answer = await questions.ask(path(scene.a), prefer="")
            assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
            assert "retry-after" in answer.headers
            assert time.monotonic() - began < BOUND_SECONDS + ROOM_SECONDS
            assert (await questions.ask("/v1/currencies")).status_code == 200
    hanging.close()
