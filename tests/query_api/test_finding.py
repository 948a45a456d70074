"""Filters of lists, compared with the same question asked of everything that was recorded. Pages with filters stay exact."""

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from query_api.resources.entries import EntryParameters
from query_api.resources.holds import HoldParameters
from query_api.resources.transfers import TransferParameters
from shared.log.account_events import AccountMetadataChanged
from shared.log.events import Event
from shared.log.user_events import metadata_text
from shared.read_models.shapes import found_by
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

Item = dict[str, Any]
Matches = Callable[[Item], bool]

REFERENCES = ("rent", "rent 2026", "renting", "Rent", "r$ent", "ren", None)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


def movements(book: Book, count: int = 60) -> list[Event]:
    """Returns four accounts, and transfers, deposits, withdrawals, holds and captures that say all kinds of things."""
    accounts = [book.open_account(book.new_id(), overdraft_limit=100_000) for _ in range(4)]
    made: list[Event] = [*accounts]
    for number in range(count):
        payer, payee = (account.account_id for account in book.random.sample(accounts, 2))
        said: Item = {
            "reference": book.random.choice(REFERENCES),
            "metadata": book.random.choice([None, {"order": str(number % 3)}, {"order": "1", "shop": "a.b=c $x"}]),
        }
        when: Item = {"occurred_at": f"20{20 + number % 5}-01-01T00:00:00.000000Z"} if number % 2 else {}
        amount = book.random.randint(1, 9)
        match number % 5:
            case 0:
                made.append(book.deposit(payer, amount, **said, **when))
            case 1:
                made.append(book.withdraw(payer, amount, **said, **when))
            case 2:
                held = book.place_hold(payer, amount, book.random.choice([payee, None]), **said)
                made += [held, book.capture(held.hold_id, 1, **said, **when)]
            case _:
                made.append(book.transfer(payer, payee, amount, **said, **when))
    return made


def equal(name: str, value: Any) -> Matches:
    return lambda item: bool(item[name] == value)


def begins(beginning: str) -> Matches:
    return lambda item: item["reference"] is not None and item["reference"].startswith(beginning)


def says(name: str, value: str) -> Matches:
    return lambda item: (item["metadata"] or {}).get(name) == value


def touches(account_id: str) -> Matches:
    return lambda item: account_id in {item["from_account_id"], item["to_account_id"]}


async def everything(api: Questions, path: str, parameters: Item, limit: int) -> list[Item]:
    return [item for page in await api.pages(path, {**parameters, "limit": limit}) for item in page]


async def require_found(api: Questions, path: str, filters: Item, every: list[Item], matches: list[Matches]) -> int:
    """Checks in both directions of an order that all pages together are the items that match, each of them once."""
    wanted = [item for item in every if all(match(item) for match in matches)]
    found = await everything(api, path, filters, 3)
    assert sorted(found, key=str) == sorted(wanted, key=str), filters
    sort = filters.get(
        "sort", "reference" if "reference[prefix]" in filters else "-position" if "/holds" not in path else "-placed_at"
    )
    turned = sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"
    assert await everything(api, path, {**filters, "sort": turned}, 2) == found[::-1], filters
    return len(wanted)


