"""Transfers with postings over HTTP: what is answered, once for each key, and for whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from tests.command_api.test_hold_requests import code, fault_of_log
from tests.harness.clients import Commands, command_api, created
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


def posting(account_id: str | None, amount: Any, currency: str = "EUR") -> dict[str, Any]:
    return {"account_id": account_id, "amount": amount, "currency": currency}


async def move(api: Commands, *postings: dict[str, Any], key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"idempotency_key": key} if key else {}
    return await api.post("/v1/transfers", {"postings": postings, **fields}, **headers)


async def test_many_accounts_change_together_or_not_at_all(api: Commands, settings: Settings) -> None:
    payer, one, two = await api.account(balance=100), await api.account(), await api.account()
    dollars = await api.account(currency="USD")
    wanted = [posting(payer, -60), posting(one, 25), posting(two, 30), posting(None, 5)]
    wanted += [posting(None, -7, "USD"), posting(dollars, 7, "USD")]
    answer = await move(api, *wanted, key="k", reference="pay")
    body = answer.json()
    assert answer.headers["location"].endswith(f"/v1/transfers/{created(answer)}")
    assert (body["postings"], body["reference"]) == (wanted, "pay")
    assert [each["posted"] for each in body["balances"]] == [40, 25, 30, 7]
    again = await move(api, *wanted, key="k", reference="pay")
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    assert code(await move(api, *wanted[:4], key="k", reference="pay")) == "idempotency-key-reused"
    refused = (await move(api, posting(one, 1), posting(two, 40), posting(payer, -41))).json()
    assert (refused["code"], refused["available"], refused["required"]) == ("insufficient-funds", 40, 41)
    await api.post(f"/v1/accounts/{two}/freeze")
    assert code(await move(api, posting(payer, -2), posting(one, 1), posting(two, 1))) == "account-frozen"
    unbalanced = await move(api, posting(payer, -2), posting(one, 1))
    assert (unbalanced.status_code, code(unbalanced), unbalanced.json()["currency"]) == (422, "postings-unbalanced", "EUR")
    assert code(await api.post(f"/v1/transfers/{body['id']}/reverse", {})) == "transfer-not-reversible"
    assert (await api.transfer(payer, one, 40)).json()["balances"][1]["posted"] == 65
    assert await fault_of_log(settings) == ""


async def test_a_request_that_can_be_no_transfer_is_refused(api: Commands) -> None:
    one = "0198c5a0-0000-7000-8000-0000000000e1"
    form, amount = "validation-failed", "amount-out-of-range"
    wrongs: list[tuple[list[dict[str, Any]], str, str]] = [
        ([posting(one, -5), posting(None, amount=True)], form, "#/postings/1/amount"),
        ([posting(one, -5), posting(None, "5")], form, "#/postings/1/amount"),
        ([posting(one, -5), posting(None, 5.0)], form, "#/postings/1/amount"),
        ([posting(one, 0), posting(None, 5)], amount, "#/postings/0/amount"),
        ([posting(one, -(2**53)), posting(None, 5)], amount, "#/postings/0/amount"),
        ([posting(one, -5), posting(None, 5, "EURO")], "currency-unknown", "#/postings/1/currency"),
        ([posting(one, -5)], form, "#/postings"),
        ([posting(one, -5), {"amount": 5, "currency": "EUR"}], form, "#/postings/1/account_id"),
        ([posting(one, -5), posting(None, 5) | {"admin": True}], form, "#/postings/1/admin"),
    ]
    for wanted, expected, pointer in wrongs:
        answer = await move(api, *wanted)
        assert (code(answer), [each["pointer"] for each in answer.json()["errors"]]) == (expected, [pointer]), wanted
    both: dict[str, Any] = {"from_account_id": one, "to_account_id": one, "amount": 1, "currency": "EUR"}
    assert code(await move(api, posting(one, -5), posting(None, 5), **both)) == form
    assert code(await api.post("/v1/transfers", {})) == form


async def test_a_customer_cannot_send_postings(api: Commands, settings: Settings) -> None:
    """With them a customer could bring money from the outside world."""
    owner = await api.user()
    own, other = await api.account(owner, balance=10), await api.account()
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner))
    denied = await api.post("/v1/transfers", {"postings": [posting(None, -5), posting(own, 5)]}, **customer)
    assert (denied.status_code, code(denied)) == (403, "forbidden")
    body = {"from_account_id": own, "to_account_id": other, "amount": 10, "currency": "EUR"}
    assert (await api.post("/v1/transfers", body, **customer)).status_code == 201


async def test_races_of_postings_and_transfers_over_the_same_accounts_lose_no_money(api: Commands, settings: Settings) -> None:
    a, b, c = [await api.account(balance=50) for _ in range(3)]
    races = [move(api, posting(x, -7), posting(y, 4), posting(z, 3)) for x, y, z in ((a, b, c), (b, c, a), (c, a, b))]
    races += [move(api, posting(x, -30), posting(y, 20), posting(z, 10)) for x, y, z in ((a, b, c), (c, b, a), (b, a, c))]
    races += [api.transfer(x, y, 20) for x, y in ((a, b), (b, c), (c, a))]
    answers = await asyncio.gather(*races)
    assert {answer.status_code for answer in answers} <= {201, 409}
    found = [(await api.post(f"/v1/accounts/{each}/unfreeze")).json()["balance"]["posted"] for each in (a, b, c)]
    assert (sum(found), min(found) >= 0) == (150, True)
    assert await fault_of_log(settings) == ""
