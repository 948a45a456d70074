"""Keeps every read model of every ledger up with its log.

Each read model of each ledger has a follower of its own. A follower that fails retries for ever, with growing pauses, and stores
the cause for readers (`shared.read_models.failures.read_failures`). A wake-up makes the runner read the log immediately. Without
a wake-up it reads the log at regular intervals, so nothing depends on a message.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from projector.dead_letters import ApplyAttempts
from projector.failures import Failures
from projector.feed import FEED_READS_AT_ONCE, Feed
from projector.follower import Follower, FollowerState, wait
from projector.generations.generations import Generations
from projector.notifications import MovedNotifier
from projector.projections.projection import Projection
from projector.projections.registry import projections_of
from projector.sinks.protocols import Sink
from projector.sinks.registry import make_sinks
from shared.log.heads import read_heads
from shared.logs import kind_of
from shared.privacy.person_keys import PersonKeys
from shared.read_models.channels import LOST_CHANNEL, WAKE_CHANNEL
from shared.read_models.shapes import Store
from shared.read_models.worker_reports import REPORT_INTERVAL_SECONDS, publish_reports
from shared.settings import Settings
from shared.stores.all_stores import Stores
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks, keep_running, task_health

log = structlog.get_logger()


class Runner:
    """Follows all ledgers from `run` to `stop`."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        projections: Sequence[Projection[Any]] | None = None,
        sinks: Mapping[Store, Sink[Any]] | None = None,
    ) -> None:
        """Makes a runner that follows nothing yet. It will follow all read models whose store is in use, or these `projections`.

        `sinks` are those of the stores if they are not given.
        """
        self._engine = stores.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._redis = stores.redis
        self._id = uuid4().hex
        self._person_keys = PersonKeys(settings)
        self._sinks = sinks or make_sinks(stores)
        self._failures = Failures(stores.mongo, stores.redis)
        self._notifier = MovedNotifier(stores.redis)
        self._events_max = settings.projector_batch_events_max
        self._attempts_max = settings.projector_attempts_max
        self._letters_max = settings.projector_dead_letters_max
        self._look_seconds = settings.projector_look_ms / 1000
        self._projections = projections_of(stores.optional) if projections is None else projections
        self._reading = asyncio.Semaphore(FEED_READS_AT_ONCE)
        self._feeds: dict[str, Feed] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._followers: list[Follower] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Follows all ledgers. Returns after `stop` was called and the current batches are written."""
        beside = [keep_running("listener of wake-ups", self._listen), keep_running("sender of reports", self._report)]
        self._tasks.append(keep_running("reader of heads", self._look))
        try:
            await self._stopping.wait()
            for task in self._tasks:
                await task
        finally:
            await end_tasks(*beside, *self._tasks)
            await self._notifier.close()
            for feed in self._feeds.values():
                await feed.close()

    def wake(self) -> None:
        """Makes the runner read the heads of all ledgers now, because there may be new events."""
        self._woken.set()

    def stop(self) -> None:
        """Makes `run` return after the current batches are written."""
        self._stopping.set()
        self._woken.set()
        for heard in self._heard.values():
            heard.set()
        for feed in self._feeds.values():
            feed.nudge()

    def states(self) -> list[FollowerState]:
        """Returns the states of the followers of all ledgers."""
        return [follower.state() for follower in self._followers]

    async def _look(self) -> None:
        """Reads the heads of all ledgers at regular intervals and after `wake`. Starts followers for new ledgers."""
        failing = False
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                async with self._engine.connect() as connection:
                    heads = await read_heads(connection)
            except POSTGRES_AND_REDIS_ERRORS as error:
                if not failing:
                    log.error("the log cannot be read", error=kind_of(error))  # noqa: TRY400 # an outage needs no traceback
                failing = True
            else:
                failing = False
                for ledger_id, (head, _) in heads.items():
                    self._feed(ledger_id).move_to(head)
            await wait(self._woken, self._look_seconds)

    def _feed(self, ledger_id: str) -> Feed:
        feed = self._feeds.get(ledger_id)
        if feed is None:
            feed = self._feeds[ledger_id] = Feed(self._engine, ledger_id, self._person_keys, self._reading)
            self._heard[ledger_id] = asyncio.Event()
            self._tasks.append(keep_running("readers of logs", partial(self._hear, feed, self._heard[ledger_id])))
            for projection in self._projections:
                attempts = ApplyAttempts(self._attempts_max, self._letters_max)
                generations = Generations(projection, self._sinks[projection.model.store], feed, attempts)
                follower = Follower(generations, self._failures, self._notifier, self._events_max, self._stopping)
                self._followers.append(follower)
                self._tasks.append(keep_running("followers of logs", follower.run))
        return feed

    async def _hear(self, feed: Feed, heard: asyncio.Event) -> None:
        """Reads a ledger's new events after each wake-up: once for all its followers, and without reading the head first."""
        while not self._stopping.is_set():
            try:
                is_all = await feed.look()
            except Exception:  # noqa: BLE001 # the followers meet the same error and report it
                is_all = False
            if not is_all:
                self.wake()
            await heard.wait()
            heard.clear()

    async def _report(self) -> None:
        """Publishes the progress of the followers at regular intervals. While Redis does not answer, nothing is published."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_SECONDS)
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                await publish_reports(self._redis, self._id, [follower.report() for follower in self._followers], task_health())

    async def _listen(self) -> None:
        """Receives wake-ups from Redis. While Redis does not answer, the log is still read at regular intervals."""
        while True:
            with suppress(*POSTGRES_AND_REDIS_ERRORS):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE_CHANNEL, LOST_CHANNEL)
                    # Wake-ups that were sent before the subscription are lost, so read the heads once now.
                    self.wake()
                    while True:
                        if message := await channel.get_message(timeout=self._look_seconds):
                            self._take(message["channel"], message["data"])
            await asyncio.sleep(self._look_seconds)

    def _take(self, channel: str, ledger_id: str) -> None:
        heard, feed = self._heard.get(ledger_id), self._feeds.get(ledger_id)
        (heard or self._woken).set()
        if feed and channel == LOST_CHANNEL:
            feed.doubt()
