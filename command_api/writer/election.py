"""Finds out which command process writes to each ledger, and has this process elected if there is none.

A process takes part for the ledgers that it has had commands for lately. For a ledger that nobody uses, no lease is renewed.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.ids import new_id
from shared.log.writer_leases import LEASE_SECONDS, WriterLease, end_leases, take_leases
from shared.logs import kind_of
from shared.stores.store_errors import ASYNCPG_ERRORS, POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running

log = structlog.get_logger()

LOOK_SECONDS: Final = LEASE_SECONDS / 4
"""The time between two looks at the leases. Each renews those of this process."""
PAUSE_SECONDS_MIN: Final = 0.02
ANSWER_SECONDS_MAX: Final = LEASE_SECONDS / 2
"""The longest wait for the answer to a look."""
USED_SECONDS: Final = 10.0
"""A ledger is used for this long after its last command."""


class _KnownLease(msgspec.Struct, frozen=True):
    """A lease with its end on the event loop's clock, reckoned from the moment when PostgreSQL was asked."""

    lease: WriterLease
    ends_at: float


class Election:
    """What this process knows of the leases. It knows each only until it ends, also when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine, address: str, looked: Callable[[], None]) -> None:
        """Makes an election that calls `looked` after each look. `address` is where this process takes commands of others."""
        self.process_id = new_id()
        self._engine = engine
        self._address = address
        self._looked = looked
        self._used_at: dict[str, float] = {}
        self._known: dict[str, _KnownLease] = {}
        self._is_new = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = keep_running("election of writers", self._look_for_ever)

    async def resign(self) -> None:
        """Ends the leases of this process, so that another one can take them at once, and stops."""
        if self._looking:
            await end_tasks(self._looking)
        mine = any(known.lease.process_id == self.process_id for known in self._known.values())
        self._known.clear()
        try:
            if mine:
                async with asyncio.timeout(ANSWER_SECONDS_MAX), self._engine.begin() as connection:
                    await end_leases(connection, self.process_id)
        except (*POSTGRES_AND_REDIS_ERRORS, *ASYNCPG_ERRORS) as error:
            log.debug("leases end by themselves", error=kind_of(error))

    def use(self, ledger_id: str) -> None:
        """Takes part in the election for this ledger from now on."""
        if ledger_id not in self._used_at:
            self._is_new.set()
        self._used_at[ledger_id] = asyncio.get_running_loop().time()

    def is_elected(self, ledger_id: str) -> bool:
        """True if this process is to write to the ledger."""
        lease = self._lease(ledger_id)
        return lease is not None and lease.process_id == self.process_id

    def writer_address(self, ledger_id: str) -> str | None:
        """Returns the address of the other process that is to write to the ledger. None if it is this one or is not known."""
        lease = self._lease(ledger_id)
        return None if lease is None or lease.process_id == self.process_id else lease.address

    def addresses(self) -> set[str]:
        """Returns the addresses of all other processes that are to write to a ledger that this process uses."""
        return {address for ledger_id in self._used_at if (address := self.writer_address(ledger_id))}

    def _lease(self, ledger_id: str) -> WriterLease | None:
        known = self._known.get(ledger_id)
        return known.lease if known and known.ends_at > asyncio.get_running_loop().time() else None

    async def _look_for_ever(self) -> None:
        while True:
            self._is_new.clear()
            oldest = asyncio.get_running_loop().time() - USED_SECONDS
            self._used_at = {ledger_id: used_at for ledger_id, used_at in self._used_at.items() if used_at > oldest}
            if self._used_at:
                await self._look()
            self._looked()
            try:
                async with asyncio.timeout(self._pause_seconds()):
                    await self._is_new.wait()
            except TimeoutError:
                pass

    def _pause_seconds(self) -> float | None:
        """Returns the time until the next look: when the next lease of another process ends, and after `LOOK_SECONDS` at most."""
        if not self._used_at:
            return None
        now = asyncio.get_running_loop().time()
        ends = [known.ends_at - now for known in self._known.values() if known.lease.process_id != self.process_id]
        return min([LOOK_SECONDS, *(max(seconds, PAUSE_SECONDS_MIN) for seconds in ends)])

    async def _look(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX), self._engine.begin() as connection:
                leases = await take_leases(connection, self.process_id, self._address, self._used_at)
        except (*POSTGRES_AND_REDIS_ERRORS, *ASYNCPG_ERRORS) as error:
            log.debug("leases not seen", error=kind_of(error))
            return
        before = self._known
        self._known = {lease.ledger_id: _KnownLease(lease, began + lease.remaining_seconds) for lease in leases}
        for ledger_id, known in self._known.items():
            was = before.get(ledger_id)
            if known.lease.process_id == self.process_id and (was is None or was.lease.term != known.lease.term):
                log.info("writes to a ledger", ledger_id=ledger_id, term=known.lease.term)
