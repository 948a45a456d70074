"""Keeps the endless tasks of a process running, and counts their failures.

A task that must not end is started with `keep_running`. If it raises, it is run again after a pause. The pauses grow until a run
has lasted `WELL_SECONDS`, so that a task that gets a little further each time does not fail many times a second. `task_health`
tells how the tasks of this process are, for `/readyz` and `/metrics`. A task that is started in any other way must end by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final
from weakref import WeakSet

import msgspec
import structlog

from shared.backoff import backoff_seconds
from shared.logs import kind_of

log = structlog.get_logger()

RESTART_SECONDS: Final = (0.1, 30.0)
"""The pause in seconds after the first failure, and the longest pause."""

CANCEL_AGAIN_SECONDS: Final = 0.2
"""The pause in seconds before `end_tasks` cancels a task again that has not ended."""

WELL_SECONDS: Final = RESTART_SECONDS[1]
"""A run that has lasted this long is well. The failures before it no longer count."""


class TaskHealth(msgspec.Struct, frozen=True):
    """How the tasks of one name are doing: how often they failed since the process started, and how many are not well now.

    `cause` is the kind of the last failure. It contains no data.
    """

    failures: int
    failing: int
    cause: str

    def with_more(self, other: "TaskHealth") -> "TaskHealth":
        """Returns the health of the tasks of this name in both processes."""
        causes = dict.fromkeys(health.cause for health in (self, other) if health.cause)
        return TaskHealth(self.failures + other.failures, self.failing + other.failing, ", ".join(causes))


class _EndlessTask:
    """One task: how often it failed without a good run in between, and when its current run began."""

    def __init__(self) -> None:
        self.failed = 0
        self.began_at = 0.0

    def is_failing(self) -> bool:
        return self.failed > 0 and asyncio.get_running_loop().time() - self.began_at < WELL_SECONDS


class _TasksOfName:
    def __init__(self) -> None:
        self.failures = 0
        self.cause = ""
        self.running: WeakSet[_EndlessTask] = WeakSet()


# One process has one set of endless tasks, so that every room can start one without being handed an object for it.
_tasks: Final[dict[str, _TasksOfName]] = {}


def keep_running(name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Starts a task that runs `run`, and runs it again whenever it raises. The task ends when `run` returns, or if cancelled.

    Give tasks of one kind the same name, without an id: the name is shown to people who may not know the ids.
    """
    return asyncio.create_task(_keep_running(name, run), name=name)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks and waits until all of them have ended. Ignores their errors.

    Cancels a task again if it does not end. In Python 3.11, `asyncio.wait_for`, which redis-py uses, loses a cancellation that
    arrives when its future is already done.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # asyncio would print an error that nobody has asked for


def task_health() -> dict[str, TaskHealth]:
    """Returns the health of all endless tasks of this process that were ever started, by name."""
    return {
        name: TaskHealth(tasks.failures, sum(task.is_failing() for task in tasks.running), tasks.cause)
        for name, tasks in _tasks.items()
    }


def tasks_in_words(tasks: Mapping[str, TaskHealth]) -> str:
    """Returns the health of endless tasks in one line for operators."""
    failing = [f"{name} ({health.cause})" for name, health in tasks.items() if health.failing]
    return f"degraded: failed and started again: {', '.join(failing)}" if failing else "ok"


async def _keep_running(name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    tasks, this = _tasks.setdefault(name, _TasksOfName()), _EndlessTask()
    tasks.running.add(this)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    while True:
        this.began_at = loop.time()
        try:
            return await run()
        # Also a CancelledError that nobody sent to this task: for example, a future that it awaited was cancelled.
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            this.failed = this.failed + 1 if loop.time() - this.began_at < WELL_SECONDS else 1
            this.began_at = loop.time()
            tasks.failures, tasks.cause = tasks.failures + 1, type(error).__name__
            seconds = backoff_seconds(this.failed, RESTART_SECONDS)
            about = {"task": name, "error": kind_of(error), "again_in_seconds": round(seconds, 2)}
            log.error("task failed", **about, exc_info=error)  # noqa: TRY400 # also for a CancelledError
        await asyncio.sleep(seconds)
