"""Half of those who wait are in a batch, and are answered while the other half is written. Seen from outside."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from shared.settings import Settings
from tests.harness.clients import Commands, command_api
from tests.harness.proxy import proxy_to

pytestmark = pytest.mark.services

CALLERS = 16
TIMES = 20


async def transactions(settings: Settings) -> Counter[str]:
    """How many transfers each transaction recorded."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        rows = await connection.fetch("SELECT CAST(xmin AS text) FROM events WHERE type = 'FundsTransferred'")
    finally:
        await connection.close()
    return Counter(row[0] for row in rows)


async def keep_sending(api: Commands, payer: str, payee: str) -> None:
    for _ in range(TIMES):
        answer = await api.transfer(payer, payee, 1)
        assert answer.status_code == 201


async def test_no_transaction_takes_more_than_half_of_those_who_wait(settings: Settings) -> None:
    async with command_api(settings) as api:
        payer, payee = await api.account(balance=CALLERS * TIMES), await api.account()
        await asyncio.gather(*(keep_sending(api, payer, payee) for _ in range(CALLERS)))
    sizes = (await transactions(settings)).values()
    assert sum(sizes) == CALLERS * TIMES
    assert max(sizes) <= CALLERS // 2
    assert max(sizes) > 1


@pytest.mark.slow
async def test_what_is_committed_is_answered_though_the_next_batch_gets_stuck(settings: Settings) -> None:
    async with proxy_to(settings.database_url) as (proxy, url):
        through = settings.model_copy(update={"database_url": url, "stream_cache_max": 1})
        async with command_api(through) as api:
            first, second, third = [await api.account(balance=100) for _ in range(3)]
            proxy.arm(third.encode(), silent=True)
            answers = await asyncio.gather(api.transfer(first, second, 1), api.transfer(second, third, 1))
    assert proxy.cuts == 1
    assert answers[0].status_code == 201
    assert len(await transactions(settings)) == [answer.status_code for answer in answers].count(201)
