"""A caller that reads with the position of its write sees the write: over HTTP, from both stores, with several writers at once.

`make prove` writes and reads 10,000 times.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import httpx2
import pytest

from tests.harness.clients import Commands, served
from tests.harness.keys import bearer
from tests.harness.running import Stack

pytestmark = pytest.mark.services

NAIVE_PAIRS: Final = 90
WRITERS: Final = 5


class Writer:
    """A writer that moves money between two accounts of its own, so that it knows their balances."""

    def __init__(self, commands: Commands, query: httpx2.AsyncClient) -> None:
        self._commands, self._query = commands, query
        self._accounts: list[str] = []
        self._balances = [0, 0]
        self.reads: Counter[str] = Counter()
        self.old: Counter[str] = Counter()

    async def open(self) -> None:
        self._accounts = [await self._commands.account(balance=1_000_000) for _ in range(2)]
        self._balances = [1_000_000, 1_000_000]

    async def pairs(self, count: int, *, says_position: bool) -> None:
        for number in range(count):
            transfer_id, position = await self._write(number)
            headers = {"daybook-min-position": position, "prefer": "wait=10"} if says_position else {}
            read = (self._balance, self._account, self._transfer)[number % 3]
            self.reads[read.__name__] += 1
            self.old[read.__name__] += not await read(number % 2, transfer_id, headers)

    async def _write(self, number: int) -> tuple[str, str]:
        payer, payee = (0, 1) if number % 4 < 2 else (1, 0)
        answer = await self._commands.transfer(self._accounts[payer], self._accounts[payee], number + 1)
        assert answer.status_code == 201, answer.text
        self._balances[payer] -= number + 1
        self._balances[payee] += number + 1
        return answer.json()["id"], answer.headers["daybook-position"]

    # True for each write that was seen.

    async def _balance(self, which: int, _: str, headers: Mapping[str, str]) -> bool:
        found = await self._found(f"/v1/accounts/{self._accounts[which]}/balance", headers)
        return bool(found["posted"] == self._balances[which])

    async def _account(self, which: int, _: str, headers: Mapping[str, str]) -> bool:
        found = await self._found(f"/v1/accounts/{self._accounts[which]}", headers)
        return bool(found["balance"]["posted"] == self._balances[which])

    async def _transfer(self, _: int, transfer_id: str, headers: Mapping[str, str]) -> bool:
        return bool(await self._found(f"/v1/transfers/{transfer_id}", headers))

    async def _found(self, path: str, headers: Mapping[str, str]) -> Any:
        answer = await served(partial(self._query.get, path, headers=headers))
        if headers:
            assert "daybook-stale" not in answer.headers, path
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def writers_on(stack: Stack) -> AsyncIterator[list[Writer]]:
    """Waits until the worker has projected what the writers began with."""
    async with (
        httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), timeout=60) as command,
        httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), timeout=60) as query,
    ):
        writers = [Writer(Commands(command), query) for _ in range(WRITERS)]
        await asyncio.gather(*(writer.open() for writer in writers))
        for path in (f"/v1/accounts/{uuid.uuid4()}/balance", "/v1/accounts", "/v1/transfers"):
            headers = {"daybook-min-position": str(WRITERS * 6), "prefer": "wait=10, handling=strict"}
            assert (await query.get(path, headers=headers)).status_code in {200, 404}
        yield writers


@pytest.mark.proof(200, 10_000)
async def test_a_read_with_a_minimum_position_is_never_older_than_the_write(stack: Stack, repetitions: int) -> None:
    async with writers_on(stack) as writers:
        await asyncio.gather(*(writer.pairs(repetitions // WRITERS, says_position=True) for writer in writers))
    reads = sum((writer.reads for writer in writers), Counter[str]())
    assert reads.total() == repetitions // WRITERS * WRITERS
    assert set(reads) == {"_balance", "_account", "_transfer"}
    assert sum((writer.old for writer in writers), Counter[str]()).total() == 0


@pytest.mark.slow
async def test_reads_without_a_minimum_position_can_be_older(stack: Stack) -> None:
    """Shows that the other test would find an older read, in each store. The worker stands still, however fast the machine is."""
    async with writers_on(stack) as writers:
        stack.worker.freeze()
        try:
            await asyncio.gather(*(writer.pairs(NAIVE_PAIRS // WRITERS, says_position=False) for writer in writers))
        finally:
            stack.worker.thaw()
    old = sum((writer.old for writer in writers), Counter[str]())
    assert set(+old) == {"_balance", "_account", "_transfer"}
