"""Several workers share the ledgers. When one of them dies or freezes, the others take over what was its."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from dev.daybook_processes import worker
from projector.live_workers import ALIVE_KEY, LiveWorkers, chosen_worker
from shared.settings import Settings
from shared.stores.redis import open_redis
from tests.harness.log import Book, append
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.proxy import proxy_to
from tests.harness.running import environment_of
from tests.projector.test_many_ledgers import FEW, are_at, fill, follower_tasks, ids, running

services = pytest.mark.services

LEDGERS: Final = 6
MANY: Final = [f"tenant-{number}" for number in range(1_000)]


@pytest_asyncio.fixture
async def main(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


def test_each_worker_gets_about_as_many_ledgers() -> None:
    shares = Counter(chosen_worker(ledger_id, ["a", "b", "c"]) for ledger_id in MANY)
    assert set(shares) == {"a", "b", "c"}
    assert min(shares.values()) > len(MANY) / 3 * 0.8


def test_when_a_worker_leaves_only_its_own_ledgers_change_hands() -> None:
    before = {ledger_id: chosen_worker(ledger_id, ["a", "b", "c"]) for ledger_id in MANY}
    after = {ledger_id: chosen_worker(ledger_id, ["c", "a"]) for ledger_id in MANY}
    assert {before[ledger_id] for ledger_id in MANY if before[ledger_id] != after[ledger_id]} == {"b"}
    assert set(after.values()) == {"a", "c"}


@services
async def test_workers_know_of_each_other_until_one_leaves(settings: Settings) -> None:
    async with open_redis(settings) as redis:
        one, two = LiveWorkers(redis, "one"), LiveWorkers(redis, "two")
        assert not await one.beat()
        assert all(map(one.is_mine, MANY))
        assert await two.beat()
        assert await one.beat()
        assert [one.is_mine(ledger_id) for ledger_id in MANY] == [not two.is_mine(ledger_id) for ledger_id in MANY]
        await two.leave()
        assert await one.beat()
        assert all(map(one.is_mine, MANY))


@services
async def test_workers_keep_their_ledgers_while_redis_does_not_answer(settings: Settings) -> None:
    proxying = AsyncExitStack()
    _, url = await proxying.enter_async_context(proxy_to(settings.redis_url))
    async with open_redis(settings) as redis, open_redis(settings.model_copy(update={"redis_url": url})) as proxied:
        one, two = LiveWorkers(proxied, "one"), LiveWorkers(redis, "two")
        await two.beat()
        await one.beat()
        share = [ledger_id for ledger_id in MANY if one.is_mine(ledger_id)]
        assert len(share) < len(MANY)
        await proxying.aclose()
        await proxied.connection_pool.disconnect()
        with pytest.raises(RedisConnectionError):
            await proxied.get("anything")
        assert not await one.beat()
        assert [ledger_id for ledger_id in MANY if one.is_mine(ledger_id)] == share


@services
async def test_each_ledger_is_followed_by_one_of_two_workers(main: Ledger) -> None:
    heads = await fill(main, LEDGERS)
    async with open_ledger(main.settings) as other, running(main), running(other):

        async def are_shared() -> bool:
            return await are_at(main, heads) and follower_tasks() == LEDGERS * len(FEW)

        await eventually(are_shared)
        for ledger_id in heads:
            heads[ledger_id] = await append(main.writer, [Book(seed=2).create_user()], ledger_id)
        await eventually(are_shared)


@pytest.mark.slow
@services
@pytest.mark.parametrize("is_frozen", [False, True], ids=["killed", "frozen"])
async def test_a_worker_takes_over_from_one_that_is_killed_or_frozen(main: Ledger, tmp_path: Path, *, is_frozen: bool) -> None:
    heads = await fill(main, LEDGERS)
    async with AsyncExitStack() as stack:
        workers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            workers.append(worker(tmp_path / name, environment_of(main.settings)))
            stack.push_async_callback(workers[-1].kill)
            await workers[-1].start()
        await eventually(lambda: are_alive(main, 2))
        await eventually(lambda: are_at(main, heads))
        victim = workers[0]
        victim.freeze() if is_frozen else await victim.kill()
        for seed in (2, 3):
            for ledger_id in ids(LEDGERS):
                heads[ledger_id] = await append(main.writer, [Book(seed=seed).create_user()], ledger_id)
            await eventually(lambda: are_at(main, heads))
            if is_frozen:
                victim.thaw()


async def are_alive(main: Ledger, count: int) -> bool:
    return bool(await main.stores.redis.zcard(ALIVE_KEY) == count)
