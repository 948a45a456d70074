"""The trial balance and the list of accounts as of the past, on both axes, compared with a plain fold of the log."""

import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from query_api.past_balances import PastMoment, find_sums
from query_api.reading import Reader
from shared.log.read import read_all
from shared.settings import Settings
from shared.timestamps import timestamp
from tests.harness.keys import add_key, bearer
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api
from tests.query_api.test_past_balances import LONG_AGO, CountingView, back_dated, moved

pytestmark = pytest.mark.services


class Move(msgspec.Struct):
    """What one event did to one account, or to the outside world if `account_id` is None."""

    account_id: str | None
    currency: str
    amount: int
    position: int
    recorded_at: str
    occurred_at: str


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def moves_of(api: Questions) -> list[Move]:
    """Reads the whole log and returns all postings, also those of the outside world."""
    async with api.writer.connect() as connection:
        events = await read_all(connection, "main", 0, 10_000)
    return [
        Move(posting.account_id, posting.currency, posting.amount, each.position, recorded_at, occurred_at)
        for each in events
        for recorded_at in (timestamp(each.recorded_at),)
        for occurred_at in (getattr(each.event, "occurred_at", None) or recorded_at,)
        for posting in each.event.postings()
    ]


async def record_a_past(api: Questions, seed: int) -> tuple[Book, list[Move]]:
    book = Book(seed)
    moves: list[Move] = []
    await api.record(list(book.history(60)))
    users = [book.create_user() for _ in range(3)]
    opened = [book.open_account(user.user_id, overdraft_limit=2**50) for user in users]
    await api.record([*users, *opened])
    apart = Book(seed + 100)
    for account in opened:  # only their money moves from now on
        apart.accounts[account.account_id], apart.balances[account.account_id] = "EUR", 0
    for batch in range(4):
        await api.record(list(back_dated(seed + batch, apart, [], 15)))
    moves = await moves_of(api)
    return book, moves


def counted(moves: list[Move], at: int | str, axis: str) -> list[Move]:
    """Returns what happened up to a place. On `occurred_at`, a position means its moment."""
    if isinstance(at, int) and axis == "recorded_at":
        return [move for move in moves if move.position <= at]
    moment = next(move.recorded_at for move in moves if move.position == at) if isinstance(at, int) else at
    return [move for move in moves if getattr(move, axis) <= moment]


