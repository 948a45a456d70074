"""Exchanges over HTTP: what is answered, once for each key, for whom, and that races neither make nor lose money."""

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from tests.command_api.test_hold_requests import code, fault_of_log
from tests.harness.clients import Commands, command_api, created
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services

Body = dict[str, Any]
DOLLAR: Body = {"currency": "USD"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


async def parties(api: Commands, **of_payer: Any) -> Body:
    """Opens the five accounts of an exchange from EUR to USD. The payer has 1,000, and the house's account 5,000."""
    payer = await api.account(balance=1_000, **of_payer)
    house = await api.account(**DOLLAR)
    filled = await api.post("/v1/deposits", {"account_id": house, "amount": 5_000, **DOLLAR})
    created(filled)
    return {
        "from_account_id": payer,
        "house_from_account_id": await api.account(),
        "house_to_account_id": house,
        "to_account_id": await api.account(**DOLLAR),
        "remainder_account_id": await api.account(**DOLLAR, overdraft_limit=5),
        "from_currency": "EUR",
        "to_currency": "USD",
    }


async def exchange(api: Commands, ends: Body, amount: Any, rate: Any, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"idempotency_key": key} if key else {}
    return await api.post("/v1/exchanges", {**ends, "from_amount": amount, "rate": rate, **fields}, **headers)


async def posted(api: Commands, *account_ids: str) -> list[int]:
    return [(await api.post(f"/v1/accounts/{each}/unfreeze")).json()["balance"]["posted"] for each in account_ids]


async def test_an_exchange_is_answered_with_its_rate_its_remainder_and_all_balances(api: Commands, settings: Settings) -> None:
    ends = await parties(api)
    answer = await exchange(api, ends, 10, "1.05", "k", reference="trip")
    body = answer.json()
    assert answer.headers["location"].endswith(f"/v1/transfers/{created(answer)}")
    assert (body["from_amount"], body["to_amount"], body["rate"], body["reference"]) == (10, 10, "1.05", "trip")
    assert (body["remainder"], body["carried"], body["remainder_account_id"]) == ("0.5", "0.5", ends["remainder_account_id"])
    assert [each["posted"] for each in body["balances"]] == [990, 10, 4_990, 10]
    again = await exchange(api, ends, 10, "1.05", "k", reference="trip")
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    assert code(await exchange(api, ends, 10, "1.06", "k", reference="trip")) == "idempotency-key-reused"
    second = (await exchange(api, ends, 10, "1.05")).json()
    assert (second["carried"], [each["amount"] for each in second["postings"]]) == ("0", [-10, 10, -11, 10, 1])
    poor = await exchange(api, ends, 981, "1.05")
    assert (poor.status_code, poor.json()["available"], poor.json()["required"]) == (409, 980, 981)
    assert code(await exchange(api, ends, 1, "1", to_account_id=ends["house_to_account_id"])) == "same-account"
    assert code(await exchange(api, ends, 1, "1", to_account_id=ends["from_account_id"])) == "same-account"
    assert code(await api.post(f"/v1/transfers/{body['id']}/reverse", {})) == "transfer-not-reversible"
    await api.post(f"/v1/accounts/{ends['remainder_account_id']}/freeze")
    assert code(await exchange(api, ends, 1, "1")) == "account-frozen"
    assert await fault_of_log(settings) == ""


async def test_a_request_that_can_be_no_exchange_is_refused(api: Commands) -> None:
    ids = (f"0198c5a0-0000-7000-8000-00000000000{number}" for number in range(5))
    names = ("from_account_id", "house_from_account_id", "house_to_account_id", "to_account_id", "remainder_account_id")
    ends = dict(zip(names, ids, strict=True)) | {"from_currency": "EUR", "to_currency": "USD"}
    form, amount = "validation-failed", "amount-out-of-range"
    wrongs: list[tuple[Body, str, str]] = [
        ({"rate": 1.05}, form, "#/rate"),
        ({"rate": "0"}, form, "#/rate"),
        ({"rate": "1e3"}, form, "#/rate"),
        ({"rate": "0.1234567890123"}, form, "#/rate"),
        ({"from_amount": 10.0}, form, "#/from_amount"),
        ({"from_amount": True}, form, "#/from_amount"),
        ({"from_amount": 0}, amount, "#/from_amount"),
        ({"from_amount": 2**53}, amount, "#/from_amount"),
        ({"from_amount": 2**53 - 1}, amount, "#/from_amount"),  # it would be more than 2^53 − 1 cents
        ({"rate": "0.01"}, amount, "#/from_amount"),  # it would be 0 cents
        ({"to_currency": "EUR"}, form, "#/to_currency"),
        ({"to_currency": "DOLLAR"}, "currency-unknown", "#/to_currency"),
        ({"remainder_account_id": None}, form, "#/remainder_account_id"),
        ({"admin": True}, form, "#/admin"),
    ]
    for wrong, expected, pointer in wrongs:
        answer = await api.post("/v1/exchanges", {**ends, "from_amount": 10, "rate": "1.05"} | wrong)
        assert (code(answer), [each["pointer"] for each in answer.json()["errors"]]) == (expected, [pointer]), wrong
    without_key = await api.client.post("/v1/exchanges", json={**ends, "from_amount": 10, "rate": "1.05"})
    assert code(without_key) == "idempotency-key-required"
    assert code(await exchange(api, ends, 10, "1.05")) == "not-found"


async def test_a_customer_cannot_state_a_rate(api: Commands, settings: Settings) -> None:
    """A customer could state a rate at which the house pays too much."""
    owner = await api.user()
    ends = await parties(api, owner_id=owner)
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner))
    denied = await api.post("/v1/exchanges", {**ends, "from_amount": 10, "rate": "100"}, **customer)
    assert (denied.status_code, code(denied)) == (403, "forbidden")
    assert await posted(api, ends["from_account_id"], ends["to_account_id"]) == [1_000, 0]


