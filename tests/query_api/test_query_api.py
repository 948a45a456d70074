"""The query API on real stores with the real projector: answers, their positions, and their pages."""

import asyncio
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from projector.feed import Feed
from projector.generations.build import GenerationBuild
from projector.generations.generations import Generations
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS
from projector.sinks.mongo import MongoSink
from projector.sinks.redis import RedisSink
from query_api.reading import SWITCH_SECONDS, Reader
from query_api.resources.entries import ENTRY_EXAMPLE
from shared.log.account_events import AccountFrozen
from shared.log.events import Event
from shared.log.user_events import UserDeactivated
from shared.read_models.generations import Generation, pointer_id, pointer_key
from shared.read_models.shapes import BALANCES, READ_MODELS, USERS
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness import log
from tests.harness.clients import served
from tests.harness.documents import StoredDocuments, documents_of
from tests.harness.keys import add_key
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

NOBODY = "0198c5a0-0000-7000-8000-00000000dead"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


@pytest.fixture
async def alone(settings: Settings) -> AsyncIterator[Questions]:
    """Without a projector."""
    async with query_api(settings) as questions:
        yield questions


def code(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["code"])


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


# ── one thing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_answer_for_a_user_has_its_version_and_position(api: Questions) -> None:
    book = Book()
    user = book.create_user("Ada", "ada@example.com")
    await api.record([user, book.create_user(), UserDeactivated(user_id=user.user_id)])
    answer = await api.ask(f"/v1/users/{user.user_id}")
    body = answer.json()
    assert body.pop("created_at") == body.pop("changed_at")
    assert body == {
        "id": user.user_id,
        "name": "Ada",
        "email": "ada@example.com",
        "status": "inactive",
        "metadata": None,
        "version": 2,
        "position": 3,
    }
    assert (answer.headers["etag"], answer.headers["daybook-position"]) == ('"v2"', "3")
    assert answer.headers["cache-control"] == "no-store"


async def test_an_account_is_the_same_from_redis_and_from_mongodb(api: Questions) -> None:
    book = Book()
    opened = book.open_account(book.new_id(), overdraft_limit=300)
    moved = (book.deposit(opened.account_id, 1_000), book.withdraw(opened.account_id, 1_200))
    await api.record([opened, *moved, AccountFrozen(account_id=opened.account_id, currency="EUR")])
    account = await api.get(f"/v1/accounts/{opened.account_id}")
    balance = await api.get(f"/v1/accounts/{opened.account_id}/balance")
    listed = await api.get("/v1/accounts", {"owner_id": opened.owner_id, "status": "frozen", "currency": "EUR"})
    assert account == listed["items"][0] | {"position": 4}
    assert (account["status"], account["version"], account["overdraft_limit"]) == ("frozen", 4, 300)
    assert balance == account["balance"] | {"position": 4}
    assert account["balance"] == {
        "account_id": opened.account_id,
        "currency": "EUR",
        "posted": -200,
        "held": 0,
        "available": 100,
    }


async def test_a_transfer_has_its_own_position_and_the_answer_has_the_later_one(api: Questions) -> None:
    book = Book()
    one, other = (book.open_account(book.new_id()) for _ in range(2))
    paid = book.transfer(one.account_id, other.account_id, 5, reference="rent", metadata={"$a.b": "{}"})
    await api.record([one, other, paid, book.deposit(one.account_id, 1)])
    answer = await api.ask(f"/v1/transfers/{paid.transfer_id}")
    body = answer.json()
    assert (body["position"], answer.headers["daybook-position"]) == (3, "4")
    assert (body["kind"], body["amount"], body["metadata"]) == ("transfer", 5, {"$a.b": "{}"})
    assert body["occurred_at"] == body["recorded_at"]


async def test_the_largest_balance_is_exact_in_every_answer(api: Questions) -> None:
    book = Book()
    opened = book.open_account(book.new_id(), "JPY")
    await api.record([opened, book.deposit(opened.account_id, 2**53 - 1)])
    most = 2**53 - 1
    balance = await api.get(f"/v1/accounts/{opened.account_id}/balance")
    assert (balance["posted"], balance["available"]) == (most, most)
    statistics = await api.get("/v1/stats", {"currency": "JPY"})
    assert statistics["ranking"] == [{"account_id": opened.account_id, "posted": most}]
    [entry] = (await api.get(f"/v1/accounts/{opened.account_id}/entries"))["items"]
    assert (entry["amount"], entry["balance"]) == (most, most)


