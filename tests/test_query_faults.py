"""What goes wrong between the query API and its stores, and what must happen then (parts B2 to B4 of the fault catalogue).

These tests kill, freeze and empty, so they have servers of their own.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pymongo import AsyncMongoClient

from dev.processes import migrate
from dev.servers import Mongo, Postgres, Redis, Server, free_port, start_all, stop_all
from shared.settings import Settings
from tests.keys import OPERATOR, add_key
from tests.log import MASTER_KEY, Book
from tests.questions import Questions, projecting, query_api
from tests.running import Servers, environment_of

pytestmark = pytest.mark.services

BOUND_SECONDS = 2.0
ROOM_SECONDS = 4.0
"""For a noisy machine, on top of a bound: what is asserted is that there is one, not how close it is."""

IN_MONGO = ("/v1/users", "/v1/accounts", "/v1/transfers")
IN_REDIS = ("/v1/stats", "/v1/activity")
IN_THE_LOG = ("/v1/events",)
EVERYWHERE = (*IN_MONGO, *IN_REDIS, *IN_THE_LOG)


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Servers]:
    servers = Servers(Postgres("postgres", tmp_path), Mongo("mongo", tmp_path), Redis("redis", tmp_path))
    every = (servers.postgres, servers.mongo, servers.redis)
    await start_all(*every)
    await migrate(tmp_path, {"DAYBOOK_DATABASE_URL": servers.postgres.url})
    await add_key(servers.postgres.url, token=OPERATOR)
    yield servers
    await stop_all(*every)


@pytest.fixture
def own_settings(own: Servers) -> Settings:
    return Settings(
        database_url=own.postgres.url,
        mongo_url=own.mongo.url,
        redis_url=own.redis.url,
        secret="a secret of the tests, and of nothing else",
        master_keys=MASTER_KEY,
    )


@pytest.fixture
async def api(own_settings: Settings) -> AsyncIterator[Questions]:
    """With read models, and a projector that has ended: what fails is the query API's alone to answer for."""
    async with query_api(own_settings) as questions:
        async with projecting(questions, own_settings):
            await questions.record(Book().history(50))
            for path in EVERYWHERE:
                await questions.get(path)
        yield questions


async def answers(api: Questions, paths: tuple[str, ...]) -> list[httpx2.Response]:
    """All at once, within the bound."""
    began = time.monotonic()
    found = await asyncio.gather(*(api.ask(path) for path in paths))
    assert time.monotonic() - began < BOUND_SECONDS + ROOM_SECONDS
    return list(found)


def refused_for_now(answer: httpx2.Response) -> bool:
    return answer.status_code == 503 and answer.json()["code"] == "store-unavailable" and int(answer.headers["retry-after"]) > 0


async def recovered(api: Questions, paths: tuple[str, ...]) -> dict[str, Any]:
    """The answers, when all of them have come."""
    for _ in range(100):
        found = await asyncio.gather(*(api.ask(path) for path in paths))
        if all(answer.status_code == 200 for answer in found):
            return {path: answer.json() for path, answer in zip(paths, found, strict=True)}
        await asyncio.sleep(0.1)
    raise AssertionError([answer.text for answer in found])


@pytest.mark.parametrize(
    ("name", "lost"), [("postgres", IN_THE_LOG), ("mongo", IN_MONGO), ("redis", IN_REDIS)], ids=["postgres", "mongo", "redis"]
)
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_store_that_does_not_answer_is_a_503_for_what_it_holds_and_nothing_else(
    own: Servers, api: Questions, name: str, lost: tuple[str, ...], how: str
) -> None:
    server: Server = getattr(own, name)
    before = await recovered(api, EVERYWHERE)
    kept = tuple(path for path in EVERYWHERE if path not in lost)
    if how == "frozen":
        server.freeze()
    else:
        await server.kill()
    try:
        # More than the driver has threads or connections.
        assert all(map(refused_for_now, await answers(api, lost * 30)))
        assert [answer.json() for answer in await answers(api, kept)] == [before[path] for path in kept]
        assert (await api.ask("/livez")).status_code == 200
        ready = await api.ask("/readyz")
        assert (ready.status_code, ready.json()["stores"][name]) == (503, "unavailable")
        assert list(ready.json()["stores"].values()).count("ok") == 2
    finally:
        if how == "frozen":
            server.thaw()
        else:
            await server.start()
    assert await recovered(api, EVERYWHERE) == before


