"""Holds and balances as the query API answers them, on real stores with the real projector."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projector.due import EXPIRED_HOLDS, DueTeller
from shared.log.hold_events import HoldExpired
from shared.read_models.channels import DUE_HOLDS_CHANNEL
from shared.settings import Settings
from shared.timestamps import timestamp
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def balances(api: Questions, account_id: str) -> tuple[int, int]:
    """Returns what the account holds and what is available, which all three queries must answer alike."""
    balance = await api.get(f"/v1/accounts/{account_id}/balance")
    one = await api.get(f"/v1/accounts/{account_id}")
    [listed] = [each for each in (await api.get("/v1/accounts"))["items"] if each["id"] == account_id]
    if not one["balance"] == listed["balance"] == {name: value for name, value in balance.items() if name != "position"}:
        return await balances(api, account_id)  # the hold has just expired
    return balance["held"], balance["available"]


async def test_a_hold_and_the_balance_of_its_account_change_together_from_its_placing_to_its_end(api: Questions) -> None:
    book = Book()
    payer, payee = (book.open_account(book.new_id(), overdraft_limit=10) for _ in range(2))
    held = book.place_hold(payer.account_id, 60, payee.account_id, expires_at="2199-01-01T00:00:00.000000Z", reference="r")
    other = book.place_hold(payer.account_id, 5)
    await api.record([payer, payee, book.deposit(payer.account_id, 100), held, other])
    assert await balances(api, payer.account_id) == (65, 45)
    found = await api.get(f"/v1/holds/{held.hold_id}")
    assert (found["status"], found["remaining"], found["to_account_id"]) == ("active", 60, payee.account_id)
    captured = book.capture(held.hold_id, 20)
    await api.record([captured])
    assert await balances(api, payer.account_id) == (45, 45)
    assert await balances(api, payee.account_id) == (0, 30)
    transfer = await api.get(f"/v1/transfers/{captured.transfer_id}")
    assert (transfer["kind"], transfer["hold_id"], transfer["amount"]) == ("transfer", held.hold_id, 20)
    await api.record([book.capture(held.hold_id, 1, final=True), book.release(other.hold_id)])
    assert await balances(api, payer.account_id) == (0, 89)

    async def holds(**parameters: Any) -> list[str]:
        return [each["id"] for each in (await api.get("/v1/holds", parameters))["items"]]

    assert await holds(status="active") == await holds(account_id=payee.account_id) == []
    assert await holds(account_id=payer.account_id, status="captured") == [held.hold_id]
    assert await holds(status="released") == [other.hold_id]
    assert sorted(await holds(sort="placed_at")) == sorted([held.hold_id, other.hold_id])
    assert len(await api.pages("/v1/holds", {"limit": 1})) == 2


@pytest.mark.slow
async def test_a_hold_that_expires_leaves_every_answer_at_its_moment_and_no_event_is_needed(api: Questions) -> None:
    """A cached answer is not confirmed either. The worker then finds the hold once, until its expiry is recorded."""
    book = Book()
    account = book.open_account(book.new_id())
    until = timestamp(datetime.now(UTC) + timedelta(seconds=2))
    hold = book.place_hold(account.account_id, 60, expires_at=until)
    lasting = book.place_hold(account.account_id, 7)
    await api.record([account, book.deposit(account.account_id, 100), hold, lasting])
    path = f"/v1/accounts/{account.account_id}"
    tag = (await api.ask(path)).headers["etag"]
    while await balances(api, account.account_id) != (7, 93):
        await asyncio.sleep(0.05)
    assert (await api.ask(path, if_none_match=tag)).status_code == 200
    expired = await api.get(f"/v1/holds/{hold.hold_id}")
    assert (expired["status"], expired["remaining"], expired["version"]) == ("expired", 0, 1)
    assert [each["id"] for each in (await api.get("/v1/holds", {"status": "expired"}))["items"]] == [hold.hold_id]
    assert [each["id"] for each in (await api.get("/v1/holds", {"status": "active"}))["items"]] == [lasting.hold_id]
    async with api.stores.redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(DUE_HOLDS_CHANNEL)
        teller = DueTeller(EXPIRED_HOLDS)
        assert await teller.tell(api.stores) == 1
        message = None
        while message is None:
            message = await channel.get_message(timeout=120)
        assert hold.hold_id in message["data"]
    await api.record([HoldExpired(hold_id=hold.hold_id, from_account_id=account.account_id, amount=60, currency="EUR")])
    assert await balances(api, account.account_id) == (7, 93)
    assert (await api.get(f"/v1/holds/{hold.hold_id}"))["version"] == 2
    assert await teller.tell(api.stores) == 0
    # It knows now that nothing will be due, and looks again because the log has moved.
    soon = timestamp(datetime.now(UTC) + timedelta(seconds=1))
    await api.record([book.place_hold(account.account_id, 1, expires_at=soon)])
    while await teller.tell(api.stores) != 1:
        await asyncio.sleep(0.05)
