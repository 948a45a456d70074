"""Balances as of the past, on both axes, compared with a plain fold of the log."""

import json
import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from query_api.past_balances import PastMoment, find_posted
from query_api.reading import AsOf, CallerView, Freshness, Reader
from shared.log.events import Event
from shared.log.moments import READ_POSITIONS_AT
from shared.log.read import read_all
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel
from shared.settings import Settings
from shared.timestamps import timestamp
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

LONG_AGO = "2025-03-05T00:00:00.000000Z"


class Line(msgspec.Struct):
    """What one event did to one account."""

    account_id: str
    amount: int
    position: int
    recorded_at: str
    occurred_at: str


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def lines_of(api: Questions) -> list[Line]:
    """Reads the whole log and returns what each event did to each account."""
    async with api.writer.connect() as connection:
        events = await read_all(connection, "main", 0, 10_000)
    return [
        Line(posting.account_id, posting.amount, each.position, recorded_at, occurred_at)
        for each in events
        for recorded_at in (timestamp(each.recorded_at),)
        for occurred_at in (getattr(each.event, "occurred_at", None) or recorded_at,)
        for posting in each.event.postings()
        if posting.account_id
    ]


def moved(moment: str, microseconds: int) -> str:
    return timestamp(datetime.fromisoformat(moment) + timedelta(microseconds=microseconds))


def back_dated(seed: int, book: Book, lines: Sequence[Line], count: int) -> Iterator[Event]:
    """Money moves in every way. Most of it occurred earlier than it is recorded, some of it at moments that others have too."""
    chance = random.Random(seed)
    accounts = list(book.accounts)
    for _ in range(count):
        known = chance.choice(lines).recorded_at if lines else None
        near = moved(known, chance.choice([-1_000_000, -1, 0])) if known else None
        some = f"2025-0{chance.randint(1, 3)}-0{chance.randint(1, 3)}T1{chance.randint(0, 1)}:00:0{chance.randint(0, 1)}"
        details = {
            "occurred_at": chance.choice([None, LONG_AGO, f"{some}.000000Z", f"{some}.00100{chance.randint(0, 1)}Z", near])
        }
        payer, payee = chance.sample(accounts, 2)
        kind = chance.choice(["deposit", "withdrawal", "transfer", "capture"])
        if kind == "deposit":
            yield book.deposit(payer, chance.randint(1, 2**40), **details)
        elif kind == "withdrawal":
            yield book.withdraw(payer, chance.randint(1, 2**40), **details)
        elif kind == "transfer":
            yield book.transfer(payer, payee, chance.randint(1, 2**40), **details)
        else:
            hold = book.place_hold(payer, 500, chance.choice([None, payee]))
            yield from (hold, book.capture(hold.hold_id, chance.randint(1, 300), occurred_at=details["occurred_at"]))


async def record_a_past(api: Questions, seed: int) -> tuple[Book, list[Line]]:
    book = Book(seed)
    lines: list[Line] = []
    users = [book.create_user() for _ in range(4)]
    await api.record([*users, *(book.open_account(user.user_id, overdraft_limit=2**50) for user in users)])
    for batch in range(6):
        await api.record(list(back_dated(seed + batch, book, lines, 12)))
        lines = await lines_of(api)
    return book, lines


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_past_is_the_fold_of_the_log_at_random_places_on_both_axes(api: Questions, seed: int) -> None:
    book, lines = await record_a_past(api, seed)
    chance = random.Random(seed)
    async with api.writer.connect() as connection:
        places = [(each.position, timestamp(each.recorded_at)) for each in await read_all(connection, "main", 0, 10_000)]
    moments = [moment for line in lines for moment in (line.recorded_at, line.occurred_at)]
    for account_id in book.accounts:
        own = [line for line in lines if line.account_id == account_id]
        for moment in [moved(each, chance.randint(-1, 1)) for each in chance.sample(moments, 12)]:
            recorded = await past(api, account_id, moment, "recorded_at")
            assert recorded["posted"] == sum(line.amount for line in own if line.recorded_at <= moment)
            assert recorded["position"] == max((each for each, at in places if at <= moment), default=0)
            occurred = await past(api, account_id, moment, "occurred_at")
            assert occurred["posted"] == sum(line.amount for line in own if line.occurred_at <= moment)
            assert (recorded["moment"], occurred["moment"]) == (moment, moment)
        for line in chance.sample(lines, 8):
            recorded = await past(api, account_id, line.position, "recorded_at")
            assert recorded["posted"] == sum(other.amount for other in own if other.position <= line.position)
            assert (recorded["position"], recorded["moment"]) == (line.position, line.recorded_at)
            occurred = await past(api, account_id, line.position, "occurred_at")
            assert occurred["posted"] == sum(other.amount for other in own if other.occurred_at <= line.recorded_at)


async def past(api: Questions, account_id: str, at: str | int, axis: str) -> dict[str, Any]:
    body: dict[str, Any] = await api.get(f"/v1/accounts/{account_id}/balance", {"at": at, "axis": axis})
    assert list(body) == ["account_id", "currency", "posted", "axis", "moment", "position"]
    return body


