"""Hashes passwords with Argon2id in separate threads.

A hash takes a tenth of a second and 64 MiB of memory, so it must not block the event loop.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from shared.errors import Overloaded

T = TypeVar("T")

HASHES_WAITING_MAX: Final = 32
"""How many hashes may wait for each thread. Any more fail with `overloaded`."""


class PasswordHasher:
    """Computes password hashes, at most `at_once` at the same time."""

    def __init__(self, at_once: int) -> None:
        self._argon2 = _argon2()
        self._threads = ThreadPoolExecutor(at_once, "daybook-hash")
        self._waiting_max = at_once * HASHES_WAITING_MAX
        self._waiting = 0
        # Hashed now, so that the first login without a stored hash takes no longer than others.
        self._decoy_hash = self._threads.submit(_hash_decoy)

    async def hash(self, password: str) -> str:
        """Returns the hash of a new password.

        Raises:
            Overloaded: too many hashes are waiting.
        """
        return await self._run(lambda: self._argon2.hash(_normalized(password)))

    async def verify(self, password: str, stored_hash: str | None) -> tuple[bool, str | None]:
        """Returns True if the password matches the stored hash, and a new hash if the stored one has outdated parameters.

        Without a stored hash, returns False after the same time, so that the duration does not tell if there is a password.

        Raises:
            Overloaded: too many hashes are waiting.
        """

        def work() -> tuple[bool, str | None]:
            right, new_hash = self._argon2.verify_and_update(_normalized(password), stored_hash or self._decoy_hash.result())
            return (right, new_hash) if stored_hash else (False, None)

        return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._waiting_max:
            raise Overloaded
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _argon2() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))


@cache
def _hash_decoy() -> str:
    """Returns a hash of a password that nobody knows: the same one for the whole process."""
    return _argon2().hash(secrets.token_urlsafe())


def _normalized(password: str) -> str:
    """Returns the password in Unicode form NFKC, because keyboards write the same letter in different ways."""
    return unicodedata.normalize("NFKC", password)
