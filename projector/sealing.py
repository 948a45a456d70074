"""Makes seals: now and then signs the root of the Merkle tree over all events of a ledger, and publishes it outside PostgreSQL.

A seal costs the events that are new since the last one, and a few hundred hashes. It is committed first and published then;
what could not be published is published with the next. A log that is not what was sealed before is never sealed again.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from projector.seal_file import SealFile
from shared import event_store, seal_store
from shared.errors import LogDamaged
from shared.merkle import Subtree, leaf_hash
from shared.seals import EVENT_NAME, Seal, SealingKey
from shared.settings import Settings

log = structlog.get_logger()

PUBLISH_PAGE: Final = 1_000
FOR_ALL_TIME: Final = 2**63 - 1


class Sealer:
    """Seals every ledger of a database. One at a time is at it, however many workers there are."""

    def __init__(self, engine: AsyncEngine, key: SealingKey, file: SealFile | None) -> None:
        self._engine = engine
        self._key = key
        self._file = file

    async def seal_all(self) -> None:
        """A ledger that cannot be sealed keeps none of the others from it."""
        async with self._engine.connect() as connection:
            ledger_ids = list(await event_store.read_heads(connection))
        for ledger_id in ledger_ids:
            try:
                await self._seal(ledger_id)
            except LogDamaged as damaged:
                log.error("not sealed: the log is damaged", ledger_id=ledger_id, reason=damaged.detail)  # noqa: TRY400 # it says where

    async def _seal(self, ledger_id: str) -> None:
        async with self._engine.begin() as connection:
            if not await seal_store.lock(connection, ledger_id):
                return
            last = await seal_store.newest_seal(connection, ledger_id)
            await self._require_published(ledger_id, last)
            seal = await make_seal(connection, ledger_id, last, self._key)
        if self._file:
            await self._publish(ledger_id, self._file)
        elif seal:
            log.info(EVENT_NAME, **seal.members())

    async def _require_published(self, ledger_id: str, last: Seal | None) -> None:
        published = await asyncio.to_thread(self._file.last_position, ledger_id) if self._file else 0
        if published > (last.position if last else 0):
            raise LogDamaged(f"a seal at position {published} has been published, PostgreSQL has none so far on")

    async def _publish(self, ledger_id: str, file: SealFile) -> None:
        """Appends to the file what PostgreSQL has and the file has not."""
        while True:
            after = await asyncio.to_thread(file.last_position, ledger_id)
            async with self._engine.connect() as connection:
                seals = await seal_store.read_seals(connection, ledger_id, after, FOR_ALL_TIME, PUBLISH_PAGE)
            if not seals:
                return
            await asyncio.to_thread(file.append, seals)


async def make_seal(connection: AsyncConnection, ledger_id: str, last: Seal | None, key: SealingKey) -> Seal | None:
    """Seals the ledger up to its head; None where nothing is new since `last`, its newest seal.

    Raises:
        LogDamaged: an event is missing, or the tree up to `last` is not the one that was sealed.
    """
    head = await event_store.read_head(connection, ledger_id)
    sealed = last.position if last else 0
    if head.position == sealed:
        return None
    if head.position < sealed:
        raise LogDamaged(f"the log ends at {head.position}, but was sealed at {sealed}")
    frontier = await seal_store.read_frontier(connection, ledger_id, sealed)
    if last and frontier.root() != last.root:
        raise LogDamaged(f"the tree over events 1 to {sealed} is not the one that was sealed")
    nodes: dict[Subtree, bytes] = {}
    while frontier.size < head.position:
        for event_hash in await seal_store.read_hashes(connection, ledger_id, frontier.size, head.position):
            nodes.update(frontier.append(leaf_hash(event_hash)))
    seal = key.sign(ledger_id, head.position, frontier.root(), head.now)
    await seal_store.insert(connection, seal, nodes)
    return seal


def make_sealer(engine: AsyncEngine, settings: Settings) -> Sealer | None:
    """None without a key."""
    if settings.seal_key is None:
        return None
    key = SealingKey(settings.seal_key.get_secret_value())
    return Sealer(engine, key, SealFile(Path(settings.seal_file)) if settings.seal_file else None)