async def test_a_back_dated_entry_changes_what_was_true_and_not_what_was_known(api: Questions) -> None:
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    account_id = account.account_id
    await api.record([user, account, book.deposit(account_id, 100, occurred_at=LONG_AGO)])
    known = await past(api, account_id, 3, "recorded_at")
    assert (await past(api, account_id, LONG_AGO, "recorded_at"))["posted"] == 0
    assert (await past(api, account_id, LONG_AGO, "occurred_at"))["posted"] == 100
    entries = await api.get(f"/v1/accounts/{account_id}/entries")
    await api.record([book.withdraw(account_id, 30, occurred_at=moved(LONG_AGO, -1))])
    assert await past(api, account_id, 3, "recorded_at") == known
    assert (await past(api, account_id, moved(LONG_AGO, -1), "occurred_at"))["posted"] == -30
    assert (await past(api, account_id, LONG_AGO, "occurred_at"))["posted"] == 70
    assert (await api.get(f"/v1/accounts/{account_id}/entries"))["items"][1:] == entries["items"]


async def test_a_place_that_is_none_is_refused_and_one_to_come_is_answered_with_all_that_is_known(api: Questions) -> None:
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    path = f"/v1/accounts/{account.account_id}/balance"
    await api.record([user, account, book.deposit(account.account_id, 100)])
    wrong = [{"at": "4"}, {"at": "0"}, {"at": "-1"}, {"at": "2026"}, {"at": "2026-11-21"}, {"at": ""}, {"at": "9" * 16}]
    for parameters in (*wrong, {"axis": "occurred_at"}, {"at": "3", "axis": "recorded"}, {"at": "3", "limit": "1"}):
        answer = await api.ask(path, parameters)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed"), parameters
    for axis in ("recorded_at", "occurred_at"):
        later = await past(api, account.account_id, "2199-12-31T23:59:59Z", axis)
        assert (later["posted"], later["position"]) == (100, 3)
        earlier = await past(api, account.account_id, "1900-01-01T00:00:00Z", axis)
        assert (earlier["posted"], earlier["moment"]) == (0, "1900-01-01T00:00:00.000000Z")
    assert (await api.ask(f"/v1/accounts/{book.new_id()}/balance", {"at": "3"})).status_code == 404


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────────


class CountingView(CallerView):
    """Counts the keys and the documents that MongoDB examines for each question."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, "main", Freshness())
        self.examined: dict[str, tuple[int, int]] = {}
        self.plans = ""

    def reaching(self, position: int) -> CallerView:
        assert position
        return self

    async def documents(
        self, model: ReadModel, pipeline: Sequence[dict[str, Any]], *, alone: bool = False
    ) -> AsOf[list[dict[str, Any]]]:
        generation = Generation(model, self.ledger_id, 1).documents()
        command = {"aggregate": generation.collection_name, "pipeline": generation.stages(pipeline), "cursor": {}}
        explained = json.dumps(await self.reader.mongo.command("explain", command, verbosity="executionStats"), default=str)
        self.plans += explained
        keys, documents = (
            max(map(int, re.findall(rf'"{name}": (\d+)', explained))) for name in ("totalKeysExamined", "totalDocsExamined")
        )
        self.examined[model.name] = keys, documents
        return await super().documents(model, pipeline, alone=alone)


FEW, MANY = 100, 4_000


@pytest.mark.slow
async def test_what_is_examined_does_not_grow_with_the_account(settings: Settings) -> None:
    """All entries are back-dated, to moments that are spread over four months and come in no order."""
    async with query_api(settings) as api:
        async with projecting(api, settings):
            book, chance = Book(), random.Random(1)
            user = book.create_user()
            opened = {count: book.open_account(user.user_id) for count in (FEW, MANY)}
            await api.record([user, *opened.values()])
            for count, account in opened.items():
                moments = [moved(LONG_AGO, chance.randrange(10**13)) for _ in range(count)]
                await api.record(book.deposit(account.account_id, 1, occurred_at=moment) for moment in moments)
                await past(api, account.account_id, LONG_AGO, "occurred_at")
        reader = Reader(api.stores.engine, api.stores.mongo, api.stores.redis, settings)
        place = PastMoment(moved(LONG_AGO, 10**13 * 9 // 10), api.position - 1)
        most: dict[int, dict[str, tuple[int, int]]] = {}
        for count, account in opened.items():
            view = CountingView(reader)
            await find_posted(view, [account.account_id], place, "occurred_at")
            assert "IXSCAN" in view.plans
            assert not re.search("COLLSCAN|SORT_KEY", view.plans)
            most[count] = view.examined
    assert most[FEW]["entries"] == most[MANY]["entries"] == (1, 1), "only the last entry"
    assert max(most[MANY]["shifts"]) < FEW < MANY, most


async def test_a_moment_is_found_in_the_log_by_halving(api: Questions) -> None:
    await api.record(Book().history(3_000))
    async with api.writer.connect() as connection:
        [first] = await read_all(connection, "main", 1_499, 1)
        explain = text("EXPLAIN (ANALYZE, FORMAT JSON) " + READ_POSITIONS_AT.text)
        plan = json.dumps(await connection.scalar(explain, {"ledger_id": "main", "moments": [first.recorded_at]}))
    assert "events_pkey" in plan
    assert '"Seq Scan", "Parent Relationship": "Inner"' not in plan
    loops = [int(each) for each in re.findall(r'"Index Name": "events_pkey".*?"Actual Loops": (\d+)', plan)]
    assert max(loops) <= 12, "one look-up for each doubling"
