"""Verifies a ledger: runs all checks in order, and reports the outcome of each."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from projector.feed import Feed
from projector.projections.projection import Projection
from projector.projections.registry import projections_of
from projector.verify.audit import verify_audit
from projector.verify.chain import verify_chain
from projector.verify.difference import DifferenceFound
from projector.verify.events import verify_events
from projector.verify.money import FoldedLog
from projector.verify.people import verify_people
from projector.verify.read_models import verify_read_model
from projector.verify.schema import verify_schema
from projector.verify.seals import verify_seals
from projector.verify.streams import StreamWalk, verify_streams
from projector.verify.trusted_seals import TrustedSeals, trusted_seals
from shared.errors import EventImpossible, LogDamaged, UnknownEvent
from shared.identity.audit_records import NO_LEDGER
from shared.log.event_check import Domain
from shared.log.history_check import RepliesCheck
from shared.privacy.person_keys import PersonKeys
from shared.progress import CountDone, ShowProgress
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores
from shared.stores.pooled_connection import for_single_reads


class CheckVerdict(StrEnum):
    """The verdict of a check."""

    OK = "ok"
    PARKED = "PARKED"
    """Nothing differs, but the read model has dead letters."""
    DIFFERENT = "DIFFERENT"


class CheckOutcome(NamedTuple):
    """The outcome of a check. `text` is one line for people: what was compared, or the first difference."""

    name: str
    verdict: CheckVerdict
    text: str


class VerdictText(NamedTuple):
    """The verdict and the text of a check that found no difference."""

    verdict: CheckVerdict
    text: str


RunCheck = Callable[[CountDone], Awaitable[VerdictText]]


class LogCheck(NamedTuple):
    """A check that needs no read model. `events` is the number of events that it reads."""

    name: str
    events: int
    run: RunCheck


async def verify_ledger(
    settings: Settings,
    ledger_id: str,
    seal_file: Path | None,
    domain: Domain,
    show_progress: ShowProgress,
    report: Callable[[CheckOutcome], None],
) -> set[CheckVerdict]:
    """Runs all checks, calls `report` with the outcome of each, and returns all outcomes. All processes may keep running.

    `seal_file` is a file of published seals. If it is None, the file in the settings is used.

    Raises:
        NotFound: the ledger does not exist.
    """
    async with open_stores(settings, "daybook_projector") as stores:
        person_keys = PersonKeys(settings)
        feed = Feed(stores.engine, ledger_id, person_keys)
        checks = LogChecks(stores, ledger_id, await feed.refresh(), person_keys, trusted_seals(settings, seal_file), domain)
        found = []
        for check in checks.in_order():
            with show_progress(f"verify {check.name}", check.events, "events") as progress:
                found.append(await outcome_of(check.name, check.run, progress.advance))
            report(found[-1])
        projections = projections_of(stores.optional)
        with show_progress("verify read models", feed.head * len(projections), "events") as progress:
            runs = [(projection.name, _read_model_check(stores, feed, projection)) for projection in projections]
            outcomes = await asyncio.gather(*(outcome_of(name, run, progress.advance) for name, run in runs))
        for outcome in outcomes:
            report(outcome)
    return {outcome.verdict for outcome in (*found, *outcomes)}


async def outcome_of(name: str, run: RunCheck, count_done: CountDone) -> CheckOutcome:
    """Runs one check and returns its outcome. A difference is an outcome too, and raises no error."""
    try:
        return CheckOutcome(name, *await run(count_done))
    except (DifferenceFound, EventImpossible, UnknownEvent, LogDamaged) as difference:
        return CheckOutcome(name, CheckVerdict.DIFFERENT, str(difference))


class LogChecks:
    """The checks that need no read model. Run them in order, because each one uses the results of those before it."""

    def __init__(
        self,
        stores: Stores,
        ledger_id: str,
        head: int,
        person_keys: PersonKeys,
        trusted: TrustedSeals,
        domain: Domain,
    ) -> None:
        # A check only reads. With autocommit a read takes one round trip.
        self._engine = for_single_reads(stores.engine)
        self._ledger_id = ledger_id
        self._head = head
        self._person_keys = person_keys
        self._trusted = trusted
        self._domain = domain
        self._folded: FoldedLog | None = None
        """None before the check of the events, and also after it if an event was wrong."""
        self._replies: RepliesCheck | None = None
        """The check of the stored replies, which are read together with the events. It is None whenever `_folded` is
        None, because it needs what the check of the events found."""

    def in_order(self) -> Iterator[LogCheck]:
        """Yields the checks in order. Run each check before you take the next one."""
        yield LogCheck("schema", 0, self._verify_schema)
        yield LogCheck("log", self._head, self._verify_chain)
        yield LogCheck("seals", self._head, self._verify_seals)
        yield LogCheck("events", self._head, self._verify_events)
        yield LogCheck("replies", 0, self._verify_replies)
        yield LogCheck("people", 0, self._verify_people)
        yield LogCheck("audit", 0, self._verify_audit)
        yield LogCheck("streams", self._folded.stream_events if self._folded else self._head, self._verify_streams)

    async def _verify_schema(self, _: CountDone) -> VerdictText:
        async with self._engine.connect() as connection:
            parts = await verify_schema(connection)
        return _ok(
            f"{parts} tables, columns, constraints, indexes, triggers, functions and grants are as the migrations make them"
        )

    async def _verify_chain(self, count_done: CountDone) -> VerdictText:
        async with self._engine.connect() as connection:
            head = await verify_chain(connection, self._ledger_id, count_done)
        self._head = head.position
        return _ok(f"{head.position} events, dense and unchanged; the last hash is {head.hash.hex()}")

    async def _verify_seals(self, count_done: CountDone) -> VerdictText:
        keys, file, _ = self._trusted
        async with self._engine.connect() as connection:
            found = await verify_seals(connection, self._ledger_id, self._trusted, count_done)
        if not (found.in_postgres or found.in_file):
            return _ok(
                "there are none yet: a worker with a DAYBOOK_SEAL_KEY makes them regularly; without seals, a cut-off end of the "
                "log is not found"
            )
        signed = "all signed" if keys else "signatures NOT checked: neither DAYBOOK_SEAL_KEY nor DAYBOOK_SEAL_PUBLIC_KEYS is set"
        where = f"{found.in_postgres} in PostgreSQL and {found.in_file} in {file or 'no file'}"
        return _ok(f"{where}, {signed}; events 1 to {found.position} match the seals")

    async def _verify_events(self, count_done: CountDone) -> VerdictText:
        async with self._engine.connect() as connection:
            found = await verify_events(connection, self._ledger_id, self._head, self._domain, self._person_keys, count_done)
        self._folded, self._replies = found
        accounts = f"{self._folded.books.accounts} accounts, none ever below its limit; every currency sums to zero"
        return _ok(f"the deciders decide every event again as it is; {accounts}")

    async def _verify_replies(self, _: CountDone) -> VerdictText:
        if self._replies is None:
            raise DifferenceFound("stored replies", "a log whose events are right", None)
        if self._replies.fault:
            raise DifferenceFound(self._replies.fault, "a reply that follows from the log", "another")
        return _ok(f"{self._replies.replies} stored replies follow from the events, or are rejections")

    async def _verify_people(self, _: CountDone) -> VerdictText:
        if self._folded is None:
            raise DifferenceFound("people", "a log whose events can be read", None)
        async with self._engine.connect() as connection:
            await verify_people(connection, self._ledger_id, self._folded, self._person_keys)
        return _ok(f"{len(self._folded.people)} have a key; {len(self._folded.erased)} were erased and have none")

    async def _verify_audit(self, _: CountDone) -> VerdictText:
        async with self._engine.connect() as connection:
            own, others = [await verify_audit(connection, each, self._trusted) for each in (self._ledger_id, NO_LEDGER)]
        last = f"; the last hash is {own.hash.hex()}" if own.records else ""
        return _ok(
            f"{own.records} records, dense and unchanged{last}; {others.records} about ledgers that do not exist; "
            f"{own.seals + others.seals} published seals match them"
        )

    async def _verify_streams(self, count_done: CountDone) -> VerdictText:
        walk = StreamWalk(self._ledger_id, self._domain.fold_of)
        stream_events = self._folded.stream_events if self._folded else None
        async with self._engine.connect() as connection:
            await verify_streams(connection, self._ledger_id, self._head, stream_events, walk, self._person_keys, count_done)
        return _ok(f"{walk.streams} streams match their events; {walk.snapshots} snapshots equal the fold of their events")


def _ok(text: str) -> VerdictText:
    return VerdictText(CheckVerdict.OK, text)


def _read_model_check(stores: Stores, feed: Feed, projection: Projection[Any]) -> RunCheck:
    async def check(count_done: CountDone) -> VerdictText:
        verified = await verify_read_model(stores, projection, feed, count_done)
        unit = {"mongo": "documents", "redis": "keys"}.get(projection.model.store, "rows")
        text = f"{verified.count} {unit} equal the fold of the log at {verified.position}"
        if letters := verified.aside.letters:
            behind = f"{verified.aside.put_aside} events behind them in {verified.aside.parked} parked streams"
            return VerdictText(
                CheckVerdict.PARKED, f"{text}, without {letters} dead letters and {behind}: `daybook dead-letters list`"
            )
        return _ok(text)

    return check
