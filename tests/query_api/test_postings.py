"""Transfers with postings as the query API answers them, on real stores with the real projector."""

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


async def test_a_transfer_with_postings_is_seen_by_each_of_its_owners_and_by_each_only_in_part(
    api: Questions, settings: Settings
) -> None:
    book = Book()
    owner = book.create_user()
    payer, other = (book.open_account(book.new_id(), overdraft_limit=100) for _ in range(2))
    own = book.open_account(owner.user_id)
    moved = book.move((payer.account_id, -60), (own.account_id, 25), (other.account_id, 30), (None, 5), reference="pay")
    await api.record([owner, payer, other, own, moved])
    path = f"/v1/transfers/{moved.transfer_id}"
    found = await api.get(path)
    assert (found["kind"], found["amount"], found["currency"], found["reference"]) == ("postings", 60, "EUR", "pay")
    assert [(each["account_id"], each["amount"]) for each in found["postings"]] == [
        (payer.account_id, -60),
        (own.account_id, 25),
        (other.account_id, 30),
        (None, 5),
    ]
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner.user_id))
    seen = await api.get(path, **customer)
    assert seen["postings"] == [{"account_id": own.account_id, "amount": 25, "currency": "EUR"}]
    assert (seen["amount"], (await api.get("/v1/transfers", **customer))["items"]) == (25, [seen | {"position": 5}])
    # Neither a filter nor an order nor a cursor tells what the others got.
    telling = ({"amount[gte]": 26}, {"currency": "EUR"}, {"sort": "amount"}, {"counterparty": other.account_id})
    for parameters in telling:
        assert len((await api.get("/v1/transfers", parameters))["items"]) == 1
        assert (await api.get("/v1/transfers", parameters, **customer))["items"] == []
    entries = f"/v1/accounts/{own.account_id}/entries"
    assert len((await api.get(entries, {"counterparty": other.account_id}))["items"]) == 1
    assert (await api.get(entries, {"counterparty": other.account_id}, **customer))["items"] == []
    for account, amount in ((payer, -60), (own, 25), (other, 30)):
        [entry] = (await api.get(f"/v1/accounts/{account.account_id}/entries"))["items"]
        assert (entry["kind"], entry["amount"], entry["balance"], entry["counterparty_account_id"]) == (
            "postings",
            amount,
            amount,
            None,
        )
        assert [each["id"] for each in (await api.get("/v1/transfers", {"account_id": account.account_id}))["items"]] == [
            moved.transfer_id
        ]
    stats = await api.get("/v1/stats")
    assert stats["position"] == 5
    exported = await api.get(f"/v1/users/{owner.user_id}/export", **customer)
    assert [each["id"] for each in exported["transfers"]] == [moved.transfer_id]
