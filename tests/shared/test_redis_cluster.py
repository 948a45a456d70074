"""One client for the servers of a Redis Cluster: it finds the server of each key, and one that is away holds up nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from arq.worker import Worker, func
from redis.crc import key_slot
from redis.exceptions import ClusterCrossSlotError, NoPermissionError, ResponseError
from sqlalchemy.ext.asyncio import create_async_engine

from command_api.credentials.login_throttle import LOGIN_ATTEMPTS_FREE, LoginThrottle
from dev.configured_servers import require_answers
from projector.projections.registry import PROJECTIONS_BY_NAME
from projector.sinks.protocols import Step
from projector.sinks.redis import RedisSink
from projector.worker import ARQ_SLOT, QUEUE, make_pool
from shared.errors import RateLimited, UnsafeStore
from shared.identity.credential_origin import Origin
from shared.identity.passwords import PasswordVersion
from shared.identity.rate_limits import RateLimits
from shared.identity.sessions import SESSIONS_MAX, Sessions
from shared.read_models.generations import Generation
from shared.read_models.stored_state import Pointer
from shared.read_models.worker_reports import HEALTH_KEY, publish_reports, read_unhealthy_read_models
from shared.settings import Settings
from shared.stores.redis import open_redis, require_lasting_redis, servers_of
from shared.stores.redis_cluster import ClusterRedis, read_cluster_url
from shared.stores.server_checks import check_redis
from shared.stores.store_errors import REDIS_ERRORS
from tests.harness.clusters import RedisCluster, RedisMember, running_redis_cluster
from tests.harness.log import MASTER_KEY, Book, recorded

pytestmark = pytest.mark.services

ANSWER_SECONDS: Final = 20.0
"""Longer than any of these answers takes on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(server_folder: Path) -> AsyncIterator[RedisCluster]:
    folder = server_folder / "mortal-redis-cluster"
    folder.mkdir()
    async with running_redis_cluster(folder) as cluster:
        yield cluster


def settings_of(cluster: RedisCluster, redis_timeout_ms: int = 10_000) -> Settings:
    return Settings(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        mongo_url="mongodb://127.0.0.1:1",
        redis_url=cluster.url,
        redis_timeout_ms=redis_timeout_ms,
        secret="for tests only and long enough to be taken",
        master_keys=MASTER_KEY,
    )


@pytest_asyncio.fixture
async def redis(running: RedisCluster) -> AsyncIterator[Any]:
    """A client that has learned nothing yet, of a cluster without keys."""
    for master in running.masters:
        async with master.client() as client:
            await client.flushall()
            await client.script_flush()
    async with open_redis(settings_of(running)) as client:
        yield client


def keys_of(cluster: RedisCluster) -> list[str]:
    """Returns a key on each server."""
    return [f"{{{cluster.ledger_of(master)}}}:key" for master in cluster.masters]


async def test_each_command_goes_to_the_server_of_its_key(redis: Any, running: RedisCluster) -> None:
    keys = keys_of(running)
    for number, key in enumerate(keys):
        await redis.set(key, number)
        async with running.masters[number].client() as server:
            assert await server.keys("*") == [key]
    assert [await redis.get(key) for key in keys] == ["0", "1", "2"]
    assert len(await servers_of(redis)) == len(running.masters)
    assert await redis.exists(*keys, "none") == len(keys)
    assert sorted([key async for key in redis.scan_iter()]) == sorted(keys)
    assert [key async for key in redis.scan_iter(keys[1].partition(":")[0] + "*")] == [keys[1]]
    assert await redis.delete(*keys, "none") == len(keys)
    await require_lasting_redis(redis)


async def test_a_pipeline_is_divided_by_server_and_answers_in_order(redis: Any, running: RedisCluster) -> None:
    keys = keys_of(running)
    script = redis.register_script("return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])}")
    async with redis.pipeline(transaction=False) as pipe:
        for number, key in enumerate(keys):
            pipe.set(key, number)
            await script(keys=[key], args=[10], client=pipe)
            pipe.hget(key, "field")
            pipe.time()
        answers = await pipe.execute(raise_on_error=False)
    for number, key in enumerate(keys):
        was_set, ran, failed, now = answers[4 * number : 4 * number + 4]
        assert (was_set, ran, len(now)) == (True, [key, number + 10], 2)
        assert isinstance(failed, ResponseError)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await redis.pipeline(transaction=False).get(keys[0]).hget(keys[1], "field").execute()
    assert await script(keys=[keys[0]], args=[1]) == [keys[0], 11]


async def test_a_transaction_is_in_one_slot(redis: Any, running: RedisCluster) -> None:
    first, second, _ = keys_of(running)
    assert await redis.pipeline(transaction=True).set(first, 1).incr(first).execute() == [True, 2]
    with pytest.raises(ClusterCrossSlotError):
        await redis.pipeline(transaction=True).incr(first).incr(second).execute()
    assert [await redis.get(key) for key in (first, second)] == ["2", None]


