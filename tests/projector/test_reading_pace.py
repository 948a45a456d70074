"""A worker waits for more events while many come, and reads at once while few do. All times here are virtual."""

import asyncio
from itertools import pairwise
from typing import Any, Final

import pytest

from projector.followed_ledger import FollowedLedger
from projector.reading_pace import BUSY, CALM, ReadingPace
from shared.errors import LogDamaged
from tests.simulation.virtual_time import VirtualLoop, run_virtually

LONGEST: Final = 0.3
WAKE_SECONDS: Final = 0.01
SECONDS: Final = 10


def wait_after(pace: ReadingPace, rate: int, seconds: float = 5, begin: float = 0) -> float:
    """Reads a log that gets events at this rate for some seconds, and returns the wait after the last read."""
    now, counted, wait = begin, 0, 0.0
    while now < begin + seconds:
        now += max(wait, WAKE_SECONDS)
        events = int((now - begin) * rate) - counted
        counted += events
        wait = pace.wait_seconds(events, now)
    return wait


@pytest.mark.parametrize("rate", [1, 30, 200, CALM - 20])
def test_few_events_a_second_wait_for_nothing(rate: int) -> None:
    assert wait_after(ReadingPace(LONGEST), rate) == 0


def test_the_wait_grows_with_the_rate_up_to_the_longest() -> None:
    waits = [wait_after(ReadingPace(LONGEST), rate) for rate in (CALM + 100, CALM + 200, CALM + 400, BUSY, 20 * BUSY)]
    assert waits == sorted(waits)
    assert 0 < waits[0] < waits[1] < waits[2] < LONGEST
    assert waits[3] == waits[4] == LONGEST


def test_the_first_event_after_a_quiet_moment_waits_for_nothing_more() -> None:
    pace = ReadingPace(LONGEST)
    assert wait_after(pace, 5_000) == LONGEST
    assert pace.wait_seconds(1, 5 + LONGEST + 4) == 0


def test_without_a_longest_wait_nothing_ever_waits() -> None:
    assert wait_after(ReadingPace(0), 20 * BUSY) == 0


class GrowingLog:
    """A log that gets events at a steady rate. Stands for a feed, and notes when it is read, and when it is moved to a head."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.head = 0
        self.read_at: list[float] = []
        self.moved_at: list[float] = []
        self.is_damaged = False

    async def look(self) -> bool:
        now = asyncio.get_running_loop().time()
        self.read_at.append(now)
        if self.is_damaged:
            raise LogDamaged("for the test")
        self.head = self.end()
        return True

    def end(self) -> int:
        return int(asyncio.get_running_loop().time() * self._rate)

    def move_to(self, head: int) -> None:
        if head != self.head:
            self.head = head
            self.moved_at.append(asyncio.get_running_loop().time())

    def nudge(self) -> None:
        pass

    async def close(self) -> None:
        pass


def follow(log: GrowingLog) -> float:
    """Follows a log that wakes its worker all the time, and tells it where it ends. Returns how long the ledger took to stop."""

    async def main(loop: VirtualLoop) -> float:
        feed: Any = log
        ledger = FollowedLedger(feed, {}, asyncio.Event(), lambda: None, ReadingPace(LONGEST))
        ledger.start(asyncio.Semaphore())
        while loop.time() < SECONDS:
            ledger.hear()
            await asyncio.sleep(WAKE_SECONDS)
            ledger.move_to(log.end())
        begin = loop.time()
        ledger.stop()
        await ledger.close()
        return loop.time() - begin

    stopping: float = run_virtually(main, 2 * SECONDS)
    return stopping


def test_a_ledger_with_few_events_is_read_after_each_wake_up() -> None:
    log = GrowingLog(200)
    follow(log)
    assert len(log.read_at) >= SECONDS / WAKE_SECONDS - 2


def test_a_ledger_with_many_events_is_read_seldom_and_never_later_than_the_longest_wait() -> None:
    log = GrowingLog(2_000)
    follow(log)
    assert len(log.read_at) < 0.1 * SECONDS / WAKE_SECONDS
    assert max(after - before for before, after in pairwise(log.read_at)) <= LONGEST + 2 * WAKE_SECONDS
    assert len(log.moved_at) <= len(log.read_at), "the end of the log, told during the wait, made followers read"


def test_followers_learn_where_a_log_ends_that_cannot_be_read() -> None:
    log = GrowingLog(2_000)
    log.is_damaged = True
    follow(log)
    assert log.head >= SECONDS * 2_000 - 2_000 * (LONGEST + 2 * WAKE_SECONDS)


def test_a_stop_does_not_wait_for_more_events() -> None:
    assert follow(GrowingLog(2_000)) < WAKE_SECONDS