async def test_a_missing_thing_is_a_404_that_says_its_position(api: Questions) -> None:
    await api.record([Book().create_user()])
    things = ["users/{}", "accounts/{}", "accounts/{}/balance", "accounts/{}/entries", "transfers/{}"]
    for thing in (*things, "streams/account-{}", "projections/nothing"):
        answer = await api.ask(f"/v1/{thing.format(NOBODY)}")
        assert (answer.status_code, code(answer), answer.headers["daybook-position"]) == (404, "not-found", "1")
        assert NOBODY not in answer.text


async def test_an_id_in_upper_case_names_the_same_thing(api: Questions) -> None:
    user = Book().create_user()
    await api.record([user])
    assert (await api.get(f"/v1/users/{user.user_id.upper()}"))["id"] == user.user_id


async def test_an_invalid_id_is_rejected_and_not_repeated(alone: Questions) -> None:
    for thing in ("users/1", "accounts/%24where", f"transfers/{NOBODY}%00", "streams/x-1", "accounts/%ff/balance"):
        answer = await alone.ask(f"/v1/{thing}")
        assert (answer.status_code, code(answer)) == (422, "validation-failed")
        assert "where" not in answer.text


async def test_the_same_version_is_not_sent_twice(api: Questions) -> None:
    book = Book()
    opened = book.open_account(book.new_id())
    await api.record([opened])
    path = f"/v1/accounts/{opened.account_id}"
    tag = (await api.ask(path)).headers["etag"]
    for asked in (tag, f'"v9", W/{tag}', "*"):
        unchanged = await api.ask(path, if_none_match=asked)
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
        assert unchanged.headers["daybook-position"] == "1"
    await api.record([book.deposit(opened.account_id, 5)])
    assert (await api.ask(path, if_none_match=tag)).json()["balance"]["posted"] == 5


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_users_are_found_by_the_beginnings_of_words(api: Questions) -> None:
    book = Book()
    people = {"Zoë Ångström": "zoe@example.com", "Ada Lovelace": "ada@example.org", "Adam Smith": "as@wealth.example"}
    users = {name: book.create_user(name, email).user_id for name, email in people.items()}
    created = [book.create_user(name, email) for name, email in people.items()]
    await api.record(created)
    users = {event.name: event.user_id for event in created}

    async def found(search: str) -> set[str]:
        return set(ids((await api.get("/v1/users", {"search": search}))["items"]))

    assert await found("ada") == {users["Ada Lovelace"], users["Adam Smith"]}
    assert await found("LOVE ada") == {users["Ada Lovelace"]}
    assert await found("angstrom") == await found("Zoë Å") == {users["Zoë Ångström"]}
    assert await found("as@wealth") == {users["Adam Smith"]}
    assert await found("lace") == set()
    assert await found("{$ne:1} .*") == set()


async def test_users_are_filtered_by_status_and_sorted(api: Questions) -> None:
    book = Book()
    users = [book.create_user(name) for name in ("Cleo", "Ada", "Bea")]
    await api.record([*users, UserDeactivated(user_id=users[2].user_id)])
    assert [u["name"] for u in (await api.get("/v1/users", {"sort": "-name"}))["items"]] == ["Cleo", "Bea", "Ada"]
    assert [u["name"] for u in (await api.get("/v1/users", {"status": "inactive"}))["items"]] == ["Bea"]
    active = (await api.get("/v1/users", {"status": "active", "sort": "name"}))["items"]
    assert [u["name"] for u in active] == ["Ada", "Cleo"]


async def test_accounts_are_sorted_by_balance(api: Questions) -> None:
    book = Book()
    opened = [book.open_account(book.new_id()) for _ in range(5)]
    await api.record([*opened, *(book.deposit(o.account_id, n % 3 + 1) for n, o in enumerate(opened))])
    pages = await api.pages("/v1/accounts", {"sort": "-posted", "currency": "EUR", "limit": 2})
    items = [item for page in pages for item in page]
    assert [item["balance"]["posted"] for item in items] == [3, 2, 2, 1, 1]
    assert len(set(ids(items))) == 5


async def test_transfers_are_found_by_account_currency_amount_and_time(api: Questions) -> None:
    book = Book()
    one, other = (book.open_account(book.new_id()) for _ in range(2))
    yen = book.open_account(book.new_id(), "JPY")
    moved: list[Event] = [
        book.deposit(one.account_id, 10, occurred_at="2020-01-01T00:00:00.000000Z"),
        book.transfer(one.account_id, other.account_id, 20, occurred_at="2021-01-01T00:00:00.000000Z"),
        book.deposit(yen.account_id, 30, occurred_at="2022-01-01T00:00:00.000000Z"),
    ]
    await api.record([one, other, yen])
    for event in moved:
        await api.record([event])

    async def amounts(**parameters: Any) -> list[int]:
        named = {name.replace("__", "[") + "]" if "__" in name else name: value for name, value in parameters.items()}
        return [item["amount"] for item in (await api.get("/v1/transfers", named))["items"]]

    assert await amounts() == [30, 20, 10]
    assert await amounts(sort="position") == await amounts(sort="amount") == await amounts(sort="occurred_at") == [10, 20, 30]
    assert await amounts(account_id=one.account_id) == [20, 10]
    assert await amounts(account_id=other.account_id) == [20]
    assert await amounts(currency="JPY") == await amounts(currency="JPY", sort="-amount") == [30]
    assert await amounts(amount__gt=10, amount__lte=20) == [20]
    assert await amounts(occurred_at__gte="2021-01-01T01:00:00+01:00") == [30, 20]
    recorded_at = [item["recorded_at"] for item in (await api.get("/v1/transfers"))["items"]]
    assert await amounts(recorded_at__lt=recorded_at[0]) == [20, 10]
    assert await amounts(recorded_at__lte=recorded_at[1], sort="recorded_at", limit=2) == [10, 20]


