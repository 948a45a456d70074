"""Redis loses keys of a read model: queries are refused as `rebuilding` and never answered with less, and the worker rebuilds it.

A missing key must not be read as a new one. The set `names` of each generation tells which keys it must have.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from projector.sinks.redis import RedisSink
from shared.read_models.generations import live_generation
from shared.read_models.shapes import ACTIVITY, BALANCES, STATISTICS
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

MODELS: Final = (BALANCES, STATISTICS, ACTIVITY)


class Scene:
    """A query API and a worker, and what the queries are answered while nothing is lost."""

    def __init__(self, api: Questions, paths: list[str]) -> None:
        self.api = api
        self.redis: Any = api.stores.redis
        self.paths = paths
        self.right: list[dict[str, Any]] = []

    async def learn(self) -> None:
        self.right.append({path: await self.api.get(path) for path in self.paths})

    async def recovers(self, how: str) -> None:
        """Asks until all answers are the last that were learned. Until then, each is right for an earlier position or refused."""
        for _ in range(600):
            answers = await asyncio.gather(
                *(self.api.ask(path, daybook_min_position="0", prefer="wait=0") for path in self.paths)
            )
            for path, answer in zip(self.paths, answers, strict=True):
                if answer.status_code == 503:
                    assert answer.json()["code"] in {"rebuilding", "store-unavailable", "overloaded"}, (how, path, answer.text)
                else:
                    assert answer.status_code == 200, (how, path, answer.text)
                    assert answer.json() in [right[path] for right in self.right], (how, path)
            if [(answer.status_code, answer.json()) for answer in answers] == [
                (200, self.right[-1][path]) for path in self.paths
            ]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not built again: {how}, {[answer.text for answer in answers]}")

    async def data_keys(self) -> list[str]:
        """Returns the keys of the live generations, without those of the bookkeeping."""
        found = []
        for model in MODELS:
            live = await live_generation(self.api.stores.mongo, self.redis, model, "main")
            found += [live.key(name) for name in sorted(await RedisSink(self.redis).key_names(live))]
        return found


@pytest_asyncio.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    book = Book(5)
    async with query_api(settings) as api, projecting(api, settings):
        await api.record(book.history(80))
        accounts = [f"/v1/accounts/{account_id}" for account_id in sorted(book.accounts)]
        paths = ["/v1/stats", "/v1/activity", *accounts, *(f"{path}/balance" for path in accounts)]
        paths += [f"/v1/stats?currency={currency}" for currency in sorted(set(book.accounts.values()))]
        yield Scene(api, paths)


@pytest.mark.slow
async def test_whatever_redis_loses_comes_back_by_itself_and_is_never_answered_as_zero_or_missing(scene: Scene) -> None:
    """Single keys, keys that expire, fields, the checkpoint, the pointer and everything; then an old dump of everything."""
    await scene.learn()
    for number, key in enumerate(await scene.data_keys()):
        name = key.rpartition(":")[2] if "account:" in key else key.split(":", 4)[4]
        [again] = [each for each in await scene.data_keys() if each.endswith(f":{name}")] or [key]
        await (scene.redis.delete(again) if number % 2 else scene.redis.pexpire(again, 1))
        await asyncio.sleep(0.002)
        await scene.recovers(f"without {again}")
    for model in MODELS:
        for name in ("checkpoint", "names"):
            live = await live_generation(scene.api.stores.mongo, scene.redis, model, "main")
            await scene.redis.delete(live.key(name))
            await scene.recovers(f"without {name} of {model.name}")
        await scene.redis.delete(f"daybook:{{main}}:{model.name}")
        await scene.recovers(f"without the pointer of {model.name}")
    await scene.redis.flushdb()
    await scene.recovers("after FLUSHDB")


@pytest.mark.slow
async def test_an_old_dump_of_redis_is_answered_as_of_its_position_and_catches_up(scene: Scene) -> None:
    await scene.learn()
    keys = [key async for key in scene.redis.scan_iter(match="daybook:{main}:*")]
    dump = {key: await scene.redis.execute_command("DUMP", key, NEVER_DECODE=True) for key in keys}
    await scene.api.record(Book(6).history(20))
    await scene.learn()
    # All at once, or the running worker writes a key in between.
    async with scene.redis.pipeline(transaction=True) as pipeline:
        pipeline.flushdb()
        for key, value in dump.items():
            pipeline.restore(key, 0, value)
        await pipeline.execute()
    await scene.recovers("after an old dump")


async def test_a_lost_key_is_not_made_again_by_the_next_event(scene: Scene) -> None:
    """Without a query that notices the loss, the worker notices it when it applies an event, and adds to nothing."""
    await scene.learn()
    for key in await scene.data_keys():
        await scene.redis.delete(key)
    book = Book(7)
    await scene.api.record(book.history(20))
    await scene.learn()
    await scene.recovers("after an event")


@pytest.mark.slow
async def test_a_worker_finds_a_lost_key_without_a_query_and_without_an_event(scene: Scene) -> None:
    await scene.learn()
    live = await live_generation(scene.api.stores.mongo, scene.redis, BALANCES, "main")
    sink = RedisSink(scene.redis)
    names = await sink.key_names(live)
    await scene.redis.delete(live.key(min(names)))
    assert await sink.find_loss(live) == min(names)
    assert await sink.read_checkpoint(live) is None
    await scene.recovers("after a search")