@pytest.mark.slow
@pytest.mark.services
async def test_transfers_are_found_by_each_filter_and_by_several_and_their_pages_are_exact(api: Questions) -> None:
    book = Book(7)
    await api.record(movements(book))
    one, other, *_ = book.accounts
    every = await everything(api, "/v1/transfers", {}, 100)
    order, shop = says("order", "1"), says("shop", "a.b=c $x")
    counts = [
        await require_found(api, "/v1/transfers", filters, every, matches)
        for filters, matches in [
            ({"kind": "deposit"}, [equal("kind", "deposit")]),
            ({"reference": "rent"}, [equal("reference", "rent")]),
            ({"reference": "r$ent"}, [equal("reference", "r$ent")]),
            ({"reference[prefix]": "rent"}, [begins("rent")]),
            ({"reference[prefix]": "r"}, [begins("r")]),
            ({"metadata[order]": "1"}, [order]),
            ({"metadata[shop]": "a.b=c $x", "metadata[order]": "1"}, [shop, order]),
            ({"account_id": one}, [touches(one)]),
            ({"account_id": one, "counterparty": other}, [touches(one), touches(other)]),
            ({"account_id": one, "kind": "withdrawal"}, [touches(one), equal("kind", "withdrawal")]),
            ({"account_id": one, "reference": "rent"}, [touches(one), equal("reference", "rent")]),
            ({"kind": "transfer", "metadata[order]": "1"}, [equal("kind", "transfer"), order]),
        ]
    ]
    assert all(counts), counts
    moment = every[len(every) // 2]["recorded_at"]
    later: Item = {"recorded_at[gt]": moment, "kind": "transfer"}
    await require_found(
        api, "/v1/transfers", later, every, [equal("kind", "transfer"), lambda item: item["recorded_at"] > moment]
    )
    assert await everything(api, "/v1/transfers", {"metadata[order]": "one", "kind": "deposit"}, 9) == []


@pytest.mark.services
async def test_entries_of_an_account_are_found_as_their_transfers_are(api: Questions) -> None:
    book = Book(8)
    await api.record(movements(book))
    one, other, *_ = book.accounts
    path = f"/v1/accounts/{one}/entries"
    every = await everything(api, path, {}, 100)
    by_id = {item["id"]: item for item in await everything(api, "/v1/transfers", {"account_id": one}, 100)}
    assert [entry["transfer_id"] for entry in every] == list(by_id)

    def of_transfer(match: Matches) -> Matches:
        return lambda entry: match(by_id[entry["transfer_id"]])

    order = of_transfer(says("order", "1"))
    asked: list[tuple[Item, list[Matches]]] = [
        ({"kind": "deposit"}, [equal("kind", "deposit")]),
        ({"counterparty": other}, [equal("counterparty_account_id", other)]),
        ({"reference": "rent"}, [equal("reference", "rent")]),
        ({"reference[prefix]": "rent"}, [begins("rent")]),
        ({"metadata[order]": "1"}, [order]),
        ({"metadata[order]": "1", "kind": "transfer"}, [order, equal("kind", "transfer")]),
        ({"amount[lt]": 0, "sort": "amount"}, [lambda entry: entry["amount"] < 0]),
        ({"amount[gte]": -3, "amount[lte]": 4, "sort": "amount"}, [lambda entry: -3 <= entry["amount"] <= 4]),
        ({"occurred_at[lt]": "2023-01-01T00:00:00Z", "sort": "occurred_at"}, [lambda entry: entry["occurred_at"] < "2023"]),
    ]
    counts = [await require_found(api, path, filters, every, matches) for filters, matches in asked]
    assert all(counts), counts
    for sort in ("amount", "occurred_at", "reference"):
        found = await everything(api, path, {"sort": sort}, 4)
        assert all(first[sort] <= second[sort] for first, second in pairwise(found) if first[sort] and second[sort])
        assert sorted(found, key=str) == sorted((e for e in every if sort != "reference" or e["reference"]), key=str)


@pytest.mark.services
async def test_holds_are_found_by_each_filter_and_by_several(api: Questions) -> None:
    book = Book(9)
    await api.record(movements(book, 150))
    one, other, *_ = book.accounts
    every = await everything(api, "/v1/holds", {}, 100)
    of_one, to_other = equal("account_id", one), equal("to_account_id", other)
    counts = [
        await require_found(api, "/v1/holds", filters, every, matches)
        for filters, matches in [
            ({"account_id": one}, [of_one]),
            ({"counterparty": other}, [to_other]),
            ({"account_id": one, "counterparty": other}, [of_one, to_other]),
            ({"reference": "rent"}, [equal("reference", "rent")]),
            ({"reference[prefix]": "rent"}, [begins("rent")]),
            ({"metadata[order]": "1", "status": "active"}, [says("order", "1"), equal("status", "active")]),
            ({"placed_at[gte]": every[5]["placed_at"]}, [lambda hold: hold["placed_at"] >= every[5]["placed_at"]]),
        ]
    ]
    assert all(counts), counts


@pytest.mark.services
async def test_accounts_are_found_by_their_metadata_until_these_change(api: Questions) -> None:
    book = Book()
    opened = [book.open_account(book.new_id()) for _ in range(5)]
    made = [msgspec.structs.replace(each, metadata={"branch": "north", "number": str(n)}) for n, each in enumerate(opened)]
    await api.record(made)
    every = await everything(api, "/v1/accounts", {}, 100)
    assert {each["id"]: each["metadata"] for each in every} == {each.account_id: each.metadata for each in made}
    north: Matches = lambda account: bool((account["metadata"] or {}).get("branch") == "north")  # noqa: E731
    assert await require_found(api, "/v1/accounts", {"metadata[branch]": "north", "sort": "opened_at"}, every, [north]) == 5
    moved = AccountMetadataChanged(account_id=opened[1].account_id, currency="EUR", metadata={"branch": "south"})
    bare = AccountMetadataChanged(account_id=opened[2].account_id, currency="EUR")
    await api.record([moved, bare])
    every = await everything(api, "/v1/accounts", {}, 100)
    assert await require_found(api, "/v1/accounts", {"metadata[branch]": "north", "sort": "opened_at"}, every, [north]) == 3
    one = await api.get(f"/v1/accounts/{opened[1].account_id}")
    assert one["metadata"] == {"branch": "south"}
    assert (await api.get(f"/v1/accounts/{opened[2].account_id}"))["metadata"] is None


@pytest.mark.services
async def test_a_user_is_found_by_the_whole_address_until_it_changes_or_is_erased(api: Questions) -> None:
    book = Book()
    ada, eve = book.create_user("Ada", "Ada.L@Example.com"), book.create_user("Eve", "ada.l@example.com.org")
    await api.record([ada, eve])

    async def found(email: str) -> list[str]:
        return [each["id"] for each in (await api.get("/v1/users", {"email": email}))["items"]]

    assert await found("ada.l@EXAMPLE.com") == [ada.user_id]
    assert await found("ada.l@example.co") == []
    await api.record([book.change_user(ada.user_id, "Ada", "new@example.com")])
    assert (await found("ada.l@example.com"), await found("new@example.com")) == ([], [ada.user_id])
    await api.record([book.erase_user(ada.user_id)])
    assert await found("new@example.com") == []
    assert (await api.ask("/v1/users", {"email": "new@"})).status_code == 422


@pytest.mark.services
async def test_users_are_found_by_their_metadata_until_these_change_or_the_user_is_erased(api: Questions) -> None:
    book = Book()
    ada, eve = (book.create_user(name, f"{name}@example.com") for name in ("ada", "eve"))
    ada = msgspec.structs.replace(ada, metadata=metadata_text({"branch": "north", "number": "1"}))
    await api.record([ada, eve, book.change_user(eve.user_id, "eve", branch="north", number="2")])

    async def found(**filters: str) -> list[str]:
        asked = {f"metadata[{name}]" if name != "email" else name: value for name, value in filters.items()}
        return [each["name"] for each in (await api.get("/v1/users", asked | {"sort": "created_at"}))["items"]]

    assert await found(branch="north") == ["ada", "eve"]
    assert await found(branch="north", number="2") == ["eve"]
    assert await found(email="ADA@example.com", number="1") == ["ada"]
    assert await found(email="ada@example.com", number="2") == await found(branch="nort") == []
    assert (await api.get(f"/v1/users/{ada.user_id}"))["metadata"] == {"branch": "north", "number": "1"}
    await api.record([book.change_user(eve.user_id, "eve", branch="south"), book.erase_user(ada.user_id)])
    assert (await found(branch="north"), await found(branch="south")) == ([], ["eve"])
    assert (await api.get(f"/v1/users/{ada.user_id}"))["metadata"] is None
    assert (await api.ask("/v1/users", {"metadata[branch]": "south", "sort": "name"})).status_code == 422


@pytest.mark.services
async def test_a_combination_that_no_index_serves_is_refused_and_the_answer_says_which_are_served(api: Questions) -> None:
    account = Book().open_account("0198c5a0-0000-7000-8000-00000000ada0")
    await api.record([account])
    for path, query in [
        ("/v1/transfers", "kind=deposit&amount[gte]=5"),
        ("/v1/transfers", "sort=amount&recorded_at[gte]=2026-01-01T00:00:00Z"),
        ("/v1/transfers", "reference[prefix]=rent&kind=deposit"),
        ("/v1/transfers", "sort=occurred_at&metadata[order]=1"),
        (f"/v1/accounts/{account.account_id}/entries", "amount[lt]=0&kind=transfer"),
        ("/v1/holds", "reference[prefix]=rent&status=active"),
        ("/v1/accounts", "sort=posted&currency=EUR&status=open"),
    ]:
        refused = await api.ask(f"{path}?{query}")
        assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed"), (path, query)
        [error] = refused.json()["errors"]
        assert "Served are: sort=" in error["detail"], error
    for query in (
        "metadata=1",
        "metadata[a b]=1",
        "metadata[]=1",
        "metadata[x]=1&metadata[x]=2",
        "metadata[x]=1&metadata=2",
        "reference=",
    ):
        assert (await api.ask(f"/v1/transfers?{query}")).status_code == 422, query


def test_an_order_is_chosen_that_serves_the_filters() -> None:
    assert TransferParameters.model_validate({}).sort == "-recorded_at"
    assert TransferParameters.model_validate({"kind": "deposit"}).sort == "-recorded_at"
    assert TransferParameters.model_validate({"currency": "EUR"}).sort == "-amount"
    assert EntryParameters.model_validate({"amount[lt]": "0"}).sort == "-amount"
    assert EntryParameters.model_validate({"occurred_at[lt]": "2026-01-01T00:00:00Z"}).sort == "-occurred_at"
    assert HoldParameters.model_validate({"reference[prefix]": "r"}).sort == "reference"


def test_no_text_of_one_filter_is_a_text_of_another() -> None:
    """A reference that looks like a pair of metadata, or like an account, finds only itself."""
    assert found_by(reference="x", metadata={"reference": "x"}) == ["metadata.reference=x", "reference=x"]
    assert not set(found_by(["kind=deposit"])) & set(found_by(reference="kind=deposit"))
    assert found_by(metadata={"a": "b=c"}) == ["metadata.a=b=c"]
