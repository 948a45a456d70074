"""Slows down the guessing of passwords.

A site is the network address of a caller: an IPv4 address, or the /64 network of an IPv6 address. A login is an e-mail address
in a ledger, or a user whose current password is checked. Attempts are counted in two ways: for one login from one site, and for
all logins from one site. After a few free attempts, each attempt makes the next one wait longer, up to a limit. An attempt is
counted before the password is checked, so sending many attempts in parallel is no faster than sending them one after another.

Attempts from one site never delay the same login at other sites, so nobody can lock somebody else out. After a login succeeds
from a site, the site is familiar to that login for `FAMILIAR_SITE_SECONDS`. Attempts on other logins from a familiar site do not
delay the login. Attempts are counted in the same way for an e-mail address that nobody has.

Redis stores only hashes of sites and logins.
"""

import hashlib
import math
from typing import Final

from redis.asyncio import Redis

from shared.errors import RateLimited

LOGIN_ATTEMPTS_FREE: Final = 5
LOGIN_PAUSE_SECONDS_MAX: Final = 900
SITE_ATTEMPTS_FREE: Final = 50
SITE_PAUSE_SECONDS_MAX: Final = 60
ATTEMPTS_KEPT_SECONDS: Final = 86_400
FAMILIAR_SITE_SECONDS: Final = 30 * 86_400

# KEYS, all in one slot of a cluster: the login from the site, the site, and a key that exists if the site is familiar to the
# login. ARGV: how long attempts are kept, in ms; then, for each of the first two keys, the number of free attempts and the
# longest pause in ms. Returns how long the caller must wait, in ms, or 0 if the attempt was counted.
_COUNT_ATTEMPT: Final = """
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
# Runs after a login that succeeded. Subtracts the attempt from the count of its site, deletes the count of attempts on this login
# name from this site, and stores that this login name has succeeded from this site.
# KEYS: as above. ARGV: how long to store the last of these, in ms; how many attempts a site has before it must wait.
_RECORD_SUCCESS: Final = """
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
    if redis.call('HINCRBY', KEYS[2], 'tries', -1) <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[2], 'until') end
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[3], 1, 'PX', ARGV[1])
"""


class LoginThrottle:
    """Counts login attempts in Redis. Raises the errors of Redis, because nobody can log in without Redis anyway."""

    def __init__(self, redis: "Redis") -> None:
        self._count_attempt = redis.register_script(_COUNT_ATTEMPT)
        self._record_success = redis.register_script(_RECORD_SUCCESS)

    async def count_attempt(self, site: str, login: str) -> None:
        """Counts an attempt on a login from a site. Call it before the password is checked.

        `login` must be the same text for every attempt on the same user or e-mail address, even if there is no such user.

        Raises:
            RateLimited: the caller must wait before the next attempt. This attempt was not counted.
        """
        limits = (LOGIN_ATTEMPTS_FREE, LOGIN_PAUSE_SECONDS_MAX * 1000, SITE_ATTEMPTS_FREE, SITE_PAUSE_SECONDS_MAX * 1000)
        wait_ms = int(await self._count_attempt(_keys(site, login), [ATTEMPTS_KEPT_SECONDS * 1000, *limits]))
        if wait_ms:
            raise RateLimited(retry_after_seconds=math.ceil(wait_ms / 1000))

    async def record_success(self, site: str, login: str) -> None:
        """Deletes the failed attempts on a login from a site, and makes the site familiar to the login.

        Call it after the password was correct.
        """
        await self._record_success(_keys(site, login), [FAMILIAR_SITE_SECONDS * 1000, SITE_ATTEMPTS_FREE])


def _keys(site: str, login: str) -> list[str]:
    pair, alone = (hashlib.sha256("\x1f".join(parts).encode()).hexdigest() for parts in ((site, login), (site,)))
    return [f"daybook:tries:{{{alone}}}:{pair}", f"daybook:tries:{{{alone}}}", f"daybook:familiar:{{{alone}}}:{pair}"]
