"""Argon2id in threads of its own: a hash takes a tenth of a second and 64 MiB, and the loop must not wait for it."""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from shared.errors import Overloaded

T = TypeVar("T")

WAITING_MAX: Final = 32
"""Hashes that may be asked for and not done, for each thread."""


class PasswordHasher:
    """Does so many hashes at once and no more, whoever asks."""

    def __init__(self, at_once: int) -> None:
        self._argon2 = PasswordHash((Argon2Hasher(),))
        self._threads = ThreadPoolExecutor(at_once, "daybook-hash")
        self._waiting_max = at_once * WAITING_MAX
        self._waiting = 0
        self._nobodys = self._threads.submit(self._argon2.hash, secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Raises:
        Overloaded: too many are waiting.
        """
        return await self._run(lambda: self._argon2.hash(_normal(password)))

    async def verify(self, password: str, kept: str | None) -> tuple[bool, str | None]:
        """Whether it is the one that `kept` is the hash of; and a new hash where today's would be another one.

        Without a hash it is wrong, and finding that out takes as long.

        Raises:
            Overloaded: too many are waiting.
        """

        def work() -> tuple[bool, str | None]:
            right, renewed = self._argon2.verify_and_update(_normal(password), kept or self._nobodys.result())
            return (right, renewed) if kept else (False, None)

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


def _normal(password: str) -> str:
    """Keyboards differ in how they write one letter."""
    return unicodedata.normalize("NFKC", password)