async def test_entries_add_up_to_the_balance(api: Questions) -> None:
    book = Book(3)
    await api.record(book.history(400, accounts=3))
    for account_id, balance in list(book.balances.items())[:3]:
        entries = [e for page in await api.pages(f"/v1/accounts/{account_id}/entries", {"limit": 7}) for e in page]
        assert entries[0]["balance"] == balance
        assert all(new["balance"] == old["balance"] + new["amount"] for new, old in pairwise(entries))
        upwards = [
            e for page in await api.pages(f"/v1/accounts/{account_id}/entries", {"limit": 9, "sort": "position"}) for e in page
        ]
        assert upwards == entries[::-1]
        outflows = (await api.get(f"/v1/accounts/{account_id}/entries", {"amount[lt]": 0, "limit": 100}))["items"]
        assert (
            outflows
            == sorted((e for e in entries if e["amount"] < 0), key=lambda e: (e["amount"], e["position"]), reverse=True)[:100]
        )


async def test_entries_are_answered_as_stored_with_a_mark_and_nothing_more(api: Questions) -> None:
    book = Book()
    one, other = (book.open_account(book.create_user().user_id) for _ in range(2))
    deposits = [book.deposit(one.account_id, amount, reference=f'№ "{amount}" \n 𝄞') for amount in (1, 2**53 - 5, 3)]
    await api.record([one, other, *deposits])
    page = await api.ask(f"/v1/accounts/{one.account_id}/entries")
    stored = await documents_of(api.stores.mongo, "entries").all({"account_id": one.account_id}, -1)
    texts = [document["item"][:-1] + ',"after_close":false}' for document in stored]
    assert page.text == f'{{"items":[{",".join(texts)}],"next":null,"position":5}}'
    body = page.json()
    assert ([item["amount"] for item in body["items"]], list(body["items"][0])) == ([3, 2**53 - 5, 1], list(ENTRY_EXAMPLE))
    pages = await api.pages(f"/v1/accounts/{one.account_id}/entries", {"limit": 1})
    assert pages == [[item] for item in body["items"]]
    # A page that ends where the list ends has no next page.
    whole = await api.get(f"/v1/accounts/{one.account_id}/entries", {"limit": 3})
    assert (whole["items"], whole["next"]) == (body["items"], None)


async def test_entries_stored_without_their_text_answer_rebuilding_and_are_never_left_out(api: Questions) -> None:
    """The generation of older code is served until a new one is live."""
    book = Book()
    account = book.open_account(book.create_user().user_id)
    await api.record([account, *(book.deposit(account.account_id, amount) for amount in (1, 2, 3))])
    path = f"/v1/accounts/{account.account_id}/entries"
    assert len((await api.get(path))["items"]) == 3
    for query in ({"position": 2}, {}):
        await documents_of(api.stores.mongo, "entries").unset("item", query)
        answer = await api.ask(path)
        assert (answer.status_code, code(answer), answer.json()["projection"]) == (503, "rebuilding", "entries")


async def test_the_mongodb_driver_does_not_wait_for_the_event_loop(api: Questions) -> None:
    """By default the driver's thread waits for 5 ms, while MongoDB has nothing to do: a third of the answers in a second."""
    await api.get("/v1/users")
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)


