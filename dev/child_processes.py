"""Runs child processes that always end with their parent and never receive a Ctrl-C from the terminal.

Each child runs in its own operating-system session, so that only the parent decides in which order processes end. Each child has
a death signal: the kernel ends it even if the parent is killed with -9. The kernel sends this signal when the *thread* that
started the child ends, so start children only in the main thread.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.errors import StackError
from shared.private_files import open_private_log

LOOK_SECONDS: Final = 0.03
KILL_SECONDS: Final = 2.0
LINE_MAX: Final = 300
LAST_BYTES_MAX: Final = 65_536

_IF_PARENT_LIVES: Final = '[ "$PPID" = "$0" ] && exec "$@"'
"""Runs the command only if the parent still lives. One that died before the child asked for its death signal sends none."""

ProgramArguments = Sequence[str | Path]


class Child:
    """A child process. Everything that it prints is appended to its log file."""

    stop_signal = signal.SIGTERM
    stop_seconds = 6.0
    shuns_root = False

    def __init__(
        self,
        name: str,
        log: Path,
        command: ProgramArguments = (),
        *,
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """Defines a child. It gets this process's environment and `environment`. It keeps the file descriptors `inherit` open."""
        self.name = name
        self.log = log
        self.command = command
        self.environment = environment or {}
        self.inherit = inherit
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.spawn(self.command)

    def spawn(self, command: ProgramArguments) -> None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StackError("`setpriv` was not found, but it is needed to start processes: install the package util-linux")
        # Only the owner may read a log file, because servers may print personal data.
        out = open_private_log(self.log)
        try:
            self.process = subprocess.Popen(
                [
                    *(setpriv, "--pdeathsig", self.stop_signal.name[3:], *(drop_root() if self.shuns_root else ())),
                    *("sh", "-c", _IF_PARENT_LIVES, str(os.getpid()), *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**_environment(), **self.environment},
                pass_fds=self.inherit,
                start_new_session=True,
                umask=0o077,
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
        """Waits until the process has ended. Returns False if it still runs after `within_seconds`."""
        end = None if within_seconds is None else time.monotonic() + within_seconds
        while self.running:
            if end is not None and time.monotonic() > end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def stop(self) -> None:
        """Asks the process to end, and kills it if it still runs after `stop_seconds`."""
        if self.running:
            self.thaw()
            _send(self.pid, self.stop_signal)
            if not await self.ended(self.stop_seconds):
                await self.kill()

    async def kill(self) -> None:
        """Kills the process and its children with SIGKILL, so that they cannot write anything first, as in a loss of power."""
        pids = family(self.pid) if self.running else []
        for pid in pids:
            _send(pid, signal.SIGKILL)
        await self.ended(KILL_SECONDS)
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(LOOK_SECONDS)

    def freeze(self) -> None:
        """Suspends the process and its children. Their connections stay open, but they do not answer."""
        for pid in family(self.pid):
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in family(self.pid):
            _send(pid, signal.SIGCONT)

    def outcome(self) -> str:
        """Returns the exit code, or the name of the signal that ended the process, as text for people."""
        code = self.process.poll() if self.process else None
        if code is None:
            return "still runs"
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def last_words(self) -> str:
        """Returns how the process ended, the path of its log file, and the last lines of it, as text for people."""
        return "\n  ".join([f"{self.outcome()}; from {self.log}:", *last_lines(self.log)])


def _environment() -> dict[str, str]:
    """Returns the environment without the variables of libpq, such as PGDATA, which PostgreSQL's programs would read."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def last_lines(log: Path, count: int = 5) -> list[str]:
    """Returns the last lines of a log file, of which at most `LAST_BYTES_MAX` are read."""
    try:
        with log.open("rb") as lines:
            lines.seek(max(0, lines.seek(0, os.SEEK_END) - LAST_BYTES_MAX))
            text = lines.read(LAST_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.strip()[:LINE_MAX] for line in text.splitlines()[-count:]]


def family(pid: int) -> list[int]:
    """Returns the ids of a process and its children.

    A signal to the process group would miss PostgreSQL's children, because each of them has its own operating-system session.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]


def alive(pid: int) -> bool:
    """Returns True if the process runs. Returns False for a zombie: a process that has ended but was not yet waited for."""
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
"""The bits of the two capabilities that allow a process to enter folders closed to its user. The weaker one comes first."""
_SETPCAP: Final = 8
"""The bit of the capability that allows a process to change its secure bits."""


def unprivileged() -> pwd.struct_passwd | None:
    """Returns the user `nobody` if this process is root, for a server that does not run as root. Otherwise returns None."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def drop_root() -> list[str]:
    """Returns the arguments with which setpriv runs a program as `nobody`, or none if this process is not root.

    The program keeps a capability, so that it can enter folders that are closed to others, such as a checkout in /root. Some
    programs first ask the kernel whether they may open a file, as initdb does. The kernel counts the capability there only if the
    change of user does not clear capabilities (`no_setuid_fixup`).
    """
    user = unprivileged()
    if user is None:
        return []
    arguments = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    held = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    for name, bit in _CAPABILITIES.items():
        if held >> bit & 1:
            arguments += [f"--inh-caps=+{name}", f"--ambient-caps=+{name}"]
            return [*arguments, "--securebits=+no_setuid_fixup"] if held >> _SETPCAP & 1 else arguments
    return arguments
