"""Many transfers in one request."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from command_api.app import create_app
from shared.settings import Settings
from tests.harness.clients import Commands, client_of, command_api
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services

NO_REDIS = "redis://127.0.0.1:1/0"
"""The process then counts by itself from the beginning, so a busy machine cannot make it change its way in the middle."""


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
    rejected = answer.json()["results"][1]["body"]
    assert (rejected["code"], rejected["available"]) == ("insufficient-funds", 4)


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


async def test_one_rejected_transfer_rejects_all_of_an_atomic_batch(api: Commands) -> None:
    a, b = await api.account(balance=10), await api.account()
    rejected = await post(api, "atomic", move(a, b, 6), move(a, b, 6))
    assert (rejected.status_code, rejected.json()["code"], rejected.json()["index"]) == (409, "insufficient-funds", 1)
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


# ── beside others ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_another_caller_does_not_wait_for_the_batches_of_a_busy_one(settings: Settings) -> None:
    """Counts the transfers of others between two deposits of a caller. In one line for all, these were about 2,000."""
    key = await add_key(settings.database_url, "bystander")
    async with client_of(create_app(settings.model_copy(update={"command_deadline_ms": 60_000}))) as client:
        api = Commands(client)
        a, b = await api.account(balance=1_000_000), await api.account()
        done = asyncio.Event()

        async def send_batches(name: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                await post(api, "independent", *[move(a, b, 1)] * 500, key=f"{name} {number}")

        async def deposit() -> int:
            answer = await api.deposit(b, 1, authorization=bearer(key)["authorization"])
            return int(answer.json()["position"])

        busy = [asyncio.create_task(send_batches(str(n))) for n in range(4)]
        try:
            while await deposit() < 2_000:
                await asyncio.sleep(0)
            positions = [await deposit() for _ in range(40)]
        finally:
            done.set()
            await asyncio.gather(*busy)
    assert statistics.median(after - before for before, after in pairwise(positions)) < 500


@pytest.mark.parametrize("mode", ["independent", "atomic"])
async def test_each_transfer_of_a_batch_costs_a_permit(settings: Settings, mode: str) -> None:
    """A batch that would exceed the limit is denied as a whole, and the permits that are left can still be used."""
    limited = settings.model_copy(update={"rate_limit_caller_per_minute": 100, "redis_url": NO_REDIS})
    caller = bearer(await add_key(settings.database_url, "limited"))
    some = "0198c5a0-0000-7000-8000-0000000000e1"
    async with client_of(create_app(limited)) as client:

        async def send(count: int) -> httpx2.Response:
            body = {"mode": mode, "transfers": [move(some, some, 1)] * count}
            return await client.post("/v1/transfers/batch", json=body, headers=caller | {"idempotency-key": f"{count}"})

        answers = [await send(count) for count in (40, 45, 30, 10, 11)]
    denied = answers[2]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True, False, True]
    assert (denied.json()["code"], int(denied.headers["retry-after"]) > 0) == ("rate-limited", True)


async def test_a_batch_larger_than_the_limit_is_still_possible(settings: Settings) -> None:
    """A request costs at most half of the limit."""
    limited = settings.model_copy(update={"rate_limit_caller_per_minute": 100, "redis_url": NO_REDIS})
    caller = bearer(await add_key(settings.database_url, "limited"))
    some = "0198c5a0-0000-7000-8000-0000000000e1"
    async with client_of(create_app(limited)) as client:
        body = {"transfers": [move(some, some, 1)] * 500}
        codes = [
            (await client.post("/v1/transfers/batch", json=body, headers=caller | {"idempotency-key": key})).status_code
            for key in ("a", "b", "c")
        ]
    assert codes == [200, 200, 429]