async def test_an_account_without_entries_has_an_empty_list(api: Questions) -> None:
    opened = Book().open_account(NOBODY)
    await api.record([opened])
    assert await api.get(f"/v1/accounts/{opened.account_id}/entries") == {"items": [], "next": None, "position": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "sort"),
    [
        *(("/v1/users", sort) for sort in ("created_at", "-created_at", "name", "-name")),
        *(("/v1/accounts", sort) for sort in ("opened_at", "-opened_at")),
        *(("/v1/transfers", sort) for sort in ("recorded_at", "-position", "amount", "-amount", "occurred_at", "-occurred_at")),
        ("/v1/events", None),
    ],
)
async def test_pages_hold_every_item_once_while_more_are_added(api: Questions, path: str, sort: str | None) -> None:
    book = Book(5)
    await api.record(book.history(120, accounts=12))
    parameters = {"sort": sort} if sort else {}
    listed = [item for page in await api.pages(path, parameters | {"limit": 100}) for item in page]
    before = [item.get("id") or item["event_id"] for item in listed]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = await api.get(path, parameters | {"limit": 5} | cursor)
        seen += [item.get("id") or item["event_id"] for item in body["items"]]
        if body["next"] is None:
            break
        cursor = {"cursor": body["next"]}
        # Items that are added behind the reader must not shift its pages, and the reader must reach an end.
        if len(seen) < 60:
            created = book.create_user(f"User {len(seen)}")
            opened = book.open_account(created.user_id)
            await api.record([created, opened, book.deposit(opened.account_id, 1)])
    assert len(seen) == len(set(seen))
    assert set(before) <= set(seen)
    places = {item: place for place, item in enumerate(seen)}
    assert sorted(before, key=places.__getitem__) == before


async def test_a_page_links_to_the_next_one(api: Questions) -> None:
    book = Book()
    await api.record([book.create_user(f"User {n}") for n in range(3)])
    answer = await api.ask("/v1/users", {"limit": 2, "search": "user", "sort": "name"})
    link = re.fullmatch(r'<(/v1/users\?.*)>; rel="next"', answer.headers["link"])
    assert link is not None
    last = await api.ask(link[1])
    assert [item["name"] for item in last.json()["items"]] == ["User 2"]
    assert (last.json()["next"], "link" in last.headers) == (None, False)


async def test_a_cursor_is_invalid_for_any_other_list(api: Questions, settings: Settings) -> None:
    book = Book()
    await api.record([book.create_user() for _ in range(3)])
    await log.make_ledger(api.writer, "other")
    cursor = (await api.get("/v1/users", {"limit": 1}))["next"]
    assert (await api.ask("/v1/users", {"limit": 2, "cursor": cursor})).status_code == 200
    for path, parameters in [
        ("/v1/users", {"cursor": cursor, "sort": "name"}),
        ("/v1/users", {"cursor": cursor, "status": "active"}),
        ("/v1/accounts", {"cursor": cursor}),
        ("/v1/users", {"cursor": cursor[:-4] + "AAAA"}),
        ("/v1/users", {"cursor": "x"}),
    ]:
        answer = await api.ask(path, parameters)
        assert (answer.status_code, code(answer)) == (400, "cursor-invalid")
        assert cursor not in answer.text
    token = await add_key(settings.database_url, ledger_id="other")
    there = {"daybook_ledger": "other", "authorization": f"Bearer {token}"}
    elsewhere = await api.ask("/v1/users", {"cursor": cursor}, **there, daybook_min_position="0")
    assert code(elsewhere) == "cursor-invalid"


async def test_a_cursor_works_however_ids_and_moments_are_written(api: Questions) -> None:
    """The next page of the same list is asked for with ids in the other case, and with the moment in another zone."""
    book = Book()
    account = book.open_account(book.new_id())
    await api.record([account, *(book.deposit(account.account_id, n) for n in (1, 2, 3))])
    id_, shouted = account.account_id, account.account_id.upper()
    assert id_ != shouted
    for path, first, again in [
        ("/v1/accounts/{}/entries", {}, {}),
        ("/v1/streams/account-{}", {}, {}),
        ("/v1/transfers", {"account_id": id_}, {"account_id": shouted}),
        ("/v1/events", {"stream": f"account-{id_}"}, {"stream": f"account-{shouted}"}),
        (
            "/v1/transfers",
            {"recorded_at[gte]": "2000-01-01T00:00:00Z"},
            {"recorded_at[gte]": "2000-01-01T01:00:00.0000000+01:00"},
        ),
    ]:
        page = await api.get(path.format(id_), {"limit": 2, **first})
        following = await api.ask(path.format(shouted), {"limit": 2, **again, "cursor": page["next"]})
        assert following.status_code == 200, (path, following.text)
        assert (
            following.json()["items"] == (await api.get(path.format(id_), {"limit": 2, **first, "cursor": page["next"]}))["items"]
        )


BAD_PARAMETERS = [
    *("unknown=1", "limit=0", "limit=1000000000", "limit=5&limit=5", "status[$ne]=active", "search=%00", "sort=$natural"),
    "&".join(f"x{n}=1" for n in range(60)),
]
BAD_HEADERS = [
    *({"daybook_ledger": ledger_id} for ledger_id in ("Main", "$gt", "", "a" * 32)),
    *({"daybook_min_position": position} for position in ("-1", "1.0", "9007199254740992", "latest")),
]


