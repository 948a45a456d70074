"""Many transfers in one request."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from tests.clients import Commands, command_api

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


def move(payer: str, payee: str, amount: int) -> dict[str, Any]:
    return {"from_account_id": payer, "to_account_id": payee, "amount": amount, "currency": "EUR"}


async def post(api: Commands, mode: str, *transfers: dict[str, Any], key: str = "k") -> httpx2.Response:
    return await api.post("/v1/transfers/batch", {"mode": mode, "transfers": transfers}, idempotency_key=key)


def posted(answer: httpx2.Response) -> list[list[int]]:
    """The balances after each transfer, the payer's first."""
    return [[b["posted"] for b in result["body"]["balances"]] for result in answer.json()["results"] if result["status"] == 201]


async def test_independent_transfers_have_a_verdict_each(api: Commands) -> None:
    a, b = await api.account(balance=10), await api.account()
    answer = await post(api, "independent", move(a, b, 6), move(a, b, 6), move(b, a, 1))
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == [201, 409, 201]
    assert posted(answer) == [[4, 6], [5, 5]]
    refused = answer.json()["results"][1]["body"]
    assert (refused["code"], refused["available"]) == ("insufficient-funds", 4)


@pytest.mark.parametrize("mode", ["independent", "atomic"])
async def test_a_repeated_batch_has_one_effect_and_the_same_answer(api: Commands, mode: str) -> None:
    a, b = await api.account(balance=10), await api.account()
    first = await post(api, mode, move(a, b, 1), move(a, b, 2))
    again = await post(api, mode, move(a, b, 1), move(a, b, 2))
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["daybook-position"] == first.headers["daybook-position"]
    other = await post(api, mode, move(a, b, 1), move(a, b, 3))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_an_atomic_batch_is_decided_transfer_by_transfer(api: Commands) -> None:
    a, b, c = await api.account(balance=10), await api.account(), await api.account()
    answer = await post(api, "atomic", move(a, b, 10), move(b, c, 10), move(c, a, 4))
    assert answer.status_code == 200, answer.text
    assert posted(answer) == [[0, 10], [0, 10], [6, 4]]
    positions = [result["body"]["position"] for result in answer.json()["results"]]
    assert positions == list(range(positions[0], positions[0] + 3))
    assert answer.headers["daybook-position"] == str(positions[-1])


async def test_one_refusal_refuses_all_of_an_atomic_batch(api: Commands) -> None:
    a, b = await api.account(balance=10), await api.account()
    refused = await post(api, "atomic", move(a, b, 6), move(a, b, 6))
    assert (refused.status_code, refused.json()["code"], refused.json()["index"]) == (409, "insufficient-funds", 1)
    untouched = await post(api, "atomic", move(a, b, 10), key="other")
    assert posted(untouched) == [[0, 10]]


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_1_to_500_transfers(api: Commands, count: int) -> None:
    some = "0198c5a0-0000-7000-8000-0000000000e1"
    answer = await post(api, "independent", *[move(some, some, 1)] * count)
    assert answer.json()["code"] == "validation-failed"


async def test_a_wrong_transfer_is_pointed_at(api: Commands) -> None:
    some = "0198c5a0-0000-7000-8000-0000000000e1"
    answer = await post(api, "independent", move(some, some, 1), move(some, some, 0))
    assert (answer.status_code, answer.json()["code"]) == (422, "amount-out-of-range")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/transfers/1/amount"]
