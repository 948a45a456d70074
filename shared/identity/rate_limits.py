"""Rate limits: sliding windows in Redis that all processes share.

Requests rarely wait for Redis. A process leases permits for a caller from Redis and then uses one for each request. A lease is at
most a few per cent of the limit, and no larger than the caller recently used in a fraction of a second. Before the permits run
out, the process leases more in the background. So a request of a busy caller costs a dictionary look-up and a subtraction. All
processes together exceed the limit by no more than the permits that they have leased.

If Redis does not answer, one request is delayed by `ANSWER_SECONDS`. From then on, each process counts by itself until Redis
answers again, because the failure of a rate limit must not stop the service. All servers of a cluster must answer for that.
"""

import asyncio
import math
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Final, Literal

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from shared.errors import RateLimited
from shared.stores.redis import servers_of
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

WINDOW_SECONDS: Final = 60
ANSWER_SECONDS: Final = 0.05
LOOK_SECONDS: Final = 1.0
"""How often to try again to reach Redis, and how long at most to deny requests without asking Redis again, in seconds."""
BUSY_SECONDS: Final = 0.1
"""If the permits of a lease last less long than this, the next lease is larger."""
LEASE_SHARE: Final = 50
BUDGETS_MAX: Final = 20_000
REQUESTS_PER_WINDOW_MIN: Final = 2
"""A caller can send at least this many requests in a window, however many commands they have."""
KEY_PREFIX: Final = "daybook:limits"

RateLimitPolicy = Literal["caller", "address"]
RateLimitHeaders = tuple[tuple[bytes, bytes], ...]