async def test_a_bad_parameter_or_header_is_rejected(alone: Questions) -> None:
    for query in BAD_PARAMETERS:
        answer = await alone.ask(f"/v1/users?{query}")
        assert (answer.status_code, code(answer)) == (422, "validation-failed"), query
    for headers in BAD_HEADERS:
        answer = await alone.ask("/v1/users", **headers)
        assert (answer.status_code, code(answer)) == (422, "validation-failed"), headers
    problem = (await alone.ask("/v1/users?unknown=abcdef")).json()
    assert problem["errors"] == [{"pointer": "query: unknown", "detail": "Unknown field"}]


async def test_a_route_without_parameters_rejects_every_parameter(alone: Questions) -> None:
    for thing in (f"users/{NOBODY}", f"accounts/{NOBODY}/balance", "projections"):
        assert code(await alone.ask(f"/v1/{thing}", {"whenever": "2026"})) == "validation-failed"


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_events_are_listed_by_type_and_by_stream(api: Questions) -> None:
    book = Book()
    one, other = (book.open_account(book.new_id()) for _ in range(2))
    await api.record([one, other, book.deposit(one.account_id, 5), book.transfer(one.account_id, other.account_id, 5)])

    async def positions(**parameters: Any) -> list[int]:
        return [event["position"] for page in await api.pages("/v1/events", parameters | {"limit": 1}) for event in page]

    stream = f"account-{one.account_id}"
    assert await positions() == [1, 2, 3, 4]
    assert await positions(after=2) == [3, 4]
    assert await positions(after=4) == []
    assert await positions(type="AccountOpened") == [1, 2]
    assert await positions(stream=stream) == [1, 3, 4]
    assert await positions(stream=stream, after=1) == [3, 4]
    assert await positions(stream=stream, type="FundsTransferred") == [4]
    pages = await api.pages(f"/v1/streams/{stream}", {"limit": 2})
    assert [(e["version"], e["position"], e["type"]) for page in pages for e in page] == [
        (1, 1, "AccountOpened"),
        (2, 3, "FundsDeposited"),
        (3, 4, "FundsTransferred"),
    ]
    shouted = stream[:8] + stream[8:].upper()
    assert (await positions(stream=shouted), len(await api.pages(f"/v1/streams/{shouted}", {}))) == ([1, 3, 4], 1)
    [last] = (await api.get(f"/v1/streams/{stream}", {"after": 2}))["items"]
    assert last["data"]["to_account_id"] == other.account_id


