"""Transfers and their reversals as the query API answers them, on real stores with the real projector."""

from collections.abc import AsyncIterator

import pytest

from shared.settings import Settings
from tests.harness.keys import add_key, bearer
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def test_a_transfer_names_its_reversals_and_each_of_them_names_it(api: Questions, settings: Settings) -> None:
    """Alone and in lists, for operators and for the customer."""
    book = Book()
    owner = book.create_user()
    payer, payee = book.open_account(owner.user_id), book.open_account(book.new_id())
    brought, paid = book.deposit(payer.account_id, 100), book.transfer(payer.account_id, payee.account_id, 60)
    await api.record([owner, payer, payee, brought, paid])
    untouched = await api.get(f"/v1/transfers/{paid.transfer_id}")
    assert (untouched["reverses"], untouched["reversed"], untouched["reversals"]) == (None, 0, [])
    parts = book.reverse(paid, 25), book.reverse(paid, 5)
    out = book.reverse(brought, 70)
    last = await api.record([*parts, out])
    expected = [{"id": each.transfer_id, "amount": each.amount, "position": last - 2 + n} for n, each in enumerate(parts)]
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner.user_id))
    for headers in ({}, customer):
        one = await api.get(f"/v1/transfers/{paid.transfer_id}", **headers)
        assert (one["reversed"], one["reversals"]) == (30, expected)
        back = await api.get(f"/v1/transfers/{parts[1].transfer_id}", **headers)
        assert (back["kind"], back["reverses"], back["amount"], back["reversals"]) == ("reversal", paid.transfer_id, 5, [])
        listed = {each["id"]: each for each in (await api.get("/v1/transfers", **headers))["items"]}
        assert listed[paid.transfer_id] == {name: one[name] for name in listed[paid.transfer_id]}
        assert [each["id"] for each in listed[brought.transfer_id]["reversals"]] == [out.transfer_id]
        assert len(listed) == 5
    of_payee = await api.get("/v1/transfers", {"account_id": payee.account_id})
    assert {each["id"] for each in of_payee["items"]} == {paid.transfer_id, *(each.transfer_id for each in parts)}
    assert (await api.get("/v1/transfers", {"account_id": paid.transfer_id}))["items"] == [], "a transfer is no account"


async def test_entries_an_explanation_and_the_activity_show_reversals(api: Questions) -> None:
    book = Book()
    account = book.open_account(book.new_id())
    brought = book.deposit(account.account_id, 100)
    await api.record([account, brought, book.reverse(brought, 40)])
    path = f"/v1/accounts/{account.account_id}"
    entries = (await api.get(f"{path}/entries"))["items"]
    assert [(each["kind"], each["amount"], each["balance"]) for each in entries] == [("reversal", -40, 60), ("deposit", 100, 100)]
    explained = await api.get(f"{path}/explain")
    assert (explained["adds_up"], [each["type"] for each in explained["facts"]]) == (True, ["deposit", "reversal"])
    assert (await api.get("/v1/activity"))["items"][0]["kind"] == "reversal"
