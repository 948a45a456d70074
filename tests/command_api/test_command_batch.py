"""Commands of several kinds in one request: each with a verdict of its own, or all recorded or none."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.command_api.test_hold_requests import code, fault_of_log
from tests.harness.clients import Commands, command_api
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services

EUR = {"currency": "EUR"}
SOME_ID = "0198c5a0-0000-7000-8000-0000000000e1"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as commands:
        yield commands


async def post(api: Commands, mode: str, *commands: dict[str, Any], key: str = "k") -> httpx2.Response:
    return await api.post("/v1/batch", {"mode": mode, "commands": commands}, idempotency_key=key)


def new_id(number: int) -> str:
    return f"0198c5a0-0000-7000-8000-00000000b0{number:02x}"


def every_kind(payer: str, payee: str) -> list[dict[str, Any]]:
    """One of each type. Each needs what those before it leave, and all that the payer has is spent."""
    postings = [{"account_id": each, "amount": amount, **EUR} for each, amount in ((payer, -10), (payee, 7), (None, 3))]
    return [
        {"type": "deposit", "id": new_id(1), "account_id": payer, "amount": 100, **EUR, "reference": "r"},
        {"type": "hold", "id": new_id(2), "account_id": payer, "to_account_id": payee, "amount": 60, **EUR},
        {"type": "transfer", "id": new_id(3), "from_account_id": payer, "to_account_id": payee, "amount": 30, **EUR},
        {"type": "transfer", "id": new_id(4), "postings": postings},
        {"type": "capture", "id": new_id(5), "hold_id": new_id(2), "amount": 20},
        {"type": "release", "hold_id": new_id(2)},
        {"type": "withdrawal", "id": new_id(6), "account_id": payer, "amount": 40, **EUR},
        {"type": "reverse", "id": new_id(7), "transfer_id": new_id(3), "amount": 30},
    ]


async def posted(api: Commands, *account_ids: str) -> list[int]:
    found = [await api.post(f"/v1/accounts/{each}/unfreeze") for each in account_ids]
    return [each.json()["balance"]["posted"] for each in found]


@pytest.mark.parametrize("mode", ["independent", "atomic"])
async def test_commands_of_every_kind_are_answered_as_each_alone_and_once(api: Commands, settings: Settings, mode: str) -> None:
    """The answers agree with the log. Each one shows a hold as it is at that place in the batch."""
    payer, payee = await api.account(), await api.account()
    answer = await post(api, mode, *every_kind(payer, payee))
    results = answer.json()["results"]
    assert [each["status"] for each in results] == [201, 201, 201, 201, 201, 200, 201, 201], answer.text
    bodies = [each["body"] for each in results]
    assert [each["posted"] for each in bodies[2]["balances"]] == [70, 30]
    assert [(each["posted"], each["held"], each["available"]) for each in bodies[2]["balances"]] == [(70, 60, 10), (30, 0, 30)]
    assert (bodies[1]["remaining"], bodies[4]["hold"]["remaining"], bodies[4]["hold"]["version"]) == (60, 40, 2)
    assert (bodies[5]["status"], bodies[5]["version"], bodies[7]["reversed"]) == ("released", 3, 30)
    positions = [each["position"] for each in bodies]
    assert positions == list(range(positions[0], positions[0] + 8))
    assert answer.headers["daybook-position"] == str(positions[-1])
    again = await post(api, mode, *every_kind(payer, payee))
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    other = await post(api, mode, *every_kind(payer, payee)[:-1])
    assert (other.status_code, code(other)) == (422, "idempotency-key-reused")
    assert await posted(api, payer, payee) == [30, 27]
    assert await fault_of_log(settings) == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", range(8))
async def test_one_rejected_command_rejects_all_of_an_atomic_batch_and_is_named(
    api: Commands, engine: AsyncEngine, place: int
) -> None:
    payer, payee = await api.account(), await api.account()
    commands = every_kind(payer, payee)
    commands.insert(place, {"type": "withdrawal", "account_id": payee, "amount": 1_000, **EUR})
    rejected = await post(api, "atomic", *commands)
    assert (rejected.status_code, code(rejected), rejected.json()["index"]) == (409, "insufficient-funds", place)
    assert (await post(api, "atomic", *commands)).content == rejected.content
    async with engine.connect() as connection:
        moves = await connection.scalar(text("SELECT count(*) FROM events WHERE type LIKE 'Funds%' OR type LIKE 'Hold%'"))
    assert moves == 0
    assert (await post(api, "atomic", *every_kind(payer, payee), key="other")).status_code == 200
    assert await posted(api, payer, payee) == [30, 27]


async def test_an_independent_batch_records_what_it_can(api: Commands, settings: Settings) -> None:
    payer, payee = await api.account(), await api.account()
    commands = every_kind(payer, payee)
    commands[0]["account_id"] = SOME_ID
    statuses = [each["status"] for each in (await post(api, "independent", *commands)).json()["results"]]
    assert statuses == [404, 409, 409, 409, 404, 404, 409, 404]
    assert await fault_of_log(settings) == ""


async def test_batches_of_many_callers_at_once_lose_no_money(api: Commands, settings: Settings) -> None:
    a, b = await api.account(balance=100), await api.account(balance=100)
    move = {"type": "transfer", "amount": 9, **EUR}
    wanted = [move | {"from_account_id": x, "to_account_id": y} for x, y in ((a, b), (a, b), (b, a))]
    answers = await asyncio.gather(
        *(post(api, mode, *wanted, key=f"{mode}{n}") for n in range(8) for mode in ("independent", "atomic"))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert sum(await posted(api, a, b)) == 200
    assert await fault_of_log(settings) == ""


async def test_a_wrong_command_is_pointed_at(api: Commands) -> None:
    deposit = {"type": "deposit", "account_id": SOME_ID, "amount": 5, **EUR}
    wrongs: list[tuple[dict[str, Any], str, str]] = [
        (deposit | {"amount": 0}, "amount-out-of-range", "#/commands/1/amount"),
        (deposit | {"currency": "EURO"}, "currency-unknown", "#/commands/1/currency"),
        (deposit | {"hold_id": SOME_ID}, "validation-failed", "#/commands/1/hold_id"),
        ({"type": "capture"}, "validation-failed", "#/commands/1/hold_id"),
        ({"type": "reverse", "transfer_id": "x"}, "validation-failed", "#/commands/1/transfer_id"),
        ({"type": "transfer", "postings": [{}, {}]}, "validation-failed", "#/commands/1/postings/0/account_id"),
        ({"type": "freeze", "account_id": SOME_ID}, "validation-failed", "#/commands/1"),
        ({"type": ["deposit"]}, "validation-failed", "#/commands/1"),
        ({}, "validation-failed", "#/commands/1"),
    ]
    for wrong, expected, pointer in wrongs:
        answer = await post(api, "independent", deposit, wrong)
        found = answer.json()
        assert (found["code"], found["errors"][0]["pointer"]) == (expected, pointer), wrong
    nothing: Any = 5
    assert code(await post(api, "independent", deposit, nothing)) == "validation-failed"


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_1_to_1000_commands(api: Commands, count: int) -> None:
    answer = await post(api, "independent", *[{"type": "release", "hold_id": SOME_ID}] * count)
    assert (answer.status_code, code(answer)) == (422, "validation-failed")


@pytest.mark.parametrize("mode", ["independent", "atomic"])
async def test_a_thousand_commands_are_possible(api: Commands, mode: str) -> None:
    account_id = await api.account()
    deposit = {"type": "deposit", "account_id": account_id, "amount": 1, **EUR}
    answer = await post(api, mode, *[deposit] * 1_000)
    assert (answer.status_code, len(answer.json()["results"])) == (200, 1_000)
    assert await posted(api, account_id) == [1_000]


async def test_a_customer_cannot_send_a_batch_and_a_key_is_required(api: Commands, settings: Settings) -> None:
    owner = await api.user()
    customer = bearer(await add_key(settings.database_url, "customer", user_id=owner))
    body = {"commands": [{"type": "release", "hold_id": SOME_ID}]}
    assert (await api.post("/v1/batch", body, **customer)).status_code == 403
    assert code(await api.client.post("/v1/batch", json=body)) == "idempotency-key-required"
