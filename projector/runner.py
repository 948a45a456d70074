"""Keeps every read model of every ledger up with its log.

A wake-up makes the runner read a log immediately. Without one, it finds out at regular intervals which logs have moved, with one
query for all ledgers, so nothing depends on a message.

A ledger that has moved is awake: each of its read models has a follower. A follower that fails retries for ever, with growing
pauses, and stores the cause for readers (`shared.read_models.failures.read_failures`). A ledger whose read models are all at the
end of its log falls asleep. Then it has no task, no timer and no connection, and takes part only in the examinations, which look
at many ledgers at once. Whatever an examination finds to do wakes the ledger.

Each worker follows its share of the ledgers: see `projector.live_workers`.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final, NamedTuple

import structlog

from projector.dead_letters import ApplyAttempts
from projector.examiner import Examiner
from projector.failures import Failures
from projector.feed import FEED_READS_AT_ONCE, Feed
from projector.followed_ledger import FollowedLedger
from projector.follower import STORE_PAUSE_SECONDS, Follower, FollowerState, wait
from projector.generations.generations import Generations
from projector.live_workers import ALIVE_KEY, BEAT_SECONDS, LiveWorkers
from projector.notifications import MovedNotifier
from projector.projections.projection import Projection
from projector.projections.registry import projections_of
from projector.reading_pace import ReadingPace
from projector.sinks.protocols import Sink
from projector.sinks.registry import make_sinks
from shared.backoff import backoff_seconds
from shared.log.heads import read_moved_heads
from shared.logs import kind_of
from shared.privacy.person_keys import PersonKeys
from shared.read_models.channels import LOST_CHANNEL, WAKE_CHANNEL
from shared.read_models.shapes import Store
from shared.read_models.worker_reports import REPORT_INTERVAL_SECONDS, publish_reports
from shared.settings import Settings
from shared.stores.all_stores import Stores
from shared.stores.pooled_connection import for_single_reads
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running, task_health
from shared.tracing import Traces

log = structlog.get_logger()

EXAMINE_SECONDS: Final = 10.0
"""The time in seconds between two regular examinations."""

EXAMINED_AT_ONCE: Final = 50
"""The most ledgers in one examination. So examinations cost the same however many ledgers there are."""

AWAKE_SECONDS: Final = 60.0
STARTED_AT_ONCE: Final = 4
"""The most ledgers that start at the same time. So the first of many that start together is ready long before the last one."""


class Examination(NamedTuple):
    """`is_whole` is False if a store did not answer. `has_found_loss` is True if a ledger that was asleep has lost data."""

    is_whole: bool
    has_found_loss: bool = False


class Runner:
    """Follows all ledgers from `run` to `stop`."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        projections: Sequence[Projection[Any]] | None = None,
        sinks: Mapping[Store, Sink[Any]] | None = None,
        *,
        awake_seconds: float = AWAKE_SECONDS,
        alive_key: str = ALIVE_KEY,
        traces: Traces | None = None,
    ) -> None:
        """Makes a runner that follows nothing yet. It will follow all read models whose store is in use, or these `projections`.

        `sinks` are those of the stores if they are not given. It shares the ledgers with the runners that have the same
        `alive_key`. A ledger falls asleep after nothing was heard of it for `awake_seconds`.
        """
        self._engine = for_single_reads(stores.engine)
        self._redis = stores.redis
        self._id = random.randbytes(16).hex()  # noqa: S311 # not a secret
        self._workers = LiveWorkers(stores.redis, self._id, alive_key)
        self._person_keys = PersonKeys(settings)
        self._sinks = sinks or make_sinks(stores)
        self._failures = Failures(stores.mongo, stores.redis)
        self._notifier = MovedNotifier(stores.redis)
        self._settings = settings
        self._traces = traces
        self._awake_seconds = awake_seconds
        self._look_seconds = settings.projector_look_ms / 1000
        self._projections = projections_of(stores.optional) if projections is None else projections
        self._examiner = Examiner(self._engine, self._sinks, self._failures, self._projections)
        self._reading = asyncio.Semaphore(FEED_READS_AT_ONCE)
        self._pace = ReadingPace(settings.projector_gather_ms / 1000)
        self._starting = asyncio.Semaphore(STARTED_AT_ONCE)
        self._heads: dict[str, int] = {}
        self._awake: dict[str, FollowedLedger] = {}
        self._asleep: dict[str, Mapping[str, int]] = {}
        """Ledger → the number of dead letters of each read model that has some. One neither asleep nor awake is unexamined."""
        self._examined: str = ""
        """The last ledger of the last regular examination."""
        self._closing: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._unexamined = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Follows all ledgers of this worker. Returns after `stop` was called and the current batches are written."""
        await self._workers.beat()
        beside = [
            keep_running("listener of wake-ups", self._listen),
            keep_running("sender of reports", self._report),
            keep_running("sender of heartbeats", self._share),
            keep_running("reader of heads", self._look),
            keep_running("examiner of read models", self._examine),
        ]
        try:
            await self._stopping.wait()
            await self._workers.leave()
            await asyncio.gather(*(ledger.close() for ledger in self._awake.values()), *self._closing)
        finally:
            await end_tasks(*beside, *self._closing)
            await asyncio.gather(*(ledger.end() for ledger in self._awake.values()))
            await self._notifier.close()

    def wake(self) -> None:
        """Makes the runner find out now which logs have moved."""
        self._woken.set()

    def stop(self) -> None:
        """Makes `run` return after the current batches are written."""
        self._stopping.set()
        self._woken.set()
        self._unexamined.set()
        for ledger in self._awake.values():
            ledger.stop()

    def states(self) -> list[FollowerState]:
        """Returns the states of all followers, and those of read models with dead letters of ledgers that are asleep."""
        states = [state for ledger in self._awake.values() for state in ledger.states()]
        for ledger_id, letters in self._asleep.items():
            head = self._heads.get(ledger_id, 0)
            states += [
                FollowerState(ledger_id, name, head, head, count, has_failed=False, events=0, seconds={})
                for name, count in letters.items()
            ]
        return states

    # ── moved logs ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        """Finds out which logs have moved, at regular intervals and after `wake`."""
        failing, digest = False, None
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                async with self._engine.connect() as connection:
                    moved = await read_moved_heads(connection, digest)
            except POSTGRES_AND_REDIS_ERRORS as error:
                if not failing:
                    log.error("the log cannot be read", error=kind_of(error))  # noqa: TRY400 # an outage needs no traceback
                failing = True
            else:
                failing = False
                if moved:
                    digest, heads = moved
                    self._take_heads(heads)
            await wait(self._woken, self._look_seconds)

    def _take_heads(self, heads: dict[str, int]) -> None:
        before, self._heads = self._heads, heads
        for ledger_id in [*self._awake, *self._asleep]:
            if ledger_id not in heads:
                self._release(ledger_id)
        for ledger_id, head in heads.items():
            if ledger_id in self._awake:
                if head != before.get(ledger_id):
                    self._awake[ledger_id].move_to(head)
            elif not before:
                self._unexamined.set()
            elif head != before.get(ledger_id) and self._workers.is_mine(ledger_id):
                self._rouse(ledger_id)

    async def _listen(self) -> None:
        """Receives wake-ups from Redis. While Redis does not answer, the log is still read at regular intervals."""
        while True:
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE_CHANNEL, LOST_CHANNEL)
                    # Wake-ups that were sent before the subscription are lost, so look once now.
                    self.wake()
                    while True:
                        if message := await channel.get_message(timeout=self._look_seconds):
                            self._take(message["channel"], message["data"])
            await asyncio.sleep(self._look_seconds)

    def _take(self, channel: str, ledger_id: str) -> None:
        if ledger_id not in self._heads:
            self._woken.set()
        elif self._workers.is_mine(ledger_id):
            self._rouse(ledger_id).hear(has_lost_data=channel == LOST_CHANNEL)

    # ── awake and asleep ─────────────────────────────────────────────────────────────────────────────────────────────

    def _rouse(self, ledger_id: str) -> FollowedLedger:
        """Returns the ledger with its followers. Starts them if it was asleep."""
        ledger = self._awake.get(ledger_id)
        if ledger is None:
            self._asleep.pop(ledger_id, None)
            ledger = self._awake[ledger_id] = self._followed(ledger_id)
            ledger.move_to(self._heads[ledger_id])
            if not self._stopping.is_set():
                ledger.start(self._starting)
        return ledger

    def _followed(self, ledger_id: str) -> FollowedLedger:
        settings, stopping, followers = self._settings, asyncio.Event(), {}
        feed = Feed(self._engine, ledger_id, self._person_keys, self._reading)
        for projection in self._projections:
            attempts = ApplyAttempts(settings.projector_attempts_max, settings.projector_dead_letters_max)
            generations = Generations(projection, self._sinks[projection.model.store], feed, attempts, self._traces)
            events_max = settings.projector_batch_events_max
            followers[projection.name] = Follower(generations, self._failures, self._notifier, events_max, stopping)
        return FollowedLedger(feed, followers, stopping, self.wake, self._pace)

    def _release(self, ledger_id: str) -> None:
        """Ends the followers of a ledger."""
        self._asleep.pop(ledger_id, None)
        if ledger := self._awake.pop(ledger_id, None):
            ledger.stop()
            closing = asyncio.create_task(ledger.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _share(self) -> None:
        """Sends heartbeats. When workers come or go, gives up the ledgers of others and examines those that became its own."""
        while not self._stopping.is_set():
            if await self._workers.beat():
                for ledger_id in [*self._awake, *self._asleep]:
                    if not self._workers.is_mine(ledger_id):
                        self._release(ledger_id)
                self._unexamined.set()
            await wait(self._stopping, BEAT_SECONDS)

    # ── examinations ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _examine(self) -> None:
        """Examines new ledgers of this worker at once, and some of all others every `EXAMINE_SECONDS`, in turns."""
        now = asyncio.get_running_loop().time
        failed, regular_at = 0, now() + EXAMINE_SECONDS
        while not self._stopping.is_set():
            self._unexamined.clear()
            ledger_ids = self._next([each for each in self._heads if each not in self._awake and each not in self._asleep])
            if not ledger_ids and now() >= regular_at:
                ledger_ids, regular_at = self._next(self._heads), now() + EXAMINE_SECONDS
            if not ledger_ids:
                await wait(self._unexamined, max(regular_at - now(), 0))
                continue
            examination = await self._examine_some(ledger_ids)
            if examination.has_found_loss:
                regular_at = now()  # other ledgers have probably lost data too
            failed = 0 if examination.is_whole else failed + 1
            if failed:
                await wait(self._stopping, backoff_seconds(failed, STORE_PAUSE_SECONDS))

    def _next(self, ledger_ids: Iterable[str]) -> Sequence[str]:
        """Returns those of these ledgers that are to be examined next, at most `EXAMINED_AT_ONCE`. They take turns."""
        mine = sorted(filter(self._workers.is_mine, ledger_ids))
        place = bisect_right(mine, self._examined)
        some = (mine[place:] + mine[:place])[:EXAMINED_AT_ONCE]
        self._examined = some[-1] if some else self._examined
        return some

    async def _examine_some(self, ledger_ids: Sequence[str]) -> Examination:
        """Examines ledgers. Wakes those that have work, and lets the others fall asleep."""
        before = {ledger_id: self._awake[ledger_id].following() for ledger_id in ledger_ids if ledger_id in self._awake}
        try:
            findings = await self._examiner.examine(ledger_ids)
        except POSTGRES_AND_REDIS_ERRORS:
            for ledger_id in before.keys() & self._awake:
                self._awake[ledger_id].feed.doubt()
            return Examination(is_whole=False)
        has_found_loss = False
        for ledger_id, found in findings.items():
            if not self._workers.is_mine(ledger_id):
                continue
            ledger, is_quiet = self._awake.get(ledger_id), found.is_quiet(len(self._projections))
            if ledger:
                ledger.compare(found, before.get(ledger_id, {}))
                is_quiet = is_quiet and ledger.is_idle(self._awake_seconds)
            if is_quiet:
                self._release(ledger_id)
                self._asleep[ledger_id] = found.letters()
            elif not ledger and found.has_work():
                has_found_loss |= ledger_id in self._asleep
                self._rouse(ledger_id)
        complete = [found for found in findings.values() if len(found.models) == len(self._projections)]
        return Examination(is_whole=len(complete) == len(ledger_ids), has_found_loss=has_found_loss)

    async def _report(self) -> None:
        """Publishes the progress of the followers at regular intervals. While Redis does not answer, nothing is published."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_SECONDS)
            reports = chain.from_iterable(ledger.reports() for ledger in self._awake.values())
            asleep = [f"{ledger_id}/{name}" for ledger_id, names in self._asleep.items() for name in names]
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                await publish_reports(self._redis, self._id, reports, asleep, task_health())
