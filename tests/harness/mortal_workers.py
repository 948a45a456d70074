"""Starts real workers that die or freeze at one place: `python -m tests.harness.mortal_workers FILE`.

The program reads one `Fate` from each line of stdin, starts a worker with that fate, and prints the worker's process id. Workers
are forked from this process, which has imported everything. A worker therefore starts quickly, and one test can kill hundreds.
Just before a worker dies or freezes, it writes the names of its points to FILE, which proves that it came to them.
"""

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Final

import msgspec
import pymongo.monitoring
import uvloop
from arq.worker import run_worker
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from projector import examiner, failures, feed, followed_ledger, follower, live_workers, runner
from projector.generations import build, generations
from projector.live_workers import ALIVE_KEY
from projector.projections.accounts import project_accounts
from projector.projections.balances import project_balances
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS
from projector.sinks import mongo, mongo_transactions, redis
from projector.worker import make_worker_settings
from shared.log.events import RecordedEvent
from shared.settings import read_settings
from tests.harness.await_points import Moment, Point, watch

PATH: Final = (
    *(feed, build, generations, runner, followed_ledger, follower, examiner, live_workers),
    *(mongo, mongo_transactions, redis, failures),
)
"""The modules that carry an event from the log to the read models."""

POISON: Final = "MORTAL_POISON"
"""If this environment variable is set, two read models cannot apply one event in `POISONED_EVERY`."""

POISONED_EVERY: Final = 20
_DEATH_WITH_PARENT: Final = 1

Note = Callable[[bytes], object]
"""Writes down where a process dies."""


def poisoned(every: int) -> list[Projection[Any]]:
    """Returns all projections, of which `accounts` and `balances` fail for every `every`-th event.

    MongoDB rejects the change that `accounts` makes. The function of `balances` raises, or Redis rejects its change.
    """

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
    """Says when a worker gets `signal`: when it reaches a point for the `nth` time, plus a random delay of up to `late` seconds.

    Without a point, the worker gets no signal. If it has not reached the point within `patience` seconds, it gets the signal at
    the next of the `otherwise` points. If `life` is set, it exits after that many seconds. Both times start at the worker's first
    point, because a busy machine may start it slowly.

    `command` replaces the point for a transaction of MongoDB, in which a thread writes without an `await`: one of several read
    models, or of one that is `alone`. Its commands are numbered from 1; `asleep`: the command was sent, `awake`:
    it was answered.
    """

    function: str = ""
    number: int = 0
    otherwise: frozenset[Point] = frozenset()
    patience: float = 0.0
    life: float = 0.0
    command: int = 0
    alone: bool = False
    moment: Moment = "asleep"
    nth: int = 1
    late: float = 0.0
    signal: int = signal.SIGKILL


class Commands(threading.local, CommandListener):
    """Sends a worker its signal in the middle of a MongoDB transaction that a thread writes, where the code awaits nothing."""

    def __init__(self, fate: Fate, note: Note, times: Iterator[int]) -> None:
        self._fate = fate
        self._note = note
        self._times = times  # shared by all threads
        self._command = 0

    def started(self, event: CommandStartedEvent) -> None:
        command = event.command
        if "startTransaction" in command:
            is_batch = event.command_name == "update" and (len(command["updates"]) > 1) != self._fate.alone
            self._command = 1 if is_batch else 0
        elif self._command:
            self._command += 1
        self._reached("asleep")

    def succeeded(self, _event: CommandSucceededEvent) -> None:
        self._reached("awake")

    def failed(self, _event: CommandFailedEvent) -> None:
        """Does nothing: a command fails when another worker has written first."""

    def _reached(self, moment: Moment) -> None:
        if (self._command, moment) == (self._fate.command, self._fate.moment) and next(self._times) == self._fate.nth:
            self._note(f"{Point('command', self._fate.command)}\n".encode())
            # To the thread, not to the process: the other threads would get the signal first, and this one would go on meanwhile.
            signal.pthread_kill(threading.get_ident(), self._fate.signal)


def meeting(fate: Fate, note: Note) -> Callable[[list[Point], Moment], None]:
    """Returns what `watch` calls at each point. It notes the points of this process and sends it its signal when it is time."""
    point = Point(fate.function, fate.number)
    left = fate.nth
    born = 0.0

    def meet(points: list[Point]) -> None:
        note("".join(f"{point}\n" for point in points).encode())
        os.kill(os.getpid(), fate.signal)

    def reached(points: list[Point], moment: Moment) -> None:
        nonlocal left, born
        if not born:
            born = time.monotonic()
            if fate.life:
                _end_after(fate.life)
        if left > 0 and not fate.otherwise.isdisjoint(points) and time.monotonic() > born + fate.patience:
            left = 0
            meet(points)
            return
        if moment != fate.moment or point not in points:
            return
        left -= 1
        if left:
            return
        if fate.late:
            threading.Timer(random.uniform(0, fate.late), meet, [points]).start()
        else:
            meet(points)

    return reached


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, [0])
    timer.daemon = True
    timer.start()


def fork_each(live: Callable[[Fate, Note], None]) -> None:
    """Reads fates from stdin, and forks a process for each of them, which runs `live` and exits."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # this process does not wait for those that have ended
    noted = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for line in sys.stdin.buffer:
        fate = msgspec.json.decode(line, type=Fate)
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(_DEATH_WITH_PARENT, signal.SIGKILL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(2, 1)  # the test reads process ids from the parent's stdout
            live(fate, partial(os.write, noted))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _work(fate: Fate, note: Note) -> None:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    watch(loop, PATH, meeting(fate, note))
    if fate.command:
        pymongo.monitoring.register(Commands(fate, note, count(1)))
    projections = poisoned(POISONED_EVERY) if POISON in os.environ else PROJECTIONS
    # Each of these workers takes itself for the only one, so that they get in each other's way as much as they can.
    run_worker(make_worker_settings(read_settings(), projections, f"{ALIVE_KEY}:{os.getpid()}"))


if __name__ == "__main__":
    fork_each(_work)
