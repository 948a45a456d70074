"""Holds over HTTP: what is answered, once for each key, on real stores and under races; and expiry with no worker at work."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.log.heads import read_head
from shared.privacy.person_keys import PersonKeys
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DueHolds
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from tests.harness.clients import Commands, command_api, created

pytestmark = pytest.mark.services

EUR = {"currency": "EUR"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


async def place(api: Commands, account_id: str, amount: int, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"idempotency_key": key} if key else {}
    return await api.post("/v1/holds", {"account_id": account_id, "amount": amount, **EUR, **fields}, **headers)


async def capture(api: Commands, hold_id: str, key: str | None = None, **fields: Any) -> httpx2.Response:
    return await api.post(f"/v1/holds/{hold_id}/capture", fields, **({"idempotency_key": key} if key else {}))


async def available(api: Commands, account_id: str) -> int:
    """Returns what is available, as the rejection of a withdrawal that is too large names it."""
    return int((await api.withdraw(account_id, 1_000_000)).json()["available"])


def soon(seconds: float = 0.5) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def fault_of_log(settings: Settings) -> str:
    """Decides the whole log again, with all stored replies. Returns what is wrong with them, or nothing."""
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, "main")).position
        _, replies = await verify_events(connection, "main", head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


async def events(engine: AsyncEngine, kind: str) -> int:
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT count(*) FROM events WHERE type = :kind"), {"kind": kind})
        return int(found)


async def test_a_hold_is_placed_captured_in_parts_and_the_rest_is_released(api: Commands, settings: Settings) -> None:
    """A retry with the same key gets the same answer, and everything that was answered follows from the log."""
    payer, payee, other = await api.account(balance=100), await api.account(), await api.account()
    placed = await place(api, payer, 60, "place", to_account_id=payee, expires_at="2199-01-01T01:00:00+01:00", reference="r")
    hold_id, body = created(placed), placed.json()
    assert placed.headers["location"].endswith(f"/v1/holds/{hold_id}")
    assert (placed.headers["etag"], body["status"], body["remaining"], body["captured"]) == ('"v1"', "active", 60, 0)
    assert body["expires_at"] == "2199-01-01T00:00:00.000000Z"
    assert body["balances"] == [{"account_id": payer, "posted": 100, "held": 60, "available": 40}]
    again = await place(api, payer, 60, "place", to_account_id=payee, expires_at="2199-01-01T00:00:00Z", reference="r")
    assert (again.content, again.headers["idempotency-replayed"]) == (placed.content, "true")
    assert code(await place(api, payer, 61, "place", to_account_id=payee)) == "idempotency-key-reused"
    assert code(await api.withdraw(payer, 41)) == "insufficient-funds"
    refused = await api.client.post(f"/v1/holds/{hold_id}/capture", json={})
    assert (refused.status_code, code(refused)) == (400, "idempotency-key-required")

    part = await capture(api, hold_id, "part", amount=10)
    assert (await capture(api, hold_id, "part", amount=10, final=False)).content == part.content
    transfer = part.json()
    assert part.headers["location"].endswith(f"/v1/transfers/{created(part)}")
    assert (transfer["from_account_id"], transfer["to_account_id"], transfer["amount"]) == (payer, payee, 10)
    assert [(each["account_id"], each["posted"], each["held"], each["available"]) for each in transfer["balances"]] == [
        (payer, 90, 50, 40),
        (payee, 10, 0, 10),
    ]
    assert (transfer["hold"]["remaining"], transfer["hold"]["captured"], transfer["hold"]["version"]) == (50, 10, 2)
    stale = await api.post(f"/v1/holds/{hold_id}/capture", {}, if_match='"v1"')
    assert (stale.status_code, code(stale)) == (412, "stream-version-mismatch")
    assert code(await capture(api, hold_id, amount=51)) == "hold-amount-exceeded"
    elsewhere = (await capture(api, hold_id, amount=15, to_account_id=other)).json()
    assert elsewhere["balances"][1] == {"account_id": other, "posted": 15, "held": 0, "available": 15}
    last = (await capture(api, hold_id, amount=5, final=True)).json()
    assert (last["hold"]["status"], last["hold"]["captured"], last["hold"]["remaining"]) == ("captured", 30, 0)
    assert last["balances"][0] == {"account_id": payer, "posted": 70, "held": 0, "available": 70}
    ended = (await capture(api, hold_id)).json()
    assert (ended["code"], ended["status"], ended["hold_status"]) == ("hold-not-active", 409, "captured")

    outside = created(await place(api, payer, 70))
    paid_out = (await capture(api, outside)).json()
    assert (paid_out["to_account_id"], len(paid_out["balances"])) == (None, 1)
    assert await available(api, payer) == 0
    again = await api.post(f"/v1/accounts/{payer}/close")
    assert again.json()["status"] == "closed"
    assert await fault_of_log(settings) == ""


async def test_a_release_frees_the_money_and_a_hold_keeps_an_account_from_being_closed(api: Commands, settings: Settings) -> None:
    account_id = await api.account(overdraft_limit=50)
    hold_id = created(await place(api, account_id, 50))
    assert code(await api.post(f"/v1/accounts/{account_id}/close")) == "account-not-empty"
    assert code(await place(api, account_id, 1)) == "insufficient-funds"
    await api.post(f"/v1/accounts/{account_id}/freeze")
    assert code(await capture(api, hold_id)) == "account-frozen"
    released = await api.post(f"/v1/holds/{hold_id}/release", idempotency_key="release")
    assert (released.status_code, released.json()["status"], released.json()["remaining"]) == (200, "released", 0)
    assert released.json()["balances"] == [{"account_id": account_id, "posted": 0, "held": 0, "available": 50}]
    assert (await api.post(f"/v1/holds/{hold_id}/release", idempotency_key="release")).content == released.content
    assert code(await api.post(f"/v1/holds/{hold_id}/release")) == "hold-not-active"
    for path in ("capture", "release"):
        assert code(await api.post(f"/v1/holds/{account_id}/{path}", {})) == "not-found"
    form = "validation-failed"
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"amount": 0}, "amount-out-of-range"),
        ({"amount": True}, form),
        ({"x": 1}, form),
    ]
    for wrong, expected in wrongs:
        assert code(await capture(api, hold_id, **wrong)) == expected
    await api.post(f"/v1/accounts/{account_id}/unfreeze")
    assert (await api.post(f"/v1/accounts/{account_id}/close")).json()["status"] == "closed"
    assert await fault_of_log(settings) == ""


async def place_for_a_moment(api: Commands, account_id: str, amount: int) -> str:
    """Places a hold that ends soon. A machine that stands still gets another chance, with a later end."""
    for seconds in (4, 10, 30):
        placed = await place(api, account_id, amount, expires_at=soon(seconds))
        if placed.status_code == 201:
            break
    return created(placed)


@pytest.mark.slow
async def test_a_hold_ends_at_its_moment_without_a_worker_and_its_expiry_is_recorded_once(
    api: Commands, settings: Settings, engine: AsyncEngine
) -> None:
    """Before and after the expiry is recorded, no decision and no answer counts the hold."""
    account_id = await api.account(balance=100)
    assert code(await place(api, account_id, 1, expires_at="2020-01-01T00:00:00Z")) == "hold-expiry-passed"
    hold_id = await place_for_a_moment(api, account_id, 100)
    early = DueHolds("main", [hold_id, account_id])
    async with open_redis(settings) as redis:
        await redis.publish(DUE_HOLDS_CHANNEL, msgspec.json.encode(early))  # a wrong message changes nothing
        while await available(api, account_id) != 100:
            await asyncio.sleep(0.05)
        assert await events(engine, "HoldExpired") == 0
        assert code(await capture(api, hold_id)) == "hold-not-active"
        assert code(await api.post(f"/v1/holds/{hold_id}/release")) == "hold-not-active"
        unchanged = await api.post(f"/v1/accounts/{account_id}/unfreeze", idempotency_key="without effect")
        assert unchanged.json()["balance"]["available"] == 100
        second = created(await place(api, account_id, 60))
        while await events(engine, "HoldExpired") == 0:
            await redis.publish(DUE_HOLDS_CHANNEL, msgspec.json.encode(DueHolds("main", [hold_id, hold_id, second])))
            await asyncio.sleep(0.2)
    assert await available(api, account_id) == 40
    assert await events(engine, "HoldExpired") == 1
    assert await fault_of_log(settings) == ""


async def test_races_for_the_same_money_have_one_winner_each(api: Commands, settings: Settings) -> None:
    """Holds, captures and releases at the same time on one account take no more than there is."""
    payer, payee = await api.account(balance=100), await api.account()
    answers = await asyncio.gather(*(place(api, payer, 30, to_account_id=payee) for _ in range(8)))
    holds = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(holds) == 3
    assert {code(answer) for answer in answers if answer.status_code != 201} == {"insufficient-funds"}
    races = [capture(api, holds[0], amount=20) for _ in range(4)]
    races += [capture(api, holds[1]) for _ in range(2)] + [api.post(f"/v1/holds/{holds[1]}/release") for _ in range(2)]
    races += [api.post(f"/v1/holds/{holds[2]}/release") for _ in range(3)] + [api.withdraw(payer, 30) for _ in range(3)]
    results = await asyncio.gather(*races)
    assert all(result.status_code in {200, 201, 409} for result in results), [result.text for result in results]
    assert [result.status_code for result in results[:4]].count(201) == 1
    assert [result.is_success for result in results[4:8]].count(True) == 1
    assert [result.is_success for result in results[8:11]].count(True) == 1
    seen = (await api.post(f"/v1/accounts/{payer}/unfreeze")).json()["balance"]
    assert seen["posted"] >= seen["held"] >= 0
    assert await fault_of_log(settings) == ""


async def test_two_command_apis_share_the_money_of_a_hold(settings: Settings) -> None:
    """Each has its own memory of the account and of the hold."""
    async with command_api(settings, is_patient=True) as one, command_api(settings, is_patient=True) as other:
        account_id = await one.account(balance=100)
        hold_id = created(await place(one, account_id, 90))
        assert code(await other.withdraw(account_id, 11)) == "insufficient-funds"
        answers = await asyncio.gather(*(capture(api, hold_id, amount=50) for api in (one, other, one, other)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        created(await capture(other, hold_id, amount=40))
        assert await available(one, account_id) == 10
    assert await fault_of_log(settings) == ""
