"""Exchanges as the query API answers them, on real stores with the real projector."""

from collections.abc import AsyncIterator

import pytest

from shared.log.account_events import AccountOpened
from shared.settings import Settings
from tests.harness.keys import add_key, bearer
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


def parties(book: Book, payer: str, payee: str) -> list[AccountOpened]:
    """Opens the five accounts of an exchange from EUR to USD, of which the payer's and the payee's have these owners."""
    house = book.new_id()
    owners = ((payer, "EUR"), (house, "EUR"), (house, "USD"), (payee, "USD"), (house, "USD"))
    return [book.open_account(owner, currency, overdraft_limit=1_000) for owner, currency in owners]


async def test_an_exchange_is_seen_on_both_sides_and_in_the_sums(api: Questions) -> None:
    book = Book()
    opened = parties(book, book.new_id(), book.new_id())
    ids = [each.account_id for each in opened]
    exchanges = [book.exchange(*ids, amount=10, rate="1.05", reference="trip") for _ in range(2)]
    await api.record([*opened, *exchanges])
    first, second = [await api.get(f"/v1/transfers/{each.transfer_id}") for each in exchanges]
    assert (first["kind"], first["amount"], first["currency"], first["reference"]) == ("exchange", 10, "EUR", "trip")
    assert (first["from_account_id"], first["to_account_id"]) == (ids[0], ids[3])
    terms = {"to_amount": 10, "to_currency": "USD", "rate": "1.05", "remainder_account_id": ids[4], "remainder": "0.5"}
    assert (first["exchange"], second["exchange"]) == (terms, terms)
    assert [each["amount"] for each in second["postings"]] == [-10, 10, -11, 10, 1]
    found = await api.get("/v1/transfers", {"kind": "exchange", "account_id": ids[0]})
    assert [each["id"] for each in found["items"]] == [each.transfer_id for each in reversed(exchanges)]
    for account_id, amounts in zip(ids, ([-10, -10], [10, 10], [-11, -10], [10, 10], [1]), strict=True):
        entries = (await api.get(f"/v1/accounts/{account_id}/entries"))["items"]
        assert [(each["kind"], each["amount"]) for each in entries] == [("exchange", amount) for amount in amounts]
        explained = await api.get(f"/v1/accounts/{account_id}/explain")
        assert (explained["adds_up"], explained["balance"]) == (True, sum(amounts))
        # The remainder account has a version for each exchange, also for the one that gave it nothing.
        assert (await api.get(f"/v1/accounts/{account_id}"))["version"] == 3
    sums = {each["currency"]: each for each in (await api.get("/v1/trial-balance"))["currencies"]}
    assert [(sums[each]["accounts"], sums[each]["outside"], sums[each]["sum"]) for each in ("EUR", "USD")] == [
        ("0", "0", "0")
    ] * 2


async def test_a_customer_sees_the_rate_of_an_own_exchange_and_nothing_of_the_house(api: Questions, settings: Settings) -> None:
    book = Book()
    owner = book.create_user()
    mine, paid = parties(book, owner.user_id, owner.user_id), parties(book, book.new_id(), owner.user_id)
    exchanges = [book.exchange(*(each.account_id for each in opened), amount=10, rate="1.05") for opened in (mine, paid)]
    carrying = [book.open_account(book.new_id(), currency) for currency in ("EUR", "EUR", "USD", "USD")]
    remainders = book.open_account(owner.user_id, "USD")
    filled = [book.deposit(each.account_id, 100) for each in carrying]
    carried = book.exchange(*(each.account_id for each in (*carrying, remainders)), amount=10, rate="1.05")
    await api.record([owner, *mine, *paid, *carrying, remainders, *filled, *exchanges, carried])
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner.user_id))
    own, got = [await api.get(f"/v1/transfers/{each.transfer_id}", **customer) for each in exchanges]
    terms = {"to_amount": 10, "to_currency": "USD", "rate": "1.05", "remainder_account_id": None, "remainder": "0.5"}
    assert (own["exchange"], [each["amount"] for each in own["postings"]]) == (terms, [-10, 10])
    assert (got["exchange"], got["amount"], got["currency"]) == (None, 10, "USD")
    assert [each["account_id"] for each in got["postings"]] == [paid[3].account_id]
    listed = (await api.get("/v1/transfers", **customer))["items"]
    assert [each["id"] for each in listed] == [each.transfer_id for each in reversed(exchanges)]
    house = {"counterparty": mine[1].account_id}
    assert len((await api.get("/v1/transfers", house))["items"]) == 1
    assert (await api.get("/v1/transfers", house, **customer))["items"] == []
    # An account can carry the fraction of a cent that is left. Its owner sees no transfer, because no money of it moved.
    assert (await api.ask(f"/v1/transfers/{carried.transfer_id}", **customer)).status_code == 404
    exported = await api.get(f"/v1/users/{owner.user_id}/export", **customer)
    assert {each["id"] for each in exported["transfers"]} == {each.transfer_id for each in exchanges}