async def test_events_come_as_json_lines_if_the_caller_accepts_them(api: Questions) -> None:
    book = Book()
    await api.record([book.create_user("Zeile\u2028Ende"), book.create_user()])
    answer = await api.ask("/v1/events", {"limit": 1}, accept="application/x-ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["daybook-position"] == "2"
    assert 'rel="next"' in answer.headers["link"]
    [line] = answer.content.removesuffix(b"\n").split(b"\n")
    assert json.loads(line) == (await api.get("/v1/events"))["items"][0]


async def test_events_can_be_waited_for_like_read_models(alone: Questions) -> None:
    await alone.record([Book().create_user()])
    late = await alone.ask("/v1/events", prefer="wait=0", daybook_min_position="2")
    assert (late.status_code, late.headers["daybook-stale"]) == (200, "true")
    assert code(await alone.ask("/v1/events", prefer="wait=0, handling=strict", daybook_min_position="2")) == "projection-behind"

    async def later() -> None:
        await asyncio.sleep(0.05)
        await alone.record([Book(1).create_user()])

    answer, _ = await asyncio.gather(alone.ask("/v1/events", prefer="wait=10", daybook_min_position="2"), later())
    assert len(answer.json()["items"]) == 2


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ends_of(transfer: Any) -> set[str]:
    """Returns the accounts that a transfer moved money from or to."""
    postings = transfer["postings"] or []
    return {transfer["from_account_id"], transfer["to_account_id"], *(posting["account_id"] for posting in postings)}


async def test_statistics_agree_with_the_events(api: Questions) -> None:
    book = Book(9)
    history = list(book.history(300))
    await api.record(history)
    statistics = await api.get("/v1/stats", {"currency": "EUR", "top": 3, "days": 1})
    accounts = [item for page in await api.pages("/v1/accounts", {"limit": 100}) for item in page]
    for currency in statistics["currencies"]:
        held = [a for a in accounts if a["currency"] == currency["currency"]]
        assert int(currency["posted"]) == -int(currency["outside"]) == sum(a["balance"]["posted"] for a in held)
        assert currency["accounts"] == {
            status: sum(a["status"] == status for a in held) for status in ("open", "frozen", "closed")
        }
    assert sum(statistics["users"].values()) == len(book.emails)
    assert len(statistics["days"]) == 1
    assert statistics["days"][0]["day"] > "2026"
    euros = sorted((a["balance"]["posted"] for a in accounts if (a["currency"], a["status"]) == ("EUR", "open")), reverse=True)
    assert [ranked["posted"] for ranked in statistics["ranking"]] == euros[:3]
    transfers = [item for page in await api.pages("/v1/transfers", {"limit": 100}) for item in page]
    busiest = statistics["busiest"][0]
    mine = [t for t in transfers if busiest["account_id"] in ends_of(t)]
    assert busiest["transfers"] == len(mine)
    assert (await api.get("/v1/stats"))["ranking"] is None
    activity = await api.get("/v1/activity", {"limit": 5})
    assert activity["items"] == [{name: t[name] for name in activity["items"][0]} for t in transfers[:5]]


async def test_a_ledger_without_events_has_empty_statistics(api: Questions) -> None:
    statistics = (await served(partial(api.ask, "/v1/stats"), pause_seconds=0.02)).json()
    assert statistics == {
        "users": {"active": 0, "inactive": 0, "erased": 0},
        "currencies": [],
        "days": [],
        "busiest": [],
        "ranking": None,
        "position": 0,
    }


# ── as fresh as asked ────────────────────────────────────────────────────────────────────────────────────────────────

BOTH_STORES = pytest.mark.parametrize("path", ["/v1/users", "/v1/activity"], ids=["mongo", "redis"])


@BOTH_STORES
async def test_a_late_answer_is_marked_as_stale_or_is_a_503_for_a_strict_caller(api: Questions, path: str) -> None:
    await api.record([Book().create_user()])
    assert (await api.ask(path)).headers["daybook-position"] == "1"
    stale = await api.ask(path, prefer="wait=0", daybook_min_position="5")
    assert (stale.status_code, stale.headers["daybook-stale"], stale.headers["daybook-position"]) == (200, "true", "1")
    refused = await api.ask(path, prefer="handling=strict, wait=0", daybook_min_position="5")
    assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (503, "projection-behind", "1")
    assert (refused.json()["position"], refused.json()["lag_events"]) == (1, 4)
    assert "daybook-stale" not in (await api.ask(path, daybook_min_position="1")).headers


@BOTH_STORES
async def test_a_query_waits_until_the_projector_has_the_position(api: Questions, path: str) -> None:
    book = Book()
    await api.record([book.create_user()])

    async def later() -> None:
        await asyncio.sleep(0.1)
        await api.record([book.create_user()])

    waiting = [api.ask(path, prefer="wait=10", daybook_min_position="2") for _ in range(20)]
    answers, _ = await asyncio.gather(asyncio.gather(*waiting), later())
    assert {(a.status_code, a.headers["daybook-position"], "daybook-stale" in a.headers) for a in answers} == {(200, "2", False)}


@pytest.mark.slow
async def test_a_query_that_comes_as_a_poll_ends_waits_for_the_next_poll(alone: Questions, settings: Settings) -> None:
    """A poll that is done must not be awaited again: in a loop, no other task would ever get a turn."""
    reader = Reader(alone.stores.engine, alone.stores.mongo, alone.stores.redis, settings)
    done = reader.polls["main/users"] = asyncio.create_task(asyncio.sleep(0, 7))
    await done
    assert await reader.checkpoint_soon(USERS, "main", 7) == -1
    assert reader.polls == {}


async def test_a_stale_404_says_that_it_is_stale(api: Questions) -> None:
    await api.record([Book().create_user()])
    await api.ask("/v1/users")
    answer = await api.ask(f"/v1/users/{NOBODY}", prefer="wait=0", daybook_min_position="9")
    assert (answer.status_code, answer.headers["daybook-stale"]) == (404, "true")


@pytest.mark.slow
async def test_a_write_can_be_read_at_once_and_never_disappears(api: Questions) -> None:
    book = Book()
    opened = book.open_account(book.new_id())
    await api.record([opened])
    for amount in range(1, 101):
        await api.record([book.deposit(opened.account_id, 1)])
        balance = await api.get(f"/v1/accounts/{opened.account_id}/balance")
        entries = await api.get(f"/v1/accounts/{opened.account_id}/entries", {"limit": 1})
        assert balance["posted"] == entries["items"][0]["balance"] == amount


@pytest.mark.slow
async def test_every_page_is_of_one_moment(api: Questions) -> None:
    """The sum of all balances never changes, so it must be the same in every answer."""
    book = Book()
    opened = [book.open_account(book.new_id(), overdraft_limit=10**6) for _ in range(20)]
    await api.record(opened)
    await api.get("/v1/accounts")

    async def keep_moving() -> None:
        for _ in range(100):
            pairs = [book.random.sample(opened, 2) for _ in range(10)]
            await api.record([book.transfer(one.account_id, other.account_id, 7) for one, other in pairs])

    moving = asyncio.create_task(keep_moving())
    looks = 0
    while not moving.done():
        answer = await api.get("/v1/accounts", {"limit": 100}, daybook_min_position="20")
        assert sum(item["balance"]["posted"] for item in answer["items"]) == 0
        looks += 1
    await moving
    assert looks > 10


# ── ledgers, rebuilding ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_ledgers_see_nothing_of_each_other(api: Questions, settings: Settings) -> None:
    await log.make_ledger(api.writer, "other")
    mine, theirs = Book(1), Book(2)
    await api.record(mine.history(60))
    position = await api.record(theirs.history(40), "other")
    token = await add_key(settings.database_url, ledger_id="other")
    headers = {"daybook_min_position": str(position), "daybook_ledger": "other", "authorization": f"Bearer {token}"}
    for path in ("/v1/users", "/v1/accounts", "/v1/transfers", "/v1/events", "/v1/activity"):
        here = (await api.get(path, {"limit": 100}))["items"]
        there = (await api.get(path, {"limit": 100}, **headers))["items"]
        assert here
        assert there
        assert not {json.dumps(item) for item in here} & {json.dumps(item) for item in there}
    account_id, user_id = next(iter(mine.accounts)), next(iter(mine.emails))
    for path in (f"/v1/accounts/{account_id}", f"/v1/accounts/{account_id}/explain", f"/v1/users/{user_id}"):
        assert (await api.ask(path)).status_code == 200
        assert code(await api.ask(path, **headers)) == "not-found"
    assert code(await api.ask(f"/v1/streams/user-{user_id}", **headers)) == "not-found"


EVERY_QUESTION = [
    *("/v1/users", f"/v1/users/{NOBODY}", "/v1/accounts", f"/v1/accounts/{NOBODY}", f"/v1/accounts/{NOBODY}/balance"),
    *(
        f"/v1/accounts/{NOBODY}/entries",
        f"/v1/accounts/{NOBODY}/explain",
        "/v1/transfers",
        f"/v1/transfers/{NOBODY}",
        "/v1/stats",
        "/v1/activity",
    ),
]


async def test_every_query_about_a_missing_ledger_is_a_404(alone: Questions) -> None:
    for path in (*EVERY_QUESTION, "/v1/events", f"/v1/streams/user-{NOBODY}", "/v1/projections"):
        answer = await alone.ask(path, daybook_ledger="nowhere")
        assert (answer.status_code, code(answer)) == (404, "not-found"), path
        assert "nowhere" not in answer.text


async def test_a_missing_read_model_answers_rebuilding_and_is_never_empty(alone: Questions) -> None:
    await alone.record([Book().create_user()])
    for path in EVERY_QUESTION:
        answer = await alone.ask(path, prefer="wait=0")
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "rebuilding", "1"), path