async def test_an_exchange_can_stand_in_a_batch(api: Commands, settings: Settings) -> None:
    ends = await parties(api)
    item = {"type": "exchange", **ends, "from_amount": 600, "rate": "1.00125"}
    apart = (await api.post("/v1/batch", {"commands": [item, item]})).json()["results"]
    assert [each["status"] for each in apart] == [201, 409]
    assert (apart[0]["body"]["to_amount"], apart[0]["body"]["remainder"]) == (601, "-0.25")
    together = await api.post("/v1/batch", {"mode": "atomic", "commands": [item | {"from_amount": 300}] * 2})
    assert (code(together), together.json()["index"]) == ("insufficient-funds", 1)
    wrong = await api.post("/v1/batch", {"commands": [item | {"rate": "0"}]})
    assert wrong.json()["errors"][0]["pointer"] == "#/commands/0/rate"
    assert await fault_of_log(settings) == ""


async def test_fifty_at_once_over_two_processes_neither_make_nor_lose_money(api: Commands, settings: Settings) -> None:
    """Some are rejected, because the payer has money for 47 only. No remainder is forgotten."""
    ends = await parties(api)
    async with command_api(settings, is_patient=True) as other:
        rates = [f"1.0{number:02d}" for number in range(1, 51)]
        answers = await asyncio.gather(*(exchange((api, other)[n % 2], ends, 21, rate) for n, rate in enumerate(rates)))
    done = [answer.json() for answer in answers if answer.status_code == 201]
    assert (len(done), {code(answer) for answer in answers if answer.status_code != 201}) == (47, {"insufficient-funds"})
    names = ("from_account_id", "house_from_account_id", "house_to_account_id", "to_account_id", "remainder_account_id")
    payer, takes, gives, payee, remainders = await posted(api, *(ends[name] for name in names))
    assert (payer + takes, gives + payee + remainders) == (1_000, 5_000)
    worth = sum(21 * Fraction(each["rate"]) for each in done)
    newest = max(done, key=lambda each: int(each["position"]))
    assert payee + remainders + Fraction(newest["carried"]) == worth
    assert sum(Fraction(each["remainder"]) for each in done) == remainders + Fraction(newest["carried"])
    assert await fault_of_log(settings) == ""
