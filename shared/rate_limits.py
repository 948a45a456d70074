"""How often a caller may ask: a sliding window in Redis that all processes share.

A request does not ask Redis. A process leases permits, a few per cent of the limit at most and only as many as it lately used up
in a moment, and spends them by itself; before they run out it fetches the next ones, beside the requests. So a busy caller costs
a dictionary and a subtraction, and all processes together never admit more than the limit by more than what they have on lease.

A Redis that does not answer holds up one request for `ANSWER_SECONDS`. From then on each process counts by itself, and comes back
when Redis does: a limit is there to protect the service, not to take it down.
"""

import asyncio
import math
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final, Literal

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from shared.connections import STORE_ERRORS
from shared.errors import RateLimited

log = structlog.get_logger()

WINDOW_SECONDS: Final = 60
ANSWER_SECONDS: Final = 0.05
LOOK_SECONDS: Final = 1.0
"""How often a Redis that was lost is looked for, and how long a refusal holds without asking again."""
BUSY_SECONDS: Final = 0.1
"""A lease that lasted shorter than this was too small."""
LEASE_SHARE: Final = 50
BUDGETS_MAX: Final = 20_000
KEY_PREFIX: Final = "daybook:limits"

Policy = Literal["caller", "address"]
Headers = tuple[tuple[bytes, bytes], ...]


class _Budget:
    """What one caller has left, as far as this process knows. Times are those of the monotonic clock."""

    __slots__ = (
        "key",
        "leased_at",
        "leasing",
        "permits",
        "permits_until",
        "refused_until",
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
        self.refused_until = 0.0
        self.waiting = 0
        self.leasing: asyncio.Task[None] | None = None


class RateLimits:
    """The budgets of everybody under one policy."""

    def __init__(self, redis: "Redis", policy: Policy, requests_max: int, window_seconds: int = WINDOW_SECONDS) -> None:
        self._redis = redis
        self._policy = policy
        self._item: RateLimitItem = RateLimitItemPerSecond(requests_max, window_seconds, namespace=policy)
        self._lease_max = max(1, requests_max // LEASE_SHARE)
        self._window_seconds = window_seconds
        self._policy_header = (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (policy.encode(), requests_max, window_seconds))
        self._name = policy.encode()
        storage = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def take(self, key: str) -> Headers:
        """Counts a request of `key`. Gives the headers that tell the caller what is left.

        Raises:
            RateLimited: nothing is left.
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

    def is_spent(self, key: str) -> bool:
        """Whether `key` was just refused. Asks nobody and counts nothing."""
        budget = self._budgets.get(key)
        return budget is not None and time.monotonic() < budget.refused_until

    def refusal(self, key: str) -> RateLimited:
        """The answer to who has nothing left."""
        budget = self._budgets[key]
        now = time.monotonic()
        seconds = max(1, math.ceil(max(budget.resets_at, budget.refused_until) - now))
        return RateLimited(self.headers(budget, now), seconds)

    def headers(self, budget: _Budget, now: float) -> Headers:
        seconds = min(max(1, math.ceil(budget.resets_at - now)), self._window_seconds)
        left = b'"%b";r=%d;t=%d' % (self._name, budget.remaining + budget.permits, seconds)
        return self._policy_header, (b"ratelimit", left)

    @property
    def counts_alone(self) -> bool:
        """Whether Redis is not there, and each process counts by itself."""
        return self._looking is not None

    async def close(self) -> None:
        self._closed = True
        tasks = [budget.leasing for budget in self._budgets.values() if budget.leasing]
        if self._looking:
            self._looking.cancel()
            tasks.append(self._looking)
        if tasks:
            await asyncio.wait(tasks, timeout=LOOK_SECONDS)

    def _open(self, key: str) -> _Budget:
        """The oldest are forgotten: with its permits, which counts against the caller; never for it."""
        budget = self._budgets[key] = _Budget(key)
        if len(self._budgets) > BUDGETS_MAX:
            self._budgets.popitem(last=False)
        return budget

    async def _take_slowly(self, budget: _Budget) -> None:
        """Waits for a lease; all who wait share one."""
        budget.waiting += 1
        try:
            while True:
                if time.monotonic() < budget.refused_until:
                    raise self.refusal(budget.key)
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
            # What was not used for long has been counted at a time that is over.
            budget.permits_until = now + self._window_seconds / 10
        elif not budget.permits:
            budget.refused_until = min(now + LOOK_SECONDS, max(budget.resets_at, now + ANSWER_SECONDS))

    async def _granted(self, budget: _Budget, wanted: int) -> int:
        if self._looking is None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._ask(self._shared, budget, wanted)
            except STORE_ERRORS as error:
                self._count_alone(error)
        return await self._ask(self._local, budget, wanted)

    async def _ask(self, window: SlidingWindowCounterRateLimiter, budget: _Budget, wanted: int) -> int:
        """How many of the wanted permits there are; also notes what is left then."""
        granted = wanted if await window.hit(self._item, budget.key, cost=wanted) else 0
        stats = await window.get_window_stats(self._item, budget.key)
        left = stats.remaining
        if not granted and 0 < left < wanted and await window.hit(self._item, budget.key, cost=left):
            granted, left = left, 0
        budget.remaining = left
        budget.resets_at = time.monotonic() + max(0.0, stats.reset_time - time.time())
        return granted

    def _count_alone(self, error: Exception) -> None:
        if self._looking is None:
            log.warning("rate limits: each process counts by itself", policy=self._policy, error=type(error).__name__)
            self._looking = asyncio.create_task(self._look_for_redis())

    async def _look_for_redis(self) -> None:
        answers = False
        while not answers and not self._closed:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(*STORE_ERRORS):
                async with asyncio.timeout(LOOK_SECONDS):
                    answers = bool(await self._redis.ping())
        self._looking = None
        if answers:
            log.info("rate limits: counted together again", policy=self._policy)
