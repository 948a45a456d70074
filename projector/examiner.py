"""Examines the read models of many ledgers in a few round trips: whether they exist, and were made from the log as it is.

A follower that waits for events looks at nothing. So this is how the loss of data is noticed, a store or a log that was restored,
a generation that another process made live, and a failure that somebody else has stored. The examiner only reads, except that a
generation which has lost a key loses its checkpoint too. Followers do the repairs.
"""

import asyncio
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from pymongo.errors import PyMongoError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.dead_letters import read_skips
from projector.failures import Failures
from projector.projections.projection import Projection
from projector.sinks.protocols import LiveCheckpoint, LiveReader
from shared.errors import StoreUnavailable
from shared.log.streams import projection_stream
from shared.read_models.generations import pointer_id
from shared.read_models.shapes import ReadModel, Store
from shared.read_models.stored_state import LogPlace
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

# Finds the streams of decisions about read models with one look into the index. A full stop sorts after a hyphen.
READ_LOG_ENDS: Final = text("""
    SELECT h.ledger_id, h.position, encode(h.hash, 'hex'), ARRAY(
        SELECT s.stream_id FROM streams s
        WHERE s.ledger_id = h.ledger_id AND s.stream_id >= 'projection-' AND s.stream_id < 'projection.'
    )
    FROM log_heads h WHERE h.ledger_id = ANY (:ledger_ids)
""")


class LogEnd(msgspec.Struct, frozen=True):
    """The end of a ledger's log, with the hash of its last event, and the positions that each read model has to skip."""

    position: int
    log_hash: str
    skips: Mapping[str, frozenset[int]] = {}


class ReadModelFinding(msgspec.Struct, frozen=True):
    """The findings about one read model. `number` is 0 if no generation is live, or if it has lost data.

    A read model that is behind the log is sound. One that is not sound must be opened by a follower, which finds out more.
    """

    number: int = 0
    position: int = 0
    is_sound: bool = False
    is_behind: bool = False
    letters: int = 0


class LedgerFindings(msgspec.Struct, frozen=True):
    """The findings about a ledger: its head, and each read model by name, except those of a store that did not answer."""

    head: int
    models: Mapping[str, ReadModelFinding]

    def has_work(self) -> bool:
        """Returns True if a follower has something to do."""
        return any(found.is_behind or not found.is_sound for found in self.models.values())

    def is_quiet(self, count: int) -> bool:
        """Returns True if no follower has anything to do. `count` is the number of read models."""
        return len(self.models) == count and not self.has_work()

    def letters(self) -> dict[str, int]:
        """Returns the number of dead letters of each read model that has some, by its name."""
        return {name: found.letters for name, found in self.models.items() if found.letters}


def judge(model: ReadModel, live: LiveCheckpoint | None, end: LogEnd, *, has_failed: bool) -> ReadModelFinding:
    """Judges a live checkpoint by a log that was read after it. The log only grows, so it may not end before the checkpoint."""
    if live is None:
        return ReadModelFinding()
    found = live.checkpoint
    skips = {position for position in end.skips.get(model.name, ()) if position <= found.position}
    last = found.ahead or LogPlace(found.position, found.log_hash)
    is_of_this_log = last.position < end.position or (last.position, last.log_hash) == (end.position, end.log_hash)
    return ReadModelFinding(
        live.number,
        found.position,
        is_sound=is_of_this_log and found.model_version == model.version and found.aside.skipped == skips and not has_failed,
        is_behind=found.position < end.position,
        letters=found.aside.letters,
    )


class Examiner:
    """Examines the read models of these projections."""

    def __init__(
        self,
        engine: AsyncEngine,
        sinks: Mapping[Store, LiveReader],
        failures: Failures,
        projections: Sequence[Projection[Any]],
    ) -> None:
        self._engine = engine
        self._sinks = sinks
        self._failures = failures
        self._models = [projection.model for projection in projections]

    async def examine(self, ledger_ids: Sequence[str]) -> dict[str, LedgerFindings]:
        """Returns what was found out about each of these ledgers that exists.

        Raises:
            one of POSTGRES_AND_REDIS_ERRORS: PostgreSQL does not answer.
        """
        stores = sorted({model.store for model in self._models})
        failed = await self._read_failures(ledger_ids)
        of_stores = await asyncio.gather(*(self._read_store(store, ledger_ids) for store in stores))
        live = {store: found for store, found in zip(stores, of_stores, strict=True) if found is not None}
        ends = await self._read_logs(ledger_ids)  # after the checkpoints: see `judge`
        return {ledger_id: self._findings(ledger_id, end, live, failed) for ledger_id, end in ends.items()}

    def _findings(
        self, ledger_id: str, end: LogEnd, live: Mapping[Store, Mapping[str, LiveCheckpoint | None]], failed: Container[str]
    ) -> LedgerFindings:
        models = {}
        for model in self._models:
            name = pointer_id(model, ledger_id)
            if model.store in live and (live[model.store].get(name) or name not in live[model.store]):
                models[model.name] = judge(model, live[model.store].get(name), end, has_failed=name in failed)
        return LedgerFindings(end.position, models)

    async def _read_store(self, store: Store, ledger_ids: Sequence[str]) -> Mapping[str, LiveCheckpoint | None] | None:
        try:
            return await self._sinks[store].read_live([each for each in self._models if each.store == store], ledger_ids)
        except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, StoreUnavailable):
            return None

    async def _read_failures(self, ledger_ids: Sequence[str]) -> set[str]:
        with suppress(*POSTGRES_AND_REDIS_ERRORS, PyMongoError):
            return await self._failures.read_stored(ledger_ids)
        return set()

    async def _read_logs(self, ledger_ids: Sequence[str]) -> dict[str, LogEnd]:
        async with self._engine.connect() as connection:
            rows = (await connection.execute(READ_LOG_ENDS, {"ledger_ids": list(ledger_ids)})).all()
        ends = {}
        for ledger_id, position, log_hash, streams in rows:
            skips = {
                model.name: await read_skips(self._engine, ledger_id, model.name)
                for model in self._models
                if projection_stream(model.name) in streams
            }
            ends[ledger_id] = LogEnd(position, log_hash, skips)
        return ends
