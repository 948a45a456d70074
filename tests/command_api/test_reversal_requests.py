"""Reversals over HTTP: what is answered, once for each key, on real stores and under races."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.domain.transfer import TRANSFER_FOLD, TransferState
from shared.log.heads import UNFOLDED, read_stream_heads
from shared.log.snapshots import is_readable, read_state
from shared.log.streams import transfer_stream
from shared.settings import Settings
from shared.stores.postgres import driver_of, open_postgres
from tests.command_api.test_hold_requests import capture, code, fault_of_log, place
from tests.harness.clients import Commands, command_api, created

pytestmark = pytest.mark.services

SOME_ID = "0198c5a0-0000-7000-8000-0000000000f1"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


async def reverse(api: Commands, transfer_id: str, amount: int | None = None, **fields: Any) -> httpx2.Response:
    headers = {name: fields.pop(name) for name in ("idempotency_key", "if_match") if name in fields}
    return await api.post(f"/v1/transfers/{transfer_id}/reverse", {"amount": amount, **fields}, **headers)


async def posted(api: Commands, account_id: str) -> int:
    return int((await api.post(f"/v1/accounts/{account_id}/unfreeze")).json()["balance"]["posted"])


async def test_a_transfer_is_reversed_in_parts_and_everything_that_was_answered_follows_from_the_log(
    api: Commands, settings: Settings
) -> None:
    payer, payee = await api.account(balance=100), await api.account()
    paid = created(await api.transfer(payer, payee, 60))
    part = await reverse(api, paid, 25, idempotency_key="part", reference="refund", if_match='"v1"')
    body = part.json()
    assert part.headers["location"].endswith(f"/v1/transfers/{created(part)}")
    assert (body["reverses"], body["from_account_id"], body["to_account_id"], body["amount"]) == (paid, payee, payer, 25)
    assert (body["reversed"], body["remaining"], body["reference"]) == (25, 35, "refund")
    assert [(each["account_id"], each["posted"]) for each in body["balances"]] == [(payee, 35), (payer, 65)]
    again = await reverse(api, paid, 25, idempotency_key="part", reference="refund", if_match='"v1"')
    assert (again.content, again.headers["idempotency-replayed"]) == (part.content, "true")
    assert code(await reverse(api, paid, 26, idempotency_key="part")) == "idempotency-key-reused"
    assert code(await reverse(api, paid, 25, if_match='"v1"')) == "stream-version-mismatch"
    too_much = (await reverse(api, paid, 36)).json()
    assert (too_much["code"], too_much["remaining"], too_much["required"]) == ("reversal-amount-exceeded", 35, 36)
    rest = (await reverse(api, paid)).json()
    assert (rest["amount"], rest["reversed"], rest["remaining"]) == (35, 60, 0)
    done = (await reverse(api, paid)).json()
    assert (done["code"], done["status"], done["reversed"]) == ("transfer-already-reversed", 409, 60)
    assert code(await reverse(api, created(part))) == "transfer-not-reversible"
    assert [await posted(api, each) for each in (payer, payee)] == [100, 0]
    assert await fault_of_log(settings) == ""


async def test_deposits_withdrawals_and_captures_are_reversed_too_and_money_that_is_gone_is_not(
    api: Commands, settings: Settings
) -> None:
    account_id = await api.account(overdraft_limit=10)
    deposited = created(await api.deposit(account_id, 100))
    taken = created(await api.withdraw(account_id, 40))
    gone = (await reverse(api, deposited)).json()
    assert (gone["code"], gone["available"], gone["required"]) == ("insufficient-funds", 70, 100)
    back = (await reverse(api, taken)).json()
    assert (back["from_account_id"], back["to_account_id"], len(back["balances"])) == (None, account_id, 1)
    hold_id = created(await place(api, account_id, 30))
    assert code(await reverse(api, deposited)) == "insufficient-funds"
    captured = created(await capture(api, hold_id))
    assert (await reverse(api, captured)).json()["balances"][0]["posted"] == 100
    assert (await reverse(api, deposited)).json()["to_account_id"] is None
    again = created(await api.deposit(account_id, 5))
    assert (await api.withdraw(account_id, 15)).json()["balances"][0]["posted"] == -10
    assert code(await reverse(api, again)) == "insufficient-funds"
    assert await fault_of_log(settings) == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"amount": 0}, "amount-out-of-range"),
        ({"amount": True}, "validation-failed"),
        ({"amount": "5"}, "validation-failed"),
        ({"amount": 5.0}, "validation-failed"),
        ({"currency": "EUR"}, "validation-failed"),
        ({"id": "x"}, "validation-failed"),
        ({}, "not-found"),
    ],
)
async def test_a_request_that_can_be_no_reversal_is_refused(api: Commands, body: dict[str, Any], expected: str) -> None:
    assert code(await api.post(f"/v1/transfers/{SOME_ID}/reverse", body)) == expected
    without_key = await api.client.post(f"/v1/transfers/{SOME_ID}/reverse", json={})
    assert code(without_key) == "idempotency-key-required"


async def test_fifty_at_once_never_move_back_more_than_was_moved(api: Commands, settings: Settings) -> None:
    """Through two processes, each with its own memory of the transfer. The payee has more money than the transfer brought."""
    payer, payee = await api.account(balance=1_000), await api.account(balance=1_000)
    paid = created(await api.transfer(payer, payee, 100))
    async with command_api(settings, is_patient=True) as other:
        answers = await asyncio.gather(*(reverse((api, other)[n % 2], paid, 7) for n in range(50)))
        rest = await asyncio.gather(*(reverse(each, paid) for each in (api, other, api)))
    moved = [answer.json()["amount"] for answer in (*answers, *rest) if answer.status_code == 201]
    assert moved == [7] * 14 + [2]
    refusals = {code(answer) for answer in (*answers, *rest) if answer.status_code != 201}
    assert refusals == {"reversal-amount-exceeded", "transfer-already-reversed"}
    assert [await posted(api, each) for each in (payer, payee)] == [1_000, 1_000]
    assert await fault_of_log(settings) == ""


async def test_a_transfer_that_was_looked_for_before_it_existed_is_found_afterwards(api: Commands) -> None:
    """And so is a hold. The writer remembers streams, also those that are empty."""
    account_id = await api.account(balance=100)
    assert code(await reverse(api, SOME_ID)) == "not-found"
    assert code(await capture(api, SOME_ID)) == "not-found"
    created(await api.post("/v1/deposits", {"id": SOME_ID, "account_id": account_id, "amount": 5, "currency": "EUR"}))
    created(await place(api, account_id, 10, id=SOME_ID))
    created(await reverse(api, SOME_ID))
    created(await capture(api, SOME_ID))


async def test_a_rejected_command_with_the_id_of_a_transfer_hides_it_from_nobody(api: Commands) -> None:
    """All of these are in one batch with high probability, the first of them on its own."""
    account_id, other = await api.account(balance=100), await api.account()
    ids = [f"0198c5a0-0000-7000-8000-0000000000{number:02x}" for number in range(20)]
    for each in ids:
        created(await api.post("/v1/deposits", {"id": each, "account_id": account_id, "amount": 5, "currency": "EUR"}))
    lost = [
        api.post(
            "/v1/transfers", {"id": each, "from_account_id": other, "to_account_id": account_id, "amount": 1, "currency": "EUR"}
        )
        for each in ids
    ]
    answers = await asyncio.gather(
        *(each for pair in zip(lost, (reverse(api, each) for each in ids), strict=True) for each in pair)
    )
    assert {answer.status_code for answer in answers[1::2]} == {201}


async def snapshot_of(engine: AsyncEngine, transfer_id: str) -> tuple[int, int, Any]:
    async with engine.connect() as connection:
        sql = "SELECT version, fold_version, snapshot FROM streams WHERE stream_id = :id"
        version, fold_version, snapshot = (await connection.execute(text(sql), {"id": transfer_stream(transfer_id)})).one()
        return version, fold_version, snapshot


async def test_a_transfer_has_a_snapshot_only_after_its_first_reversal(api: Commands, settings: Settings) -> None:
    """Its event says as much, and comes with its head, so that a reversal is decided ahead like any other command."""
    account_id = await api.account()
    deposited = created(await api.deposit(account_id, 100))
    async with open_postgres(settings, "daybook_command") as engine:
        assert await snapshot_of(engine, deposited) == (1, UNFOLDED, None)
        async with engine.connect() as connection:
            heads = await read_stream_heads(await driver_of(connection), "main", [transfer_stream(deposited)])
        [head] = heads.values()
        assert is_readable(TRANSFER_FOLD, head)
        assert read_state(TRANSFER_FOLD, "main", head, {}) == TransferState(None, account_id, 100, "EUR")
        back = created(await reverse(api, deposited, 30))
        assert await snapshot_of(engine, deposited) == (2, TRANSFER_FOLD.version, [None, account_id, 100, "EUR", 30, 1, True])
        assert await snapshot_of(engine, back) == (1, UNFOLDED, None)
    assert (await reverse(api, deposited)).json()["amount"] == 70


async def test_a_transfer_with_the_snapshot_that_older_code_wrote_is_reversed(api: Commands, settings: Settings) -> None:
    """And so is one whose event was not read with its head: the writer then folds all events of the stream."""
    account_id = await api.account()
    old, damaged = [created(await api.deposit(account_id, 100)) for _ in range(2)]
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        sql = text("UPDATE streams SET fold_version = :version, snapshot = CAST(:snapshot AS jsonb) WHERE stream_id = :id")
        snapshot = json.dumps([None, account_id, 100, "EUR", 0, 0, True])
        written = {"version": TRANSFER_FOLD.version, "snapshot": snapshot, "id": transfer_stream(old)}
        await connection.execute(sql, written)
        await connection.execute(sql, written | {"version": 1, "snapshot": "[]", "id": transfer_stream(damaged)})
    for each in (old, damaged):
        assert (await reverse(api, each, 40)).json()["remaining"] == 60
        assert code(await reverse(api, each, 61)) == "reversal-amount-exceeded"
    assert await fault_of_log(settings) == ""
