"""Real workers that die, or freeze, at one place: `python -m tests.mortal_workers FILE`.

Reads one fate a line and answers with the process id of a worker that meets it. Workers are forked from this process, which has
imported everything: so one starts in a moment, and hundreds can die in a test. What a worker writes to FILE just before it meets
its fate says that it did.
"""

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

import msgspec
import pymongo.monitoring
import uvloop
from arq.worker import run_worker
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from projector import feed, generations, runner, sinks, troubles
from projector.projections import PROJECTIONS, Projection, project_accounts, project_balances
from projector.worker import make_worker_settings
from shared.events import RecordedEvent
from shared.settings import read_settings
from tests.await_points import Moment, Point, watch

PATH: Final = (feed, generations, runner, sinks, troubles)
"""The modules that an event comes through from the log to the read models."""

POISON: Final = "MORTAL_POISON"
"""In the environment: one event in `POISONED_EVERY` cannot be applied to two of the read models."""

POISONED_EVERY: Final = 20
_DEATH_WITH_PARENT: Final = 1


def poisoned(every: int) -> list[Projection[Any]]:
    """`accounts`, as MongoDB refuses what comes of it, and `balances`, as its function raises, or Redis refuses."""

    def accounts(changes: Any, recorded: RecordedEvent, event: Any) -> None:
        project_accounts(changes, recorded, event)
        if recorded.position % every == 0:
            changes.change("nobody", {"status": "open"}, {})

    def balances(changes: Any, recorded: RecordedEvent, event: Any) -> None:
        if recorded.position % (2 * every) == 0:
            raise RuntimeError
        project_balances(changes, recorded, event)
        if recorded.position % every == 0:
            changes.push(f"account:{event.account_id}", "a list?", 1)

    functions = {"accounts": accounts, "balances": balances}
    return [msgspec.structs.replace(each, project=functions.get(each.name, each.project)) for each in PROJECTIONS]


class Fate(msgspec.Struct, frozen=True):
    """`signal` at the `nth` time that a worker comes to a point; at any time for none. `late`: up to so many seconds later.

    Or at a command, counted from 1, of a transaction for several read models: `asleep` when it is sent, `awake` when answered.
    """

    file: str = ""
    line: int = 0
    command: int = 0
    moment: Moment = "asleep"
    nth: int = 1
    late: float = 0.0
    signal: int = signal.SIGKILL


class Commands(threading.local, CommandListener):
    """Meets the fate of a worker in the middle of a transaction that one thread writes in one go, where nothing is awaited."""

    def __init__(self, fate: Fate, note: Callable[[bytes], object]) -> None:
        self._fate = fate
        self._note = note
        self._command = 0

    def started(self, event: CommandStartedEvent) -> None:
        command = event.command
        if "startTransaction" in command:
            self._command = 1 if event.command_name == "update" and len(command["updates"]) > 1 else 0
        elif self._command:
            self._command += 1
        self._reached("asleep")

    def succeeded(self, _event: CommandSucceededEvent) -> None:
        self._reached("awake")

    def failed(self, _event: CommandFailedEvent) -> None:
        """Another worker was first."""

    def _reached(self, moment: Moment) -> None:
        if (self._command, moment) == (self._fate.command, self._fate.moment):
            self._note(f"command:{self._fate.command}\n".encode())
            os.kill(os.getpid(), self._fate.signal)


def _meeting(fate: Fate, note: Callable[[bytes], object]) -> Callable[[list[Point], Moment], None]:
    left = fate.nth

    def meet(points: list[Point]) -> None:
        note("".join(f"{point.file}:{point.line}\n" for point in points).encode())
        os.kill(os.getpid(), fate.signal)

    def reached(points: list[Point], moment: Moment) -> None:
        nonlocal left
        if moment != fate.moment or (fate.file, fate.line) not in points:
            return
        left -= 1
        if left:
            return
        if fate.late:
            threading.Timer(random.uniform(0, fate.late), meet, [points]).start()
        else:
            meet(points)

    return reached


def _work(fate: Fate, noted: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_DEATH_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(2, 1)  # the parent's answers are read from 1
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    note = partial(os.write, noted)
    watch(loop, PATH, _meeting(fate, note))
    if fate.command:
        pymongo.monitoring.register(Commands(fate, note))
    run_worker(make_worker_settings(read_settings(), poisoned(POISONED_EVERY) if POISON in os.environ else PROJECTIONS))
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for the dead
    noted = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for line in sys.stdin.buffer:
        fate = msgspec.json.decode(line, type=Fate)
        pid = os.fork()
        if pid == 0:
            _work(fate, noted)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