async def test_a_message_reaches_the_subscribers_at_every_server(running: RedisCluster) -> None:
    async with open_redis(settings_of(running)) as redis:
        subscribers: list[Any] = [redis.pubsub(ignore_subscribe_messages=True) for _ in range(12)]
        ports = set()
        for each in subscribers:
            await each.subscribe("news")
            ports.add(each.connection.port)
        assert len(ports) > 1, "twelve subscribers are at several servers"
        for each in subscribers:
            assert await each.get_message(timeout=ANSWER_SECONDS) is None  # the answer to the subscription
        await redis.publish("news", "hello")
        heard = [await each.get_message(timeout=ANSWER_SECONDS) for each in subscribers]
        assert [message["data"] for message in heard] == ["hello"] * len(subscribers)
        for each in subscribers:
            await each.aclose()


async def test_keys_that_move_to_another_server_are_found_there(redis: Any, running: RedisCluster) -> None:
    [key, *_], [old, new, _] = keys_of(running), running.masters
    other = key.replace(":key", ":other")
    await redis.set(key, "kept")
    moving = SlotMove(key_slot(key.encode()), old, new, running.password)
    await moving.begin()
    # The old server still has the slot, and says of what it does not have that the new one may have it.
    assert await redis.get(key) == "kept"
    await redis.set(other, "new")
    async with old.client() as client:
        assert await client.keys("*") == [key]
    await moving.carry(key)
    assert await redis.get(key) == "kept"
    assert redis.known_place_of(key) == ("127.0.0.1", old.port)
    await moving.end()
    assert (await redis.get(key), await redis.get(other)) == ("kept", "new")
    assert redis.known_place_of(key) == ("127.0.0.1", new.port)
    back = SlotMove(key_slot(key.encode()), new, old, running.password)
    await back.begin()
    await back.carry(key, other)
    await back.end()
    assert await redis.delete(key, other) == 2
    await running.wait_until_whole()


class SlotMove:
    """A slot that is moved from one server to another, in steps."""

    def __init__(self, slot: int, giver: RedisMember, taker: RedisMember, password: str) -> None:
        self._slot = slot
        self._giver = giver
        self._taker = taker
        self._password = password

    async def begin(self) -> None:
        await self._assign(self._taker, "IMPORTING", await self._id_of(self._giver))
        await self._assign(self._giver, "MIGRATING", await self._id_of(self._taker))

    async def carry(self, *keys: str) -> None:
        async with self._giver.client() as client:
            to = ("127.0.0.1", self._taker.port, "", 0, 5_000, "AUTH", self._password)
            await client.execute_command("MIGRATE", *to, "KEYS", *keys)

    async def end(self) -> None:
        for member in (self._taker, self._giver):
            await self._assign(member, "NODE", await self._id_of(self._taker))

    async def _assign(self, member: RedisMember, *words: Any) -> None:
        async with member.client() as client:
            await client.execute_command("CLUSTER", "SETSLOT", self._slot, *words)

    async def _id_of(self, member: RedisMember) -> Any:
        async with member.client() as client:
            return await client.execute_command("CLUSTER", "MYID")