async def test_progress_is_told_when_a_store_is_gone(own: Servers, api: Questions) -> None:
    own.mongo.freeze()
    try:
        [answer] = await answers(api, ("/v1/projections",))
    finally:
        own.mongo.thaw()
    told = {item["name"]: (item["state"], item["cause"]) for item in answer.json()["items"]}
    assert told["users"] == ("failed", "MongoDB does not answer")
    assert told["balances"] == ("live", None)


async def test_a_redis_that_comes_back_empty_is_rebuilding_and_never_a_zero(own: Servers, api: Questions) -> None:
    await own.redis.kill()
    for file in own.redis.folder.rglob("*"):
        if file.is_file() and ("aof" in file.name or file.suffix == ".rdb"):
            file.unlink()
    await own.redis.start()
    for path in IN_REDIS:
        answer = await api.ask(path, prefer="wait=0")
        assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
    assert (await api.ask("/v1/users")).status_code == 200


async def test_a_question_that_waits_gives_up_when_its_store_goes(own: Servers, api: Questions) -> None:
    asking = asyncio.create_task(api.ask("/v1/users", prefer="wait=10, handling=strict", daybook_min_position="1000"))
    await asyncio.sleep(0.2)
    await own.mongo.kill()
    assert refused_for_now(await asking)


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────────


def start(environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and words of a query API that cannot start."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "query_api.app:create_app", "--port", str(free_port())]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=20, check=False)
    return ended.returncode, ended.stdout + ended.stderr


async def test_a_start_that_cannot_be_says_why_in_one_line(own: Servers, own_settings: Settings) -> None:
    working = environment_of(own_settings)
    password = "s3cr3t-in-a-url"
    cases = {
        "settings: DAYBOOK_DATABASE_URL: field required": {"DAYBOOK_MONGO_URL": own.mongo.url},
        "PostgreSQL does not answer": working | {"DAYBOOK_DATABASE_URL": f"postgresql://u:{password}@127.0.0.1:1/x"},
        "schema is missing": working | {"DAYBOOK_DATABASE_URL": own.postgres.superuser_url},
        "DAYBOOK_DATABASE_URL: not a URL": working | {"DAYBOOK_DATABASE_URL": password},
        "DAYBOOK_REDIS_URL: not a URL": working | {"DAYBOOK_REDIS_URL": f"redis//:{password}@127.0.0.1"},
        "Redis does not answer": working | {"DAYBOOK_REDIS_URL": f"redis://u:{password}@127.0.0.1:1/0"},
    }
    for reason, environment in cases.items():
        status, words = await asyncio.to_thread(start, environment)
        assert status not in {0, None}
        [line] = [line for line in words.splitlines() if "daybook:" in line]
        assert reason in line
        assert "Traceback" not in words
        assert password not in words


async def test_a_start_is_refused_where_redis_may_evict_balances(own_settings: Settings) -> None:
    async with query_api(own_settings) as questions:
        await questions.stores.redis.config_set("maxmemory-policy", "allkeys-lru")
    status, words = await asyncio.to_thread(start, environment_of(own_settings))
    assert status != 0
    assert "may evict balances" in words
    assert "Traceback" not in words


async def test_a_page_is_read_again_when_mongodb_has_forgotten_its_moment(own: Servers, api: Questions) -> None:
    """As happens where the server keeps no past, when something is written while a page is being read."""
    before = await recovered(api, IN_MONGO)
    async with AsyncMongoClient[dict[str, Any]](own.mongo.url) as mongo:
        await mongo.admin.command({"setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0})
        # A page can take long enough only where the server pauses in the middle of it.
        await mongo.admin.command({"setParameter": 1, "internalQueryExecYieldIterations": 1})

        async def write() -> None:
            while True:
                await mongo.admin.command({"appendOplogNote": 1, "data": {}})
                await asyncio.sleep(0.02)

        writing = asyncio.create_task(write())
        try:
            for _ in range(60):
                for answer, path in zip(await answers(api, IN_MONGO * 10), IN_MONGO * 10, strict=True):
                    assert (answer.status_code, answer.json()) == (200, before[path])
        finally:
            writing.cancel()