async def test_an_emptied_store_answers_rebuilding_and_is_right_again_later(settings: Settings, alone: Questions) -> None:
    book = Book()
    opened = book.open_account(book.new_id())
    await alone.record([opened, book.deposit(opened.account_id, 5)])
    paths = [f"/v1/accounts/{opened.account_id}/{what}" for what in ("balance", "entries")]
    async with projecting(alone, settings):
        before = {path: await alone.get(path) for path in paths}
    await alone.stores.redis.flushdb()
    await alone.stores.mongo.client.drop_database(settings.mongo_database)
    for path in paths:
        assert code(await alone.ask(path, prefer="wait=0")) == "rebuilding"
    async with projecting(alone, settings):
        assert {path: await alone.get(path) for path in paths} == before


async def test_the_first_event_of_a_ledger_can_be_waited_for(settings: Settings, alone: Questions) -> None:
    async def ask() -> httpx2.Response:
        return await alone.ask("/v1/users", prefer="wait=10", daybook_min_position="1")

    async def write() -> None:
        await alone.record([Book().create_user()])
        await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    await write()
    async with projecting(alone, settings):
        assert len((await asking).json()["items"]) == 1


async def test_a_reader_follows_to_the_generation_that_replaces_the_one_it_knew(settings: Settings, alone: Questions) -> None:
    """The old generation is dropped at once, and no reader may find nothing."""
    mongo, redis = alone.stores.mongo, alone.stores.redis
    book = Book()
    opened = book.open_account(book.new_id())
    await alone.record([book.create_user(), opened])
    paths = ["/v1/users", f"/v1/accounts/{opened.account_id}"]
    async with projecting(alone, settings):
        before = [await alone.get(path) for path in paths]
    for number in (2, 3):
        old, new = (Generation(USERS, "main", n) for n in (number - 1, number))
        await StoredDocuments(mongo, new).insert(*await StoredDocuments(mongo, old).all())
        await mongo.checkpoints.insert_one({"_id": f"main/users/{number}", "position": 2})
        await mongo.pointers.update_one({"_id": pointer_id(USERS, "main")}, {"$set": {"live": number}})
        await mongo.checkpoints.delete_one({"_id": f"main/users/{number - 1}"})
        await StoredDocuments(mongo, old).clear()
        old, new = (Generation(BALANCES, "main", n) for n in (number - 1, number))
        for name in ("checkpoint", f"account:{opened.account_id}"):
            await redis.rename(old.key(name), new.key(name))
        await redis.hset(pointer_key(BALANCES, "main"), "live", str(number))  # type: ignore[misc]  # typed for both clients
        assert [await alone.get(path) for path in paths] == before