async def test_sessions_of_a_user_are_found_and_ended_on_whatever_servers_they_are(redis: Any, running: RedisCluster) -> None:
    sessions = Sessions(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1"), redis, settings_of(running))
    password = PasswordVersion("version", Origin("key", ()), float("inf"))
    begun = [(await sessions.begin("main", "ada", password, "network")).session_id for _ in range(SESSIONS_MAX + 2)]
    slots = {key_slot(key.encode()) for key in await keys_everywhere(redis, "daybook:session:*")}
    assert len(slots) == len(begun), "a session and its last use are in one slot"
    assert [session.id for session in await sessions.all_of("main", "ada")] == begun[::-1]
    assert await sessions.beyond_limit("main", "ada") == begun[:2]
    await sessions.end("main", "ada", begun[0])
    assert [session.id for session in await sessions.all_of("main", "ada")] == begun[:0:-1]
    await sessions.end_all("main", "ada")
    assert await keys_everywhere(redis, "daybook:session*") == []


async def keys_everywhere(redis: ClusterRedis, pattern: str) -> list[str]:
    return [key async for key in redis.scan_iter(pattern)]


async def test_attempts_limits_and_reports_are_counted_in_a_cluster_too(redis: Any) -> None:
    throttle = LoginThrottle(redis)
    for number in range(20):  # from sites on all servers
        for _ in range(LOGIN_ATTEMPTS_FREE + 1):
            await throttle.count_attempt(f"site {number}", "ada")
        with pytest.raises(RateLimited):
            await throttle.count_attempt(f"site {number}", "ada")
        await throttle.record_success(f"site {number}", "ada")
        await throttle.count_attempt(f"site {number}", "ada")
    limits = RateLimits(redis, "caller", 20, 60, ANSWER_SECONDS)
    for number in range(20):
        admitted = await asyncio.gather(*(limits.take(f"caller {number}") for _ in range(30)), return_exceptions=True)
        assert sum(not isinstance(each, RateLimited) for each in admitted) == 20
        assert not limits.counts_locally
    await limits.close()
    await publish_reports(redis, "one", [], ["main/users"], {})
    await publish_reports(redis, "two", [], ["main/accounts"], {})
    report = await read_unhealthy_read_models(redis)
    assert report is not None
    assert report.degraded == ["main/accounts", "main/users"]


async def test_the_queue_of_arq_is_on_one_server(redis: Any, running: RedisCluster) -> None:
    name, ran = f"{ARQ_SLOT}:job", []

    async def job(ctx: dict[str, Any], *_args: Any, **_kwargs: Any) -> None:
        ran.append(ctx["job_id"])
        queued.update(await keys_everywhere(redis, "*arq:*"))

    queued = set[str]()
    pool = make_pool(settings_of(running))
    worker = Worker(
        [func(job, name=name)],
        queue_name=QUEUE,
        health_check_key=HEALTH_KEY,
        redis_pool=pool,
        burst=True,
        handle_signals=False,
        job_deserializer=pool.job_deserializer,
    )
    await pool.enqueue_job(name, _job_id=f"{name}:1")
    await worker.async_run()
    await pool.aclose(close_connection_pool=True)
    assert ran == [f"{name}:1"]
    assert {HEALTH_KEY, QUEUE, f"arq:job:{name}:1", f"arq:in-progress:{name}:1", f"arq:retry:{name}:1"} <= queued
    assert {key_slot(key.encode()) for key in queued} == {key_slot(b"arq:abort")}


async def test_a_server_that_is_killed_holds_up_only_its_own_keys(redis: Any, running: RedisCluster) -> None:
    keys = keys_of(running)
    for key in keys:
        await redis.set(key, "kept")
    killed = running.masters[1]
    await killed.kill()
    try:
        for _ in range(30):
            with pytest.raises(REDIS_ERRORS):
                await redis.get(keys[1])
            assert [await redis.get(keys[0]), await redis.get(keys[2])] == ["kept", "kept"]
            await redis.publish("news", "hello")
        await require_lasting_redis(redis)
        answers = await redis.pipeline(transaction=False).get(keys[0]).get(keys[1]).get(keys[2]).execute(raise_on_error=False)
        assert (answers[0], isinstance(answers[1], REDIS_ERRORS), answers[2]) == ("kept", True, "kept")
        script = redis.register_script("return redis.call('GET', KEYS[1])")
        assert await script(keys=[keys[2]]) == "kept", "a script is loaded although a server is away"
    finally:
        await killed.start()
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            try:
                assert await redis.get(keys[1]) == "kept"
            except REDIS_ERRORS:
                await asyncio.sleep(0.05)
            else:
                break
    await running.wait_until_whole()


async def test_a_server_that_is_frozen_holds_up_only_its_own_keys(running: RedisCluster) -> None:
    async with open_redis(settings_of(running, redis_timeout_ms=300)) as opened:
        redis: Any = opened
        keys = keys_of(running)
        for key in keys:
            await redis.set(key, "kept")
        frozen = running.masters[2]
        frozen.freeze()
        try:
            waiting = asyncio.create_task(redis.get(keys[2]))
            assert await redis.get(keys[0]) == "kept"
            assert not waiting.done()
            with pytest.raises(REDIS_ERRORS):
                await waiting
        finally:
            frozen.thaw()
        await running.wait_until_whole()
        assert await redis.get(keys[2]) == "kept"


async def test_a_batch_for_one_server_waits_for_no_other(redis: Any, running: RedisCluster) -> None:
    sink, projection, history = RedisSink(redis), PROJECTIONS_BY_NAME["balances"], recorded(Book(seed=3).history(5))
    generations = [Generation(projection.model, running.ledger_of(master), 1) for master in running.masters]
    for generation in generations:
        await sink.prepare(generation)
        assert await sink.move_pointer(projection.model, generation.ledger_id, Pointer(), Pointer(building=1))

    async def apply(generation: Generation) -> bool:
        changes = projection.new_changes()
        projection.fold(changes, history)
        return await sink.apply(generation, Step(0, len(history), history[-1].hash.hex()), changes)

    frozen = running.masters[0]
    frozen.freeze()
    try:
        waiting = asyncio.create_task(apply(generations[0]))
        await asyncio.sleep(0.1)  # so that its round trip has begun
        assert await apply(generations[1])
        assert not waiting.done()
        live = await sink.read_live([projection.model], [generation.ledger_id for generation in generations[1:]])
        assert live == {}, "none of them is live yet, and their servers answer"
    finally:
        frozen.thaw()
    assert await waiting
    await running.wait_until_whole()


async def test_a_read_model_on_a_server_that_is_away_is_not_taken_for_lost(redis: Any, running: RedisCluster) -> None:
    sink, model = RedisSink(redis), PROJECTIONS_BY_NAME["balances"].model
    ledger_ids = [running.ledger_of(master) for master in running.masters]
    for ledger_id in ledger_ids[1:]:
        generation = Generation(model, ledger_id, 1)
        await sink.prepare(generation)
        await sink.move_pointer(model, ledger_id, Pointer(), Pointer(building=1))
        assert await sink.switch(generation, Pointer(building=1))
    assert set(await sink.read_live([model], ledger_ids)) == {f"{ledger_id}/balances" for ledger_id in ledger_ids[1:]}
    away = running.masters[2]
    await away.kill()
    try:
        found = await sink.read_live([model], ledger_ids)
    finally:
        await away.start()
    await running.wait_until_whole()
    assert {name: live and live.number for name, live in found.items()} == {
        f"{ledger_ids[1]}/balances": 1,
        f"{ledger_ids[2]}/balances": None,
    }


async def test_the_doctor_examines_each_server_and_finds_a_url_that_names_no_cluster(running: RedisCluster) -> None:
    settings = settings_of(running)
    await require_answers({"DAYBOOK_REDIS_URL": running.url})
    assert {finding.name async for finding in check_redis(settings)} == {"redis-no-replica"}
    evicting = running.masters[1]
    async with evicting.client() as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert {finding.name async for finding in check_redis(settings)} == {"redis-no-replica", "redis-may-evict"}
        async with open_redis(settings) as redis:
            with pytest.raises(UnsafeStore):
                await require_lasting_redis(redis)
    finally:
        async with evicting.client() as client:
            await client.config_set("maxmemory-policy", "noeviction")
    single = settings.model_copy(update={"redis_url": running.masters[0].url})
    assert {finding.name async for finding in check_redis(single)} == {"redis-cluster-unnamed"}


async def test_the_rights_in_the_document_are_enough_for_a_login_on_a_cluster(redis: Any, running: RedisCluster) -> None:
    document = (Path(__file__).parents[2] / "docs/security.md").read_text()
    [rules] = [line.split()[3:] for line in document.splitlines() if line.startswith("ACL SETUSER daybook_query")]
    [more] = re.findall(r"`(\+cluster[^`]*)`", document)
    for master in running.masters:
        async with master.client() as client:
            await client.execute_command("ACL", "SETUSER", "reader", *rules, *more.split())
    url = running.url.replace(f":{running.password}@", "reader:password@")
    settings = settings_of(running).model_copy(update={"redis_url": url})
    async with open_redis(settings) as opened:
        reader: Any = opened
        for number in range(20):  # keys on all servers
            assert await reader.set(f"daybook:{number}", "new")
            assert await reader.register_script("return redis.call('GET', KEYS[1])")(keys=[f"daybook:{number}"]) == "new"
            with pytest.raises(NoPermissionError):
                await reader.lpush(f"daybook:{number}", "new")
    assert {finding.name async for finding in check_redis(settings)} == {"redis-no-replica"}
    for master in running.masters:
        async with master.client() as client:
            await client.execute_command("ACL", "DELUSER", "reader")
    assert await redis.ping()


async def test_the_servers_that_the_url_names_need_not_all_answer(running: RedisCluster) -> None:
    url = running.url.replace("@", "@127.0.0.1:1,")
    async with open_redis(settings_of(running).model_copy(update={"redis_url": url})) as redis:
        assert isinstance(redis, ClusterRedis)
        assert await redis.ping()
        for key in keys_of(running):
            assert await redis.set(key, "new")


@pytest.mark.parametrize(
    ("url", "place", "server"),
    [
        ("redis+cluster://a", ("a", 6379), "redis://a:6379"),
        ("redis+cluster://u:p%40@a:1,b:2/0", ("b", 2), "redis://u:p%40@b:2"),
        ("rediss+cluster://:p@[::1]:1/?ssl_ca_certs=f", ("::1", 1), "rediss://:p@[::1]:1?ssl_ca_certs=f"),
    ],
)
def test_the_url_of_a_cluster_names_servers(url: str, place: tuple[str, int], server: str) -> None:
    places, url_of = read_cluster_url(url)
    assert place == places[-1]
    assert url_of(place) == server


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://a,", "redis+cluster://a/1", "redis+cluster://a:b"])
def test_a_url_without_servers_or_with_a_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_cluster_url(url)
