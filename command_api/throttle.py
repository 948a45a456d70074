"""How fast passwords can be tried.

Tries are counted by who tries and what: an account from a site (an address, or for IPv6 its network), and a site for all
accounts together. Beyond a few free tries each one makes the next wait longer, up to a limit. Nothing is counted for an
account by itself, so nobody can lock somebody else out; and who has once logged in to an account from a site does not wait
for what others of that site do to other accounts. A try counts before it is made: many at once are not more than one after
another.

An address that nobody has is counted alike. Redis has hashes only.
"""

import hashlib
import math
from typing import Final

from redis.asyncio import Redis

from shared.errors import RateLimited

ACCOUNT_FREE: Final = 5
ACCOUNT_PAUSE_MAX_SECONDS: Final = 900
SITE_FREE: Final = 50
SITE_PAUSE_MAX_SECONDS: Final = 60
FORGOTTEN_SECONDS: Final = 86_400
FAMILIAR_SECONDS: Final = 30 * 86_400

# KEYS: the account from the site, the site, whether they are familiar. ARGV: how long tries are remembered, in ms; then for each
# of the first two the number of free tries and the longest pause in ms. Gives how long to wait, in ms; 0 where it was counted.
_TRY: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local counted = redis.call('EXISTS', KEYS[3]) == 1 and 1 or 2
local wait = 0
for i = 1, counted do
    wait = math.max(wait, (tonumber(redis.call('HGET', KEYS[i], 'until')) or 0) - now)
end
if wait > 0 then return wait end
for i = 1, counted do
    local beyond = redis.call('HINCRBY', KEYS[i], 'tries', 1) - ARGV[2 * i]
    if beyond > 0 then
        redis.call('HSET', KEYS[i], 'until', now + math.min(ARGV[2 * i + 1], 1000 * 2 ^ math.min(beyond - 1, 30)))
    end
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return 0
"""
# KEYS: as above. ARGV: how long they stay familiar, in ms; the free tries of a site. Takes back what this try has counted.
_SUCCEED: Final = """
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
    if redis.call('HINCRBY', KEYS[2], 'tries', -1) <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[2], 'until') end
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[3], 1, 'PX', ARGV[1])
"""


class LoginThrottle:
    """Raises what Redis raises: without it nobody can log in anyway."""

    def __init__(self, redis: "Redis") -> None:
        self._try = redis.register_script(_TRY)
        self._succeed = redis.register_script(_SUCCEED)

    async def count(self, site: str, account: str) -> None:
        """To be called before a try. `account` is whatever names it alike, whether it exists or not.

        Raises:
            RateLimited: not yet.
        """
        limits = (ACCOUNT_FREE, ACCOUNT_PAUSE_MAX_SECONDS * 1000, SITE_FREE, SITE_PAUSE_MAX_SECONDS * 1000)
        wait_ms = int(await self._try(_keys(site, account), [FORGOTTEN_SECONDS * 1000, *limits]))
        if wait_ms:
            raise RateLimited(retry_after_seconds=math.ceil(wait_ms / 1000))

    async def succeed(self, site: str, account: str) -> None:
        """The try was right."""
        await self._succeed(_keys(site, account), [FAMILIAR_SECONDS * 1000, SITE_FREE])


def _keys(site: str, account: str) -> list[str]:
    pair, alone = (hashlib.sha256("\x1f".join(parts).encode()).hexdigest() for parts in ((site, account), (site,)))
    return [f"daybook:tries:{pair}", f"daybook:tries:{alone}", f"daybook:familiar:{pair}"]