@pytest.mark.slow
async def test_readers_never_miss_a_read_model_while_generations_are_replaced(api: Questions) -> None:
    book = Book()
    await api.record(book.history(200))
    path = {USERS: "/v1/users?limit=100", BALANCES: f"/v1/accounts/{next(iter(book.accounts))}"}
    sinks: dict[str, Any] = {"mongo": MongoSink(api.stores.mongo), "redis": RedisSink(api.stores.redis)}
    feed = Feed(api.stores.engine, "main", log.PERSON_KEYS)

    async def rebuild(projection: Projection[Any]) -> None:
        generations = Generations(projection, sinks[projection.model.store], feed)
        copy = GenerationBuild(projection, generations.sink, feed, await generations.open_new())
        await generations.finish(copy)

    for projection in (projection for projection in PROJECTIONS if projection.model in path):
        before = await api.get(path[projection.model])
        for _ in range(5):
            rebuilding = asyncio.create_task(rebuild(projection))
            while not rebuilding.done():
                # Several at once, which share a round trip.
                seen = await asyncio.gather(*(api.get(path[projection.model]) for _ in range(3)))
                assert seen == [before] * 3
            await rebuilding
        assert (await api.get(f"/v1/projections/{projection.name}"))["generation"] == 6


# ── progress, health ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_progress_lists_every_read_model_and_its_position(settings: Settings, alone: Questions) -> None:
    await alone.record([Book().create_user()])
    built = {item["name"]: item for item in (await alone.get("/v1/projections"))["items"]}
    assert set(built) == {model.name for model in READ_MODELS}
    for item in built.values():
        assert (item["state"], item["generation"], item["position"], item["lag_events"]) == ("rebuilding", None, None, 1)
        assert item["cause"].startswith("no worker is running")
        assert item["lag_seconds"] > 0
    async with projecting(alone, settings):
        for path in EVERY_QUESTION:
            await alone.ask(path)
    assert await alone.get("/v1/projections/users") == {
        "name": "users",
        "generation": 1,
        "state": "live",
        "position": 1,
        "lag_events": 0,
        "lag_seconds": 0.0,
        "dead_letters": 0,
        "parked_streams": 0,
        "cause": None,
    }


async def test_progress_says_why_a_read_model_does_not_advance(settings: Settings, api: Questions) -> None:
    await api.record([Book().create_user()])
    async with projecting(api, settings):
        await api.ask("/v1/users")
    trouble = {"cause": "event type 'X' is unknown", "position": 1, "since": "2026-11-21T09:30:00.000000Z"}
    await api.stores.redis.hset("daybook:{main}:troubles", "users", json.dumps(trouble))  # type: ignore[misc]  # for both clients
    await api.stores.mongo.troubles.replace_one({"_id": "main/balances"}, trouble, upsert=True)
    for name in ("users", "balances"):
        item = await api.get(f"/v1/projections/{name}")
        assert (item["state"], item["cause"]) == ("failed", "event type 'X' is unknown (since 2026-11-21T09:30:00.000000Z)")


async def test_health_needs_no_ledger_and_no_read_model(alone: Questions) -> None:
    assert (await alone.ask("/livez")).json() == {"status": "ok"}
    assert (await alone.ask("/readyz")).json()["stores"] == {"postgres": "ok", "mongo": "ok", "redis": "ok"}
    assert (await alone.ask("/version")).json()["version"]


async def test_an_unknown_path_or_method_is_a_problem_document_too(alone: Questions) -> None:
    assert code(await alone.ask("/v1/nothing")) == "not-found"
    answer = await alone.client.post("/v1/users", json={})
    assert (answer.status_code, code(answer)) == (405, "method-not-allowed")


async def test_the_query_api_cannot_write_the_log(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        with pytest.raises(DBAPIError, match="permission denied"):
            await connection.execute(text("INSERT INTO log_heads VALUES (:id, 0, '', now())"), {"id": str(uuid.uuid4())[:8]})
