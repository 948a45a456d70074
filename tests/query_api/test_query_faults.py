"""Faults between the query API and its stores, and what must happen then (parts B2 to B4 of the fault catalogue).

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

from dev.ports import free_port
from dev.servers import Mongo, Redis, Server, start_all, stop_all
from shared.identity.credential_cache import CACHE_SECONDS
from shared.settings import Settings
from tests.harness.databases import copy_postgres
from tests.harness.log import MASTER_KEY, Book
from tests.harness.projecting import eventually
from tests.harness.questions import Questions, projecting, query_api
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

BOUND_SECONDS = 2.0
ROOM_SECONDS = 4.0
"""Added to each time limit for a noisy machine: the tests assert that there is a limit, not how closely it is kept."""

IN_MONGO = ("/v1/users", "/v1/accounts", "/v1/transfers")
IN_REDIS = ("/v1/stats", "/v1/activity")
IN_THE_LOG = ("/v1/events",)
EVERYWHERE = (*IN_MONGO, *IN_REDIS, *IN_THE_LOG)


@pytest.fixture
async def own(migrated_postgres: Path, tmp_path: Path) -> AsyncIterator[Servers]:
    servers = Servers(copy_postgres(migrated_postgres, tmp_path), Mongo("mongo", tmp_path), Redis("redis", tmp_path))
    every = (servers.postgres, servers.mongo, servers.redis)
    await start_all(*every)
    yield servers
    await stop_all(*every)


@pytest.fixture
def own_settings(own: Servers) -> Settings:
    return Settings(
        database_url=own.postgres.url,
        mongo_url=own.mongo.url,
        redis_url=own.redis.url,
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
    )


@pytest.fixture
async def api(own_settings: Settings) -> AsyncIterator[Questions]:
    """With read models but without a running projector, so that only the query API has to handle the fault."""
    async with query_api(own_settings, is_patient=False) as questions:
        async with projecting(questions, own_settings):
            await questions.record(Book().history(50))
            for path in EVERYWHERE:
                await questions.get(path)
        yield questions


async def answers(api: Questions, paths: tuple[str, ...]) -> list[httpx2.Response]:
    """Asks all at once. All answers must come within the time limit."""
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lost"), [("postgres", IN_THE_LOG), ("mongo", IN_MONGO), ("redis", IN_REDIS)], ids=["postgres", "mongo", "redis"]
)
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_store_that_does_not_answer_is_a_503_only_for_what_it_holds(
    own: Servers, api: Questions, name: str, lost: tuple[str, ...], how: str
) -> None:
    server: Server = getattr(own, name)
    before = await recovered(api, EVERYWHERE)
    kept = tuple(path for path in EVERYWHERE if path not in lost)
    if name == "postgres":
        # It also knows the API keys, which are cached for some seconds: here from now on.
        await asyncio.sleep(CACHE_SECONDS)
        await answers(api, kept)
    if how == "frozen":
        server.freeze()
    else:
        await server.kill()
    try:
        # More requests than the driver has threads or connections. They are still waiting when the others are answered.
        waiting = asyncio.create_task(answers(api, lost * 30))
        await asyncio.sleep(0.1)
        assert [answer.json() for answer in await answers(api, kept)] == [before[path] for path in kept]
        assert all(map(refused_for_now, await waiting))
        assert (await api.ask("/livez")).status_code == 200
        await eventually(lambda: _only_one_is_unavailable(api, name))
    finally:
        if how == "frozen":
            server.thaw()
        else:
            await server.start()
    assert await recovered(api, EVERYWHERE) == before


async def _only_one_is_unavailable(api: Questions, name: str) -> bool:
    """True when `/readyz` shows it. The stores are asked every second."""
    ready = await api.ask("/readyz")
    stores = ready.json()["stores"]
    return (ready.status_code, stores[name], [*stores.values()].count("ok")) == (503, "unavailable", 2)


@pytest.mark.slow
async def test_progress_is_answered_while_a_store_is_down(own: Servers, api: Questions) -> None:
    own.mongo.freeze()
    try:
        [answer] = await answers(api, ("/v1/projections",))
    finally:
        own.mongo.thaw()
    told = {item["name"]: (item["state"], item["cause"]) for item in answer.json()["items"]}
    assert told["users"] == ("failed", "MongoDB does not answer")
    assert told["balances"] == ("live", None)


@pytest.mark.slow
async def test_an_emptied_redis_answers_rebuilding_and_never_a_zero_balance(own: Servers, api: Questions) -> None:
    await own.redis.kill()
    for file in own.redis.folder.rglob("*"):
        if file.is_file() and ("aof" in file.name or file.suffix == ".rdb"):
            file.unlink()
    await own.redis.start()
    for path in IN_REDIS:
        answer = await api.ask(path, prefer="wait=0")
        assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
    assert (await api.ask("/v1/users")).status_code == 200


@pytest.mark.slow
async def test_a_waiting_query_gives_up_when_its_store_goes_down(own: Servers, api: Questions) -> None:
    asking = asyncio.create_task(api.ask("/v1/users", prefer="wait=10, handling=strict", daybook_min_position="1000"))
    await asyncio.sleep(0.2)
    await own.mongo.kill()
    assert refused_for_now(await asking)


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────────


def start(environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a query API that cannot start."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "query_api.app:create_app", "--port", str(free_port())]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.slow
async def test_a_start_that_fails_says_why_in_one_line(own: Servers, own_settings: Settings) -> None:
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


@pytest.mark.slow
async def test_the_api_does_not_start_if_redis_may_evict_balances(own_settings: Settings) -> None:
    async with query_api(own_settings, is_patient=False) as questions:
        await questions.stores.redis.config_set("maxmemory-policy", "allkeys-lru")
    status, words = await asyncio.to_thread(start, environment_of(own_settings))
    assert status != 0
    assert "may evict balances" in words
    assert "Traceback" not in words


@pytest.mark.slow
async def test_a_page_is_read_again_when_mongodb_has_dropped_its_snapshot(own: Servers, api: Questions) -> None:
    """MongoDB drops a snapshot if it keeps no history and something is written while a page is read."""
    before = await recovered(api, IN_MONGO)
    async with AsyncMongoClient[dict[str, Any]](own.mongo.url) as mongo:
        await mongo.admin.command({"setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0})
        # Reading a page takes long enough only if the server pauses in the middle of it.
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


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["all", "owner_id", "posted"])
async def test_an_account_that_redis_lost_is_rebuilding_and_never_missing_or_an_error(settings: Settings, lost: str) -> None:
    """A key with a time to live, or a field that somebody deleted, is not an account that does not exist."""
    async with query_api(settings, is_patient=False) as api:
        async with projecting(api, settings):
            book = Book(3)
            await api.record(book.history(20))
            account_id = next(iter(book.accounts))
            await api.get(f"/v1/accounts/{account_id}")
            await api.get("/v1/accounts")
        [key] = [key async for key in api.stores.redis.scan_iter(f"*:account:{account_id}")]
        if lost == "all":
            await api.stores.redis.pexpire(key, 1)
            await asyncio.sleep(0.01)
        else:
            redis: Any = api.stores.redis
            await redis.hdel(key, lost)
        for path in (f"/v1/accounts/{account_id}", f"/v1/accounts/{account_id}/balance"):
            answer = await api.ask(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