class _Budget:
    """The requests that a caller has left, as far as this process knows. Times are in seconds of the monotonic clock."""

    __slots__ = (
        "denied_until",
        "key",
        "leased_at",
        "leasing",
        "permits",
        "permits_until",
        "remaining",
        "resets_at",
        "size",
        "waiting",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.permits = 0
        self.permits_until = 0.0
        self.size = 1
        self.leased_at = 0.0
        self.remaining = 0
        self.resets_at = 0.0
        self.denied_until = 0.0
        self.waiting = 0
        self.leasing: asyncio.Task[None] | None = None


class _WindowsInRedis(RedisStorage):
    """The windows, in the Redis or the cluster that the client is connected to."""

    def __init__(self, redis: "Redis") -> None:
        self._client = redis
        super().__init__("redis://", implementation="redispy", key_prefix=KEY_PREFIX)

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.connection_getter = lambda _: self._client


class RateLimits:
    """The limits of all callers, or of all addresses, under one policy."""

    def __init__(
        self,
        redis: "Redis",
        policy: RateLimitPolicy,
        requests_max: int,
        window_seconds: int = WINDOW_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Makes limits of `requests_max` requests in each window. Redis does not answer if it takes `answer_seconds`."""
        self._redis = redis
        self._answer_seconds = answer_seconds
        self._policy = policy
        self._item: RateLimitItem = RateLimitItemPerSecond(requests_max, window_seconds, namespace=policy)
        self._lease_max = max(1, requests_max // LEASE_SHARE)
        self._request_cost_max = max(1, requests_max // REQUESTS_PER_WINDOW_MIN)
        self._window_seconds = window_seconds
        self._policy_header = (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (policy.encode(), requests_max, window_seconds))
        self._name = policy.encode()
        self._shared = SlidingWindowCounterRateLimiter(_WindowsInRedis(redis))
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def take(self, key: str) -> RateLimitHeaders:
        """Counts a request of `key`. Returns the headers that tell the caller how many requests are left.

        Raises:
            RateLimited: no requests are left.
        """
        budget = self._budgets.get(key) or self._open(key)
        now = time.monotonic()
        if budget.permits > 0 and now < budget.permits_until:
            budget.permits -= 1
            if budget.permits < budget.size // 2 and budget.leasing is None:
                budget.leasing = asyncio.create_task(self._lease(budget))
        else:
            await self._take_slowly(budget)
        return self.headers(budget, now)

    async def take_for(self, key: str, commands: int) -> RateLimitHeaders:
        """Counts the commands of a request of `key` that `take` has admitted: all of them, or none.

        One permit was used by `take`, so this uses one less. The whole request costs at most half of the limit, so a request with
        more commands than that is still possible.

        Raises:
            RateLimited: fewer permits are left than the commands need.
        """
        cost = min(commands, self._request_cost_max) - 1
        budget = self._budgets.get(key) or self._open(key)
        leased = min(cost, budget.permits) if time.monotonic() < budget.permits_until else 0
        budget.permits -= leased
        if cost > leased and not await self._granted(budget, cost - leased, in_part=False):
            budget.permits += leased
            raise self._denial_of(budget)
        return self.headers(budget, time.monotonic())

    def give_back(self, key: str) -> None:
        """Takes back that a request of `key` was counted. The next request can use its permit, as long as the permit lasts."""
        budget = self._budgets.get(key)
        if budget is not None:
            budget.permits += 1

    def _denial_of(self, budget: _Budget) -> RateLimited:
        now = time.monotonic()
        seconds = max(1, math.ceil(max(budget.resets_at, budget.denied_until) - now))
        return RateLimited(self.headers(budget, now), seconds)

    def headers(self, budget: _Budget, now: float) -> RateLimitHeaders:
        seconds = min(max(1, math.ceil(budget.resets_at - now)), self._window_seconds)
        left = b'"%b";r=%d;t=%d' % (self._name, budget.remaining + budget.permits, seconds)
        return self._policy_header, (b"ratelimit", left)

    @property
    def counts_locally(self) -> bool:
        """True while Redis does not answer and this process counts requests by itself."""
        return self._looking is not None

    async def close(self) -> None:
        self._closed = True
        tasks = [budget.leasing for budget in self._budgets.values() if budget.leasing]
        if self._looking:
            await end_tasks(self._looking)
        if tasks:
            await asyncio.wait(tasks, timeout=LOOK_SECONDS)

    def _open(self, key: str) -> _Budget:
        """Adds the budget of a caller. If this process holds too many budgets, it drops the oldest one.

        The permits that are left in a dropped budget are lost. The caller may then send fewer requests, never more.
        """
        budget = self._budgets[key] = _Budget(key)
        if len(self._budgets) > BUDGETS_MAX:
            self._budgets.popitem(last=False)
        return budget

    async def _take_slowly(self, budget: _Budget) -> None:
        """Uses a permit after waiting for a lease. All waiting requests of a key share the lease.

        Raises:
            RateLimited: no requests are left.
        """
        budget.waiting += 1
        try:
            while True:
                if time.monotonic() < budget.denied_until:
                    raise self._denial_of(budget)
                if budget.leasing is None:
                    budget.leasing = asyncio.create_task(self._lease(budget))
                await asyncio.shield(budget.leasing)
                if budget.permits > 0:
                    budget.permits -= 1
                    return
        finally:
            budget.waiting -= 1

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _lease(self, budget: _Budget) -> None:
        now = time.monotonic()
        lasted = now - budget.leased_at
        if lasted < BUSY_SECONDS:
            budget.size = min(self._lease_max, budget.size * 2)
        elif lasted > 4 * BUSY_SECONDS:
            budget.size = max(1, budget.size // 2)
        wanted = min(self._lease_max, max(budget.size, budget.waiting))
        try:
            granted = await self._granted(budget, wanted)
        finally:
            budget.leasing = None
        budget.leased_at = now = time.monotonic()
        if granted:
            budget.permits = granted + (budget.permits if now < budget.permits_until else 0)
            # A permit counts in the window in which it was leased, so it must not be used much later.
            budget.permits_until = now + self._window_seconds / 10
        elif not budget.permits:
            budget.denied_until = min(now + LOOK_SECONDS, max(budget.resets_at, now + self._answer_seconds))

    async def _granted(self, budget: _Budget, wanted: int, *, in_part: bool = True) -> int:
        if self._looking is None:
            try:
                async with asyncio.timeout(self._answer_seconds):
                    return await self._ask(self._shared, budget, wanted, in_part=in_part)
            except POSTGRES_AND_REDIS_ERRORS as error:
                self._count_locally(error)
        return await self._ask(self._local, budget, wanted, in_part=in_part)

    async def _ask(self, window: SlidingWindowCounterRateLimiter, budget: _Budget, wanted: int, *, in_part: bool) -> int:
        """Takes `wanted` permits from the window, or with `in_part` as many as are left. Updates the budget. Returns how many."""
        granted = wanted if await window.hit(self._item, budget.key, cost=wanted) else 0
        stats = await window.get_window_stats(self._item, budget.key)
        left = stats.remaining
        if in_part and not granted and 0 < left < wanted and await window.hit(self._item, budget.key, cost=left):
            granted, left = left, 0
        budget.remaining = left
        budget.resets_at = time.monotonic() + max(0.0, stats.reset_time - time.time())
        return granted

    def _count_locally(self, error: Exception) -> None:
        if self._looking is None:
            log.warning("rate limits: each process counts by itself", policy=self._policy, error=type(error).__name__)
            self._looking = keep_running("rate limits that wait for Redis", self._look_for_redis)

    async def _look_for_redis(self) -> None:
        answers = False
        while not answers and not self._closed:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                async with asyncio.timeout(LOOK_SECONDS):
                    answers = all([await server.ping() for server in await servers_of(self._redis)])
        self._looking = None
        if answers:
            log.info("rate limits: counted together again", policy=self._policy)
