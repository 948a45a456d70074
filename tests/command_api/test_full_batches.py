"""A full batch is decided while the one before it is being written, on states that are not committed. Here these come to nothing.

Batches have three commands, so that all of them are full. Money that was decided on and then not written would show at once: as
a balance that does not follow from the log, or as an answer that the log does not know.
"""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from shared.settings import Settings
from tests.harness.clients import Commands, command_api
from tests.harness.proxy import proxy_to

pytestmark = pytest.mark.services

COMMANDS = 120


@pytest.fixture
def small(settings: Settings) -> Settings:
    """Batches of three, and no deadline that a busy machine could miss."""
    return settings.model_copy(update={"batch_commands_max": 3, "command_deadline_ms": 60_000})


async def moves(settings: Settings) -> list[dict[str, Any]]:
    """All transfers of the log, in order."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        rows = await connection.fetch(
            "SELECT position, data->>'transfer_id' AS id, CAST(data->>'from_balance' AS bigint) AS left"
            " FROM events WHERE type = 'FundsTransferred' ORDER BY position"
        )
    finally:
        await connection.close()
    return [dict(row) for row in rows]


async def send(api: Commands, payer: str, payee: str) -> list[httpx2.Response]:
    return await asyncio.gather(*(api.transfer(payer, payee, 1) for _ in range(COMMANDS)))


async def require_the_truth(settings: Settings, answers: list[httpx2.Response], balance: int) -> None:
    """What was answered is what the log holds, and each balance is the one before less one."""
    recorded = await moves(settings)
    assert [move["left"] for move in recorded] == [balance - n for n in range(1, len(recorded) + 1)]
    told = {answer.json()["id"]: answer for answer in answers if answer.status_code == 201}
    assert {move["id"] for move in recorded} == told.keys()
    for move in recorded:
        answer = told[move["id"]].json()
        assert (answer["position"], answer["balances"][0]["posted"]) == (move["position"], move["left"])
    assert {answer.status_code for answer in answers} <= {201, 409}


async def test_each_full_batch_goes_on_from_the_one_before(small: Settings) -> None:
    async with command_api(small) as api:
        payer, payee = await api.account(balance=COMMANDS // 2), await api.account()
        answers = await send(api, payer, payee)
    await require_the_truth(small, answers, COMMANDS // 2)
    assert [answer.status_code for answer in answers].count(201) == COMMANDS // 2


async def test_two_writers_take_turns_and_neither_keeps_what_it_decided_too_early(small: Settings) -> None:
    async with command_api(small) as one, command_api(small) as other:
        payer, payee = await one.account(balance=3 * COMMANDS), await one.account()
        answers = [answer for each in await asyncio.gather(*(send(api, payer, payee) for api in (one, other))) for answer in each]
    await require_the_truth(small, answers, 3 * COMMANDS)
    assert {answer.status_code for answer in answers} == {201}


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before the server sees it", "before we see its reply"])
@pytest.mark.parametrize("pattern", [b"FundsTransferred", b"COMMIT"])
async def test_a_batch_that_is_cut_off_takes_nothing_with_it(small: Settings, pattern: bytes, *, before: bool) -> None:
    async with proxy_to(small.database_url) as (proxy, url):
        async with command_api(small.model_copy(update={"database_url": url})) as api:
            payer, payee = await api.account(balance=2 * COMMANDS), await api.account()
            sending = asyncio.create_task(send(api, payer, payee))
            while len(await moves(small)) < COMMANDS // 4:
                await asyncio.sleep(0)
            proxy.arm(pattern, before=before)
            answers = await sending
            assert proxy.cuts == 1
    await require_the_truth(small, answers, 2 * COMMANDS)
    assert {answer.status_code for answer in answers} == {201}
