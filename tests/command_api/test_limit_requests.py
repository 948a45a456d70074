"""Spending limits over HTTP, on real stores: what is answered, and that no race exceeds a limit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.log.heads import read_head
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import Commands, command_api, created

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


async def limit(api: Commands, account_id: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await api.client.put(f"/v1/accounts/{account_id}/limits", json=body, headers=headers)


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


async def fault_of_log(settings: Settings) -> str:
    """Decides the whole log again, with all stored replies. Returns what is wrong with them, or nothing."""
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, "main")).position
        _, replies = await verify_events(connection, "main", head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


async def test_fifty_transfers_at_once_never_exceed_a_limit_and_use_all_of_it(api: Commands, settings: Settings) -> None:
    payer, payee = await api.account(balance=10_000), await api.account()
    assert (await limit(api, payer, {"per_day": 105})).status_code == 200
    answers = await asyncio.gather(
        *(api.transfer(payer, payee, 10) for _ in range(25)), *(api.withdraw(payer, 10) for _ in range(25))
    )
    assert Counter(answer.status_code for answer in answers) == {201: 10, 409: 40}
    [*refused] = [answer.json() for answer in answers if answer.status_code == 409]
    assert {problem["code"] for problem in refused} == {"limit-exceeded"}
    last = (await api.transfer(payer, payee, 6)).json()
    assert (last["limit"], last["used"], last["period"], last["retryable"]) == (105, 100, "day", True)
    assert last["resets_at"].endswith("T00:00:00.000000Z")
    created(await api.transfer(payer, payee, 5))
    assert await fault_of_log(settings) == ""


async def test_limits_are_set_repeated_refused_and_removed(api: Commands, settings: Settings) -> None:
    account_id = await api.account(balance=1_000)
    first = await limit(api, account_id, {"per_transfer_min": 5, "per_transfer_max": 50}, **{"idempotency-key": "one"})
    assert first.json()["limits"] == {"per_transfer_min": 5, "per_transfer_max": 50, "per_day": None, "per_month": None}
    again = await limit(
        api, account_id, {"per_transfer_max": 50, "per_transfer_min": 5, "per_day": None}, **{"idempotency-key": "one"}
    )
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert (await limit(api, account_id, {"per_transfer_min": 5, "per_transfer_max": 50})).json()["version"] == first.json()[
        "version"
    ]
    outside = (await api.withdraw(account_id, 51)).json()
    assert (outside["code"], outside["smallest"], outside["largest"]) == ("amount-outside-limits", 5, 50)
    assert (await api.withdraw(account_id, 4)).json()["code"] == "amount-outside-limits"
    refused: list[tuple[dict[str, Any], str]] = [
        ({"per_day": -1}, "amount-out-of-range"),
        ({"per_transfer_min": 0}, "amount-out-of-range"),
        ({"per_month": 2**53}, "amount-out-of-range"),
        ({"per_day": "5"}, "validation-failed"),
        ({"per_week": 5}, "validation-failed"),
        ({"per_transfer_min": 9, "per_transfer_max": 8}, "validation-failed"),
    ]
    for wrong, expected in refused:
        assert code(await limit(api, account_id, wrong)) == expected, wrong
    assert code(await limit(api, account_id, {}, **{"if-match": '"v1"'})) == "stream-version-mismatch"
    assert "limits" not in (await limit(api, account_id, {})).json()
    created(await api.withdraw(account_id, 900))
    assert await fault_of_log(settings) == ""


async def test_a_batch_and_a_capture_count_and_an_atomic_batch_that_exceeds_records_nothing(
    api: Commands, settings: Settings
) -> None:
    payer, payee = await api.account(balance=1_000), await api.account()
    await limit(api, payer, {"per_month": 100})
    body = {"account_id": payer, "amount": 500, "currency": "EUR", "to_account_id": payee}
    hold_id = created(await api.post("/v1/holds", body))
    created(await api.post(f"/v1/holds/{hold_id}/capture", {"amount": 30}))
    assert code(await api.post(f"/v1/holds/{hold_id}/capture", {"amount": 71})) == "limit-exceeded"
    transfer = {"from_account_id": payer, "to_account_id": payee, "amount": 40, "currency": "EUR"}
    refused = await api.post("/v1/transfers/batch", {"mode": "atomic", "transfers": [transfer, transfer]})
    assert (code(refused), refused.json()["used"], refused.json()["index"]) == ("limit-exceeded", 70, 1)
    answer = await api.post("/v1/transfers/batch", {"mode": "independent", "transfers": [transfer, transfer]})
    assert [each["status"] for each in answer.json()["results"]] == [201, 409]
    assert await fault_of_log(settings) == ""
