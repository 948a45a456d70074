"""Child processes that never outlive us and never see our terminal's Ctrl-C.

Each child is a session of its own, so that the supervisor alone decides in which order things end, and has a death signal, so
that the kernel ends it even when we are killed with -9. The kernel ties that signal to the *thread* that started the child:
start children in the main thread only.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.errors import StackError

LOOK_SECONDS: Final = 0.03
KILL_SECONDS: Final = 2.0
LINE_MAX: Final = 300

Command = Sequence[str | Path]


class Child:
    """One process: started, watched, signalled and ended by us; what it prints goes to its log."""

    stop_signal = signal.SIGTERM
    stop_seconds = 6.0
    shuns_root = False

    def __init__(
        self,
        name: str,
        log: Path,
        command: Command = (),
        *,
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """`environment` is added to ours; `inherit` are file descriptors that the child keeps open."""
        self.name = name
        self.log = log
        self.command = command
        self.environment = environment or {}
        self.inherit = inherit
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.spawn(self.command)

    def spawn(self, command: Command) -> None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StackError("nothing can be started without `setpriv`: install the package util-linux")
        # A log is for its owner only: what servers print can hold what people typed.
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.process = subprocess.Popen(
                [setpriv, "--pdeathsig", self.stop_signal.name[3:], *(drop_root() if self.shuns_root else ()), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                pass_fds=self.inherit,
                start_new_session=True,
            )
        finally:
            os.close(out)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise StackError(f"{self.name} was never started")
        return self.process.pid

    async def ended(self, within_seconds: float | None = None) -> bool:
        """Waits until the process has ended, for so long at most; says whether it has."""
        end = None if within_seconds is None else time.monotonic() + within_seconds
        while self.running:
            if end is not None and time.monotonic() > end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def stop(self) -> None:
        """Asks the process to end; kills it if it does not."""
        if self.running:
            self.signal(signal.SIGCONT, self.stop_signal)
            if not await self.ended(self.stop_seconds):
                await self.kill()

    async def kill(self) -> None:
        """Ends the process and its own children as a loss of power would: nothing is flushed, nobody is told."""
        pids = family(self.pid) if self.running else []
        for pid in pids:
            _send(pid, signal.SIGKILL)
        await self.ended(KILL_SECONDS)
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(LOOK_SECONDS)

    def signal(self, *signals: signal.Signals) -> None:
        if self.running:
            for each in signals:
                _send(self.pid, each)

    def freeze(self) -> None:
        """Stops the process and its children where they are: connections stay open and nothing answers."""
        for pid in family(self.pid):
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in family(self.pid):
            _send(pid, signal.SIGCONT)

    def outcome(self) -> str:
        """For people: the exit code, or the signal that ended it."""
        code = self.process.poll() if self.process else None
        if code is None:
            return "still runs"
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def last_words(self) -> str:
        """For people: how it ended, where its log is, and the end of that."""
        return "\n  ".join([f"{self.outcome()}; from {self.log}:", *last_lines(self.log)])


def last_lines(log: Path, count: int = 5) -> list[str]:
    try:
        with log.open(errors="replace") as lines:
            return [line.strip()[:LINE_MAX] for line in deque(lines, maxlen=count)]
    except FileNotFoundError:
        return []


def family(pid: int) -> list[int]:
    """The process and its children; PostgreSQL's are sessions of their own, which no signal to a group reaches."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]


def alive(pid: int) -> bool:
    """Not so for a process that has ended and that its parent has not asked about yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "XZ"


def _send(pid: int, signal_: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal_)


# ── root ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CAPABILITIES: Final = {"dac_read_search": 2, "dac_override": 1}
"""Bits of the two capabilities that let a process into folders that are closed to its user; the weaker one first."""


def unprivileged() -> pwd.struct_passwd | None:
    """Who a server that refuses to be root runs as; None when we are not root and it runs as we do."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def drop_root() -> list[str]:
    """Arguments of setpriv. The capability is for a checkout below a folder closed to others, such as /root."""
    user = unprivileged()
    if user is None:
        return []
    arguments = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    held = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    for name, bit in _CAPABILITIES.items():
        if held >> bit & 1:
            return [*arguments, f"--inh-caps=+{name}", f"--ambient-caps=+{name}"]
    return arguments
