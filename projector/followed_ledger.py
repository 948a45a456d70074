"""Follows one ledger that has moved recently: its feed, a follower for each read model, and their tasks."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from projector.examiner import LedgerFindings
from projector.feed import Feed
from projector.follower import FollowedGeneration, Follower, FollowerState, wait
from projector.reading_pace import ReadingPace
from shared.read_models.worker_reports import ReadModelReport
from shared.supervision import end_tasks, keep_running

SETTLE_SECONDS: Final = 2.0
"""The next ledger starts after this time, even if the read models of the one before are still being built."""


class FollowedLedger:
    """Keeps all read models of one ledger up with its log, from `start` to `close`."""

    def __init__(
        self,
        feed: Feed,
        followers: Mapping[str, Follower],
        stopping: asyncio.Event,
        wake: Callable[[], None],
        pace: ReadingPace,
    ) -> None:
        """Creates the object. `stopping` ends the followers. `wake` is called when the log may have more than was read.

        `pace` is that of the worker.
        """
        self.feed = feed
        self._followers = followers
        self._stopping = stopping
        self._wake = wake
        self._pace = pace
        self._heard = asyncio.Event()
        self._is_gathering = False
        self._told = 0
        """A head of the log that came while the ledger waited for more events."""
        self._starting: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._heard_at = asyncio.get_running_loop().time()

    # ── following ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, starting: asyncio.Semaphore) -> None:
        """Starts the followers as soon as `starting` permits. It is held until they have caught up, or for `SETTLE_SECONDS`."""
        self._starting = keep_running("starters of followers", partial(self._start, starting))

    async def _start(self, starting: asyncio.Semaphore) -> None:
        async with starting:
            self._tasks.append(keep_running("readers of logs", self._hear))
            self._tasks += [keep_running("followers of logs", follower.run) for follower in self._followers.values()]
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    for follower in self._followers.values():
                        await follower.settled.wait()

    def hear(self, *, has_lost_data: bool = False) -> None:
        """Takes a message that there are new events, or that a read model has lost data."""
        self._heard_at = asyncio.get_running_loop().time()
        self._heard.set()
        if has_lost_data:
            self.feed.doubt()

    def move_to(self, head: int) -> None:
        """Takes the position at which the log ends. While the ledger waits for more events, only the next read follows it."""
        self._heard_at = asyncio.get_running_loop().time()
        if self._is_gathering and head > self.feed.head:
            self._told = head
            self._heard.set()
        else:
            self._told = 0
            self.feed.move_to(head)

    async def _hear(self) -> None:
        """Reads new events after each message: once for all followers, and without reading the head first.

        While many events come, waits between two reads. What is recorded meanwhile is in the next batch.
        """
        loop, counted = asyncio.get_running_loop(), self.feed.head
        while not self._stopping.is_set():
            try:
                is_all = await self.feed.look()
            except Exception:  # noqa: BLE001 # the followers meet the same error and report it
                is_all = False
            if not is_all:
                self._wake()
            if self._told > self.feed.head:  # the read failed, and the followers must learn why
                self.feed.move_to(self._told)
            self._told = 0
            events, counted = max(self.feed.head - counted, 0), self.feed.head
            await self._gather(self._pace.wait_seconds(events, loop.time()))
            await self._heard.wait()
            self._heard.clear()

    async def _gather(self, seconds: float) -> None:
        if not seconds:
            return
        self._is_gathering = True
        try:
            await wait(self._stopping, seconds)
        finally:
            self._is_gathering = False

    def stop(self) -> None:
        """Makes the followers end after their current batches."""
        self._stopping.set()
        self._heard.set()
        self.feed.nudge()

    async def close(self) -> None:
        """Waits until the followers have ended. Call `stop` before."""
        if self._starting:
            await end_tasks(self._starting)
        for task in self._tasks:
            await task
        await self.end()

    async def end(self) -> None:
        """Ends the followers at once."""
        await end_tasks(*filter(None, [self._starting]), *self._tasks)
        await self.feed.close()

    # ── what is known of it ──────────────────────────────────────────────────────────────────────────────────────────

    def reports(self) -> Sequence[ReadModelReport]:
        return [follower.report() for follower in self._followers.values()]

    def states(self) -> Sequence[FollowerState]:
        return [follower.state() for follower in self._followers.values()]

    def following(self) -> Mapping[str, FollowedGeneration | None]:
        """Returns the generation that each follower follows, by the name of the read model."""
        return {name: follower.following() for name, follower in self._followers.items()}

    def is_idle(self, seconds: float) -> bool:
        """Returns True if every read model is at the end of the log, and nothing was heard of the ledger for so long."""
        is_quiet = asyncio.get_running_loop().time() - self._heard_at >= seconds
        return is_quiet and all(each and each.position == self.feed.head for each in self.following().values())

    def compare(self, findings: LedgerFindings, before: Mapping[str, FollowedGeneration | None]) -> None:
        """Makes followers open their read model again, if the stores say something else of it than they know.

        `before` is what `following` returned before the examination began. A follower moves forward meanwhile, and never back.
        """
        if findings.head > self.feed.head:
            self.move_to(findings.head)
        for name, follower in self._followers.items():
            found, known = findings.models.get(name), before.get(name)
            is_other = found and known and (found.number != known.number or found.position < known.position)
            if not found or not found.is_sound or is_other:
                follower.doubt()
