"""Starts the processes that `mortal_workers` and `mortal_schedulers` fork, and follows what becomes of them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable
from typing import Any

import msgspec

from shared.settings import Settings
from tests.harness.await_points import Point, parse_point
from tests.harness.mortal_workers import Fate
from tests.harness.running import environment_of


class Nursery:
    """Starts processes with a fate, and knows which fates were met."""

    def __init__(self, folder: Path, settings: Settings, program: str, **more: str) -> None:
        self._met = folder / "met"
        self._log = (folder / "processes.log").open("wb")
        command = [executable, "-m", program, str(self._met)]
        environment = os.environ | environment_of(settings) | more
        self._parent = Popen(command, stdin=PIPE, stdout=PIPE, stderr=self._log, env=environment)
        self._pids: set[int] = set()
        self._asking = asyncio.Lock()

    async def start(self, fate: Fate) -> int:
        async with self._asking:
            return await asyncio.to_thread(self._start, fate)

    def _start(self, fate: Fate) -> int:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.write(msgspec.json.encode(fate) + b"\n")
        self._parent.stdin.flush()
        pid = int(self._parent.stdout.readline())
        self._pids.add(pid)
        return pid

    def notes(self) -> list[Point]:
        """Where processes died or froze, in the order in which they did. One death has the points of all functions that wait."""
        lines = self._met.read_text().splitlines() if self._met.exists() else []
        return [*map(parse_point, lines)]

    def met(self) -> set[Point]:
        return set(self.notes())

    def is_alive(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        self._pids.discard(pid)
        return False

    def is_going(self, pid: int) -> bool:
        """False for a process that has died or is frozen."""
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "T"

    async def kill(self, pid: int) -> None:
        self.signal(pid, signal.SIGKILL)
        while self.is_alive(pid):
            await asyncio.sleep(0.005)

    def signal(self, pid: int, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def close(self) -> None:
        for pid in self._pids:
            self.signal(pid, signal.SIGKILL)
        self._parent.kill()
        self._parent.wait()
        for pipe in (self._parent.stdin, self._parent.stdout):
            assert pipe
            pipe.close()
        self._log.close()


@contextmanager
def nursery(folder: Path, settings: Settings, program: str = "tests.harness.mortal_workers", **more: str) -> Iterator[Nursery]:
    """Yields a nursery of this program. `more` are environment variables on top of the settings."""
    opened = Nursery(folder, settings, program, **more)
    try:
        yield opened
    finally:
        opened.close()


@asynccontextmanager
async def meanwhile(*coroutines: Any) -> AsyncIterator[None]:
    """They run as long as the block does; if one fails, so does the test."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        running = set(tasks)
        while running:
            # More than once: a driver may take a cancellation for the end of its own time.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=1)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        assert isinstance(result, asyncio.CancelledError), result
