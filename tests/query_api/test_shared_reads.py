"""Queries of many callers share a round trip to a store: none gets another's data, or data of another moment."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from query_api.reading import Reader
from shared.read_models.generations import pointer_key
from shared.read_models.shapes import ACCOUNTS, BALANCES
from shared.settings import Settings
from tests.harness.keys import add_key
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

CUSTOMER_SCOPES = ("ledger:read",)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings, is_patient=False) as questions, projecting(questions, settings):
        yield questions


async def test_each_of_many_simultaneous_queries_gets_its_own_answer(settings: Settings, api: Questions) -> None:
    """Two customers and an operator query the accounts of both, all at once, again and again."""
    book = Book()
    owners = [book.create_user() for _ in range(2)]
    accounts = [book.open_account(owner.user_id) for owner in owners for _ in range(10)]
    deposits = [book.deposit(account.account_id, number) for number, account in enumerate(accounts, 1)]
    await api.record([*owners, *accounts, *deposits])
    tokens = [await add_key(settings.database_url, scopes=CUSTOMER_SCOPES, user_id=owner.user_id) for owner in owners]
    callers: list[tuple[str | None, dict[str, str]]] = [(None, {})]
    callers += [(owner.user_id, {"authorization": f"Bearer {token}"}) for owner, token in zip(owners, tokens, strict=True)]
    await api.get("/v1/users")

    async def ask(number: int, account: Any, owner_id: str | None, headers: dict[str, str], path: str) -> None:
        answer = await api.ask(f"/v1/accounts/{account.account_id}{path}", **headers)
        if owner_id not in {None, account.owner_id}:
            assert answer.status_code == 404
            assert account.account_id not in answer.text
            return
        body = answer.json()
        if path == "/entries":
            assert [(item["account_id"], item["amount"]) for item in body["items"]] == [(account.account_id, number)]
        else:
            balance = body if path else body["balance"]
            assert (balance["account_id"], balance["posted"]) == (account.account_id, number)

    for _ in range(3):
        await asyncio.gather(
            *(
                ask(number, account, *caller, path)
                for path in ("", "/balance", "/entries")
                for number, account in enumerate(accounts, 1)
                for caller in callers
            )
        )


async def test_a_damaged_redis_key_fails_only_its_own_query_and_is_built_again(api: Questions) -> None:
    book = Book()
    accounts = [book.open_account(book.new_id()) for _ in range(3)]
    await api.record(accounts)
    paths = [f"/v1/accounts/{account.account_id}" for account in accounts]
    await asyncio.gather(*map(api.get, paths))
    damaged = f"{pointer_key(BALANCES, 'main')}:1:account:{accounts[1].account_id}"
    await api.stores.redis.set(damaged, "no hash")
    answers = await asyncio.gather(*(api.ask(path, prefer="wait=0") for path in paths))
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    await asyncio.gather(*map(api.get, paths))


@pytest.mark.slow
async def test_queries_that_share_a_round_trip_have_one_position(settings: Settings, api: Questions) -> None:
    """The sum of all balances never changes, so it must be the same in all answers of one round trip."""
    book = Book()
    opened = [book.open_account(book.new_id(), overdraft_limit=10**6) for _ in range(20)]
    await api.record(opened)
    await api.get("/v1/stats")
    await api.get("/v1/accounts")
    reader = Reader(api.stores.engine, api.stores.mongo, api.stores.redis, settings)

    async def keep_moving() -> None:
        for _ in range(100):
            pairs = [book.random.sample(opened, 2) for _ in range(10)]
            await api.record([book.transfer(one.account_id, other.account_id, 7) for one, other in pairs])

    async def in_redis(account_id: str) -> tuple[int, int]:
        found = await reader.look_in_redis(BALANCES, "main", [("HGET", f"account:{account_id}", "posted")])
        return found.position, int(found.data[0])

    async def in_mongo(account_id: str) -> tuple[int, int]:
        found = await reader.look_in_mongo(ACCOUNTS, "main", [{"$match": {"_id": account_id}}])
        return found.position, found.data[0]["posted"]

    moving = asyncio.create_task(keep_moving())
    looks, positions = 0, set()
    while not moving.done():
        for look in (in_redis, in_mongo):
            found = await asyncio.gather(*(look(account.account_id) for account in opened))
            [position] = {position for position, _ in found}
            assert sum(posted for _, posted in found) == 0
            positions.add((look, position))
        looks += 1
    await moving
    assert looks > 10
    assert len(positions) > 4