def places(chance: random.Random, moves: list[Move]) -> list[int | str]:
    moments = [moment for move in moves for moment in (move.recorded_at, move.occurred_at)]
    found = [moved(each, chance.randint(-1, 1)) for each in chance.sample(moments, 10)]
    return [
        *found,
        *(move.position for move in chance.sample(moves, 6)),
        "1900-01-01T00:00:00.000000Z",
        "2199-12-31T23:59:59.999999Z",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_past_is_the_fold_of_the_log_at_random_places_on_both_axes(api: Questions, seed: int) -> None:
    _, moves = await record_a_past(api, seed)
    assert any(move.recorded_at != move.occurred_at for move in moves)
    for at in places(random.Random(seed), moves):
        for axis in ("recorded_at", "occurred_at"):
            known = counted(moves, at, axis)
            answer = await api.get("/v1/trial-balance", {"at": at, "axis": axis})
            assert [line["currency"] for line in answer["currencies"]] == ["EUR", "JPY"]
            assert answer["axis"] == axis
            for line in answer["currencies"]:
                own = [move for move in known if move.currency == line["currency"]]
                inside, outside = (sum(move.amount for move in own if bool(move.account_id) == side) for side in (True, False))
                assert (line["accounts"], line["outside"], line["sum"]) == (str(inside), str(outside), "0"), (at, axis)
            listed = await api.get("/v1/accounts", {"at": at, "axis": axis, "limit": 100})
            for account in listed["items"]:
                posted = sum(move.amount for move in known if move.account_id == account["id"])
                assert (account["balance"]["posted"], account["balance"]["axis"]) == (posted, axis), (at, axis)
            if isinstance(at, int) and axis == "recorded_at":
                assert (answer["position"], listed["position"]) == (at, at)
            for currency in ("EUR", "JPY"):
                [line] = [each for each in answer["currencies"] if each["currency"] == currency]
                balances = [each["balance"] for each in listed["items"] if each["currency"] == currency]
                assert sum(balance["posted"] for balance in balances) == int(line["accounts"])


async def test_what_was_known_does_not_change_and_a_back_dated_deposit_changes_what_was_true(api: Questions) -> None:
    book = Book()
    account = book.open_account(book.new_id())
    await api.record([account, book.deposit(account.account_id, 100)])
    known = await api.get("/v1/trial-balance", {"at": 2})
    listed = await api.get("/v1/accounts", {"at": 2})
    await api.record([book.deposit(account.account_id, 30, occurred_at=LONG_AGO)])
    assert await api.get("/v1/trial-balance", {"at": 2}) == known
    assert await api.get("/v1/accounts", {"at": 2}) == listed
    [then] = (await api.get("/v1/trial-balance", {"at": LONG_AGO, "axis": "occurred_at", "currency": "EUR"}))["currencies"]
    assert then == {"currency": "EUR", "accounts": "30", "outside": "-30", "sum": "0"}
    [unused] = (await api.get("/v1/trial-balance", {"at": 2, "currency": "USD"}))["currencies"]
    assert unused == {"currency": "USD", "accounts": "0", "outside": "0", "sum": "0"}


async def test_the_pages_of_the_past_are_whole_and_a_customer_sees_the_own_accounts(api: Questions, settings: Settings) -> None:
    book = Book()
    owner = book.create_user()
    opened = [book.open_account(owner.user_id if number % 2 else book.new_id()) for number in range(6)]
    filled = [book.deposit(each.account_id, number + 1) for number, each in enumerate(opened)]
    later = [book.deposit(each.account_id, 100) for each in opened]
    await api.record([owner, *opened, *filled])
    await api.record(later)
    at = 1 + len(opened) + 4
    expected = {each.account_id: number + 1 if number < 4 else 0 for number, each in enumerate(opened)}
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while cursor or not items:
        page = await api.get("/v1/accounts", {"at": at, "limit": 4} | ({"cursor": cursor} if cursor else {}))
        items += page["items"]
        cursor = page["next"]
        assert page["position"] == at
    assert {each["id"]: each["balance"]["posted"] for each in items} == expected
    assert [set(each) for each in items[:1]] == [{"id", "owner_id", "currency", "opened_at", "balance"}]
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner.user_id))
    own = (await api.get("/v1/accounts", {"at": at}, **customer))["items"]
    assert {each["id"] for each in own} == {each.account_id for each in opened[1::2]}
    assert (await api.ask("/v1/trial-balance", {"at": at}, **customer)).status_code == 403
    nobody = await api.get("/v1/accounts", {"at": at, "axis": "occurred_at", "owner_id": book.new_id()})
    assert (nobody["items"], nobody["next"]) == ([], None)


async def test_a_place_that_is_none_and_what_only_today_has_are_refused(api: Questions) -> None:
    book = Book()
    await api.record([book.open_account(book.new_id())])
    wrong: list[dict[str, str]] = [{"at": "2"}, {"at": "0"}, {"at": "x"}, {"axis": "occurred_at"}, {"at": "1", "axis": "now"}]
    for parameters in wrong:
        for path in ("/v1/trial-balance", "/v1/accounts"):
            answer = await api.ask(path, parameters)
            assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed"), (path, parameters)
    of_today = ({"status": "open"}, {"metadata[a]": "b"}, {"currency": "EUR", "sort": "posted"})
    for parameters in of_today:
        assert (await api.ask("/v1/accounts", parameters)).status_code == 200
        assert (await api.ask("/v1/accounts", {"at": "1"} | parameters)).status_code == 422, parameters


async def test_what_is_examined_does_not_grow_with_the_log(settings: Settings) -> None:
    """All events are deposits. At each level of the tree of positions, at most a thousand documents are read."""
    async with query_api(settings) as api:
        async with projecting(api, settings):
            book = Book()
            account = book.open_account(book.new_id())
            await api.record([account])
            await api.record(book.deposit(account.account_id, 1) for _ in range(4_000))
            await api.get("/v1/trial-balance", {"at": 4_001})
        reader = Reader(api.stores.engine, api.stores.mongo, api.stores.redis, settings)
        examined = []
        for position in (300, 2_300, 4_000):
            view = CountingView(reader)
            sums = await find_sums(view, ["EUR"], PastMoment(LONG_AGO, position), "recorded_at")
            assert sums.data == {"EUR": (position - 1, 1 - position)}
            assert "IXSCAN" in view.plans
            assert "COLLSCAN" not in view.plans
            examined.append(max(view.examined["currency-sums"]))
    assert examined[1] - examined[0] < 20, "two more thousands on each side"
    assert examined[2] < examined[0], "a round position needs no single ones"
