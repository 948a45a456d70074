"""Nobody asks more often than they may, whichever process they ask; and no limit takes the service down."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis as RedisClient

import command_api.app
import query_api.app
from dev.servers import Redis
from shared.addresses import Addresses, network_of, site_of
from shared.connections import open_redis
from shared.errors import RateLimited
from shared.rate_limits import ANSWER_SECONDS, RateLimits
from shared.settings import Settings
from tests.clients import client_of
from tests.keys import OPERATOR, add_key, new_token

LIMIT = 20
FIGURES = re.compile(r'"(caller|address)";r=(\d+);t=(\d+)')


@asynccontextmanager
async def limits_on(redis: "RedisClient", requests_max: int = LIMIT, window_seconds: int = 60) -> AsyncIterator[RateLimits]:
    limits = RateLimits(redis, "caller", requests_max, window_seconds)
    yield limits
    await limits.close()


async def ask(limits: RateLimits, times: int, key: str = "ada") -> Counter[bool]:
    """How many were let in (True) and refused, all asking at once."""

    async def once() -> bool:
        try:
            await limits.take(key)
        except RateLimited:
            return False
        return True

    return Counter(await asyncio.gather(*(once() for _ in range(times))))


async def test_all_processes_together_let_in_as_many_as_the_limit_says(settings: Settings) -> None:
    async with open_redis(settings) as redis, limits_on(redis) as one, limits_on(redis) as other:
        counts = await asyncio.gather(ask(one, 50), ask(other, 50))
        assert sum(counts, Counter()) == {True: LIMIT, False: 80}


async def test_callers_do_not_count_against_each_other(settings: Settings) -> None:
    async with open_redis(settings) as redis, limits_on(redis) as limits:
        await ask(limits, 50)
        assert await ask(limits, LIMIT, "grace") == {True: LIMIT}


async def test_a_window_slides(settings: Settings) -> None:
    """A naive count for each minute of the clock would let twice the limit in around its end."""
    async with open_redis(settings) as redis, limits_on(redis, window_seconds=1) as limits:
        let_in: list[float] = []
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            try:
                await limits.take("ada")
                let_in.append(time.monotonic())
            except RateLimited:
                await asyncio.sleep(0.005)
        most = max(sum(begin <= at < begin + 1 for at in let_in) for begin in let_in)
        # The window before is weighed as if its requests had been spread evenly, hence the tolerance.
        assert LIMIT <= most < 1.5 * LIMIT
        assert len(let_in) >= 2 * LIMIT


async def test_a_busy_caller_costs_far_fewer_round_trips_than_requests(settings: Settings) -> None:
    async with open_redis(settings) as redis, limits_on(redis, 1_000_000) as limits:
        await limits.take("ada")
        before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        for _ in range(100):
            assert await ask(limits, 50) == {True: 50}
        after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert after - before < 500


async def test_what_is_left_is_told_and_is_right(settings: Settings) -> None:
    async with open_redis(settings) as redis, limits_on(redis) as limits:
        told = []
        for _ in range(LIMIT):
            policy, left = await limits.take("ada")
            assert policy == (b"ratelimit-policy", b'"caller";q=20;w=60')
            figures = FIGURES.fullmatch(left[1].decode())
            assert figures
            assert 1 <= int(figures[3]) <= 60
            told.append(int(figures[2]))
        assert told == [*range(LIMIT - 1, -1, -1)]
        with pytest.raises(RateLimited) as refused:
            await limits.take("ada")
        assert 1 <= refused.value.extra["retry_after_seconds"] <= 60


async def test_a_refused_caller_costs_no_round_trips(settings: Settings) -> None:
    async with open_redis(settings) as redis, limits_on(redis) as limits:
        await ask(limits, 2 * LIMIT)
        before = (await redis.info("stats"))["total_commands_processed"]
        assert await ask(limits, 500) == {False: 500}
        assert (await redis.info("stats"))["total_commands_processed"] - before < 20


# ── without Redis ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["freeze", "kill"])
async def test_without_redis_each_process_counts_by_itself_and_nobody_waits(
    settings: Settings, server_folder: Path, fault: str
) -> None:
    server = Redis("redis-limits", server_folder)
    await server.start()
    try:
        async with open_redis(settings.model_copy(update={"redis_url": server.url})) as redis, limits_on(redis) as limits:
            await limits.take("ada")
            if fault == "freeze":
                server.freeze()
            else:
                await server.kill()
            assert await ask(limits, 50, "grace") == {True: LIMIT, False: 30}
            began = time.monotonic()
            assert await ask(limits, LIMIT, "mary") == {True: LIMIT}
            # A Redis that is known to be lost is asked no more: each of these would have waited for it.
            assert time.monotonic() - began < LIMIT * ANSWER_SECONDS / 2
            if fault == "freeze":
                server.thaw()
            else:
                await server.start()
            async with limits_on(redis) as other:
                await _counted_together(limits, other)
    finally:
        server.thaw()
        await server.stop()


async def _counted_together(one: RateLimits, other: RateLimits) -> None:
    """Returns when what one of them lets in counts for the other."""
    async with asyncio.timeout(20):
        for number in itertools.count():
            key = f"caller-{number}"
            if (await ask(one, LIMIT, key))[True] + (await ask(other, LIMIT, key))[True] == LIMIT:
                return
            await asyncio.sleep(0.2)


# ── in the APIs ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_both_apis_share_a_callers_limit_and_say_so(settings: Settings) -> None:
    few = settings.model_copy(update={"rate_limit_caller_per_minute": 5})
    async with AsyncExitStack() as exits:
        clients = [await exits.enter_async_context(client_of(api.create_app(few))) for api in (command_api.app, query_api.app)]
        answers = [await clients[n % 2].get("/v1/users" if n % 2 else "/v1/nothing") for n in range(4)]
        assert {answer.status_code for answer in answers} <= {404, 405, 503}
        answers = [await clients[0].post("/v1/users", json={}) for _ in range(6)]
        codes = [answer.status_code for answer in answers]
        assert codes == [422, 422, 422, 429, 429, 429]
        refused = answers[-1]
        assert refused.json()["code"] == "rate-limited"
        assert int(refused.headers["retry-after"]) == refused.json()["retry_after_seconds"] >= 1
        assert refused.headers["ratelimit-policy"] == '"caller";q=5;w=60'
        assert FIGURES.fullmatch(refused.headers["ratelimit"])
        assert (await clients[1].get("/v1/stats")).status_code == 429
        assert (await clients[0].get("/livez")).status_code == 200


async def test_a_new_key_of_the_same_caller_is_no_new_limit(settings: Settings) -> None:
    few = settings.model_copy(update={"rate_limit_caller_per_minute": 3})
    second = await add_key(settings.database_url)
    async with client_of(command_api.app.create_app(few)) as client:
        tokens = [OPERATOR, second] * 3
        codes = [
            (await client.post("/v1/users", json={}, headers={"authorization": f"Bearer {token}"})).status_code
            for token in tokens
        ]
        assert codes == [422, 422, 422, 429, 429, 429]


async def test_who_tries_keys_is_stopped_and_who_has_one_is_not(settings: Settings) -> None:
    few = settings.model_copy(update={"rate_limit_address_per_minute": 10})
    async with client_of(query_api.app.create_app(few)) as client:
        assert (await client.get("/v1/projections")).status_code == 200
        codes: Counter[int] = Counter()
        for _ in range(30):
            codes[(await client.get("/v1/stats", headers={"authorization": f"Bearer {new_token()}"})).status_code] += 1
        assert codes == {401: 10, 429: 20}
        assert (await client.get("/v1/projections")).status_code == 200
        assert "ratelimit" in (await client.get("/v1/projections")).headers


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "expected"),
    [
        ("", "192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.0/8", "192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.0/8", "10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.66, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.66", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        ("10.0.0.0/8", "10.1.2.3", ["rubbish"], "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", ["198.51.100.7, rubbish"], "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", [], "10.1.2.3"),
        ("10.0.0.0/8, fd00::/8", "fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
    ],
)
def test_only_trusted_proxies_are_believed(proxies: str, peer: str, forwarded: list[str], expected: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert Addresses(proxies).of({"client": (peer, 1), "headers": headers}) == expected


def test_a_subscriber_of_ipv6_is_one_site_and_events_keep_less() -> None:
    assert site_of("2001:db8:1:2:3::4") == site_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert site_of("192.0.2.7") == "192.0.2.7"
    assert network_of("192.0.2.7") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2:3::4") == "2001:db8:1::/48"
    assert network_of("unknown") == "unknown"
