"""Endless tasks: they go on after any error, with growing pauses, and are counted."""

import asyncio
from itertools import count

import pytest

from shared.supervision import end_tasks, keep_running, task_health, tasks_in_words


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(120):
        await event.wait()


async def test_a_task_that_raises_is_run_again_and_counted() -> None:
    """The third run is well, and the health tells of both failures and of their cause."""
    runs, well = count(1), asyncio.Event()

    async def fail_twice() -> None:
        if next(runs) < 3:
            raise ZeroDivisionError("secret")
        well.set()
        await asyncio.Event().wait()

    task = keep_running("fails twice", fail_twice)
    await until(well)
    health = task_health()["fails twice"]
    assert (health.failures, health.failing, health.cause) == (2, 1, "ZeroDivisionError")
    assert "fails twice (ZeroDivisionError)" in tasks_in_words(task_health())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_pauses_grow_also_if_each_run_gets_a_little_further() -> None:
    """A task that fails after some progress is run a few times in the first seconds, not many times a second."""
    loop = asyncio.get_running_loop()
    begun: list[float] = []
    enough = asyncio.Event()

    async def progress_and_fail() -> None:
        begun.append(loop.time())
        if len(begun) == 5:
            enough.set()
        await asyncio.sleep(0)
        raise OSError

    task = keep_running("gets a little further", progress_and_fail)
    await until(enough)
    task.cancel()
    # The pauses are at least 0.05, 0.1, 0.2 and 0.4 seconds, because chance takes away at most half of each.
    assert begun[-1] - begun[0] > 0.74


async def test_a_task_goes_on_after_a_future_that_it_awaited_was_cancelled() -> None:
    """Only a cancellation of the task itself ends it."""
    runs, well = count(1), asyncio.Event()

    async def await_a_cancelled_future() -> None:
        if next(runs) == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        well.set()

    task = keep_running("awaits a cancelled future", await_a_cancelled_future)
    await until(well)
    await task
    assert task_health()["awaits a cancelled future"].failures == 1


async def test_a_task_that_returns_is_not_run_again() -> None:
    runs: list[int] = []

    async def end() -> None:
        runs.append(1)

    await keep_running("ends", end)
    assert (len(runs), task_health()["ends"].failures) == (1, 0)


async def test_a_task_that_loses_its_first_cancellation_is_ended_all_the_same() -> None:
    """`asyncio.wait_for` of Python 3.11 loses one, and a worker that waited for the task would never stop."""
    began, lost = asyncio.Event(), 0

    async def lose_one() -> None:
        nonlocal lost
        while not lost:
            try:
                began.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = keep_running("loses a cancellation", lose_one)
    await until(began)
    async with asyncio.timeout(120):
        await end_tasks(task)
    assert task.cancelled()
    assert lost == 1
