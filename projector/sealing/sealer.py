"""Makes seals: signs the root of the Merkle tree over all events of a ledger, and publishes it outside PostgreSQL.

To make a seal, the sealer reads the events since the last seal and computes a few hundred hashes. The seal is first committed to
PostgreSQL and then published. If it cannot be published, it is published together with the next seal. A log that does not match
its last seal is never sealed again.

The ends of the chains of audit records are sealed too. These seals are only published, because a copy in PostgreSQL, beside the
records, would add nothing.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from projector.sealing.seal_file import SealFile
from shared.errors import LogDamaged
from shared.identity.audit_records import read_audit_ends, read_audit_head
from shared.log.heads import read_head, read_heads
from shared.logs import kind_of
from shared.proof import seal_store
from shared.proof.merkle import Subtree, leaf_hash
from shared.proof.seals import AUDIT_SUFFIX, EVENT_NAME, Seal, SealingKey
from shared.settings import Settings
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

log = structlog.get_logger()

PUBLISHED_AT_ONCE: Final = 1_000
FOR_ALL_TIME: Final = 2**63 - 1


class Sealer:
    """Seals every ledger. If there are several workers, only one at a time seals a ledger."""

    def __init__(self, engine: AsyncEngine, key: SealingKey, file: SealFile | None) -> None:
        self._engine = engine
        self._key = key
        self._file = file
        self._logs: dict[str, int] = {}
        """Ledger → the position up to which this process has sealed it and published all its seals."""
        self._audits: dict[str, int] = {}
        """Chain of audit records → the position that this process sealed last."""

    async def seal_all(self) -> None:
        """Seals all ledgers. If one of them cannot be sealed, logs why and continues with the next one."""
        async with self._engine.connect() as connection:
            heads, ends = await read_heads(connection), await read_audit_ends(connection)
        # What has not moved since this process sealed it costs nothing.
        logs = [(each, self._seal) for each, (position, _) in heads.items() if self._logs.get(each) != position]
        audits = [(each, self._seal_audit) for each, end in ends.items() if self._audits.get(each + AUDIT_SUFFIX) != end]
        for ledger_id, seal in [*logs, *audits]:
            try:
                await seal(ledger_id)
            except (*POSTGRES_AND_REDIS_ERRORS, OSError) as error:
                log.warning("not sealed", ledger_id=ledger_id, error=kind_of(error))
            except LogDamaged as damaged:
                log.error("not sealed: the log is damaged", ledger_id=ledger_id, reason=damaged.detail)  # noqa: TRY400 # it says where

    async def _seal(self, ledger_id: str) -> None:
        async with self._engine.begin() as connection:
            if not await seal_store.lock_seals(connection, ledger_id):
                return
            last = await seal_store.newest_seal(connection, ledger_id)
            await self._require_published(ledger_id, last)
            seal = await make_seal(connection, ledger_id, last, self._key)
        if self._file:
            await self._publish(ledger_id, self._file)
        elif seal:
            log.info(EVENT_NAME, **seal.members())
        newest = seal or last
        self._logs[ledger_id] = newest.position if newest else 0

    async def _require_published(self, ledger_id: str, last: Seal | None) -> None:
        published = await asyncio.to_thread(self._file.last_position, ledger_id) if self._file else 0
        if published > (last.position if last else 0):
            raise LogDamaged(
                f"a seal at position {published} was published, but PostgreSQL has no seal at or after this position"
            )

    async def _seal_audit(self, ledger_id: str) -> None:
        """Publishes a seal of the last audit record, unless this record was sealed before."""
        chain = ledger_id + AUDIT_SUFFIX
        sealed = self._audits.get(chain, 0)
        if self._file:
            sealed = await asyncio.to_thread(self._file.last_position, chain)
        async with self._engine.connect() as connection:
            head = await read_audit_head(connection, ledger_id)
        if head.position < sealed:
            raise LogDamaged(f"the audit records end at {head.position}, but were sealed at {sealed}")
        if head.position > sealed:
            seal = self._key.sign(chain, head.position, head.hash, head.now)
            if self._file:
                await asyncio.to_thread(self._file.append, [seal])
            else:
                log.info(EVENT_NAME, **seal.members())
        self._audits[chain] = head.position

    async def _publish(self, ledger_id: str, file: SealFile) -> None:
        """Appends to the file the seals that are in PostgreSQL and not yet in the file."""
        while True:
            after = await asyncio.to_thread(file.last_position, ledger_id)
            async with self._engine.connect() as connection:
                seals = await seal_store.read_seals(connection, ledger_id, after, FOR_ALL_TIME, PUBLISHED_AT_ONCE)
            if not seals:
                return
            await asyncio.to_thread(file.append, seals)


async def make_seal(connection: AsyncConnection, ledger_id: str, last: Seal | None, key: SealingKey) -> Seal | None:
    """Seals the ledger up to its head. Returns None if there are no events after `last`, the newest seal.

    Raises:
        LogDamaged: an event is missing, or the Merkle tree up to `last` does not match that seal.
    """
    head = await read_head(connection, ledger_id)
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
    await seal_store.insert_seal(connection, seal, nodes)
    return seal


def make_sealer(engine: AsyncEngine, settings: Settings) -> Sealer | None:
    """Returns a sealer with the key and the file of the settings, or None if the settings have no seal key."""
    if settings.seal_key is None:
        return None
    key = SealingKey(settings.seal_key.get_secret_value())
    return Sealer(engine, key, SealFile(Path(settings.seal_file)) if settings.seal_file else None)
