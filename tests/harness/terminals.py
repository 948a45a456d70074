"""Runs `daybook` without a terminal, or in many terminals, each of which is odd in another way.

Importing the command line takes more time than most commands. A server that has imported it once is forked for each run: the
process, its file descriptors and its environment are real. Only the start of Python is not repeated, so a few tests start it.
"""

import asyncio
import contextlib
import fcntl
import io
import multiprocessing
import os
import pty
import struct
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cli.command_line import SUBCOMMANDS
from dev.data_folder import ROOT
from shared.settings import Settings
from tests.harness.running import environment_of

RUN_SECONDS: Final = 60.0
ENDED_SECONDS: Final = 300.0
"""For a busy machine: the tests assert that a command ends, not how soon."""


@dataclass(frozen=True)
class Terminal:
    """What a command finds: its standard descriptors, some variables, and the encoding of its output.

    A descriptor is `closed`, a path, `pipe` (whose reader has ended), or None for a file that the test reads. With `columns`,
    stdout is a terminal of this width.
    """

    name: str
    stdin: str = os.devnull
    stdout: str | None = None
    stderr: str | None = None
    columns: int | None = None
    encoding: str = "utf-8"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TerminalRun:
    """A command that has ended. A negative code is the number of the signal that ended it."""

    code: int
    out: str
    err: str


_SUBCOMMANDS: Final = {subcommand.where.partition(":")[0] for subcommand in SUBCOMMANDS.values()}


class ForkedCommand:
    """A command that was started. Its output goes to files, so that it never waits for the test to read."""

    def __init__(
        self, terminal: Terminal, arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        """Starts `daybook` with these arguments. `environment` replaces the environment, and `folder` the working folder."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*_SUBCOMMANDS, "cli.app", "cli.errors", "pytest", __name__])
        self._outputs = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._outputs.name, name) for name in ("out", "err"))
        given = dict(environment) | dict(terminal.environment)
        arguments_of_run = terminal, list(arguments), given, str(folder or self._outputs.name), str(self._out), str(self._err)
        self._process = context.Process(target=_run, args=arguments_of_run)
        self._process.start()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        """Sends a signal, if the command has not ended."""
        if self._process.pid and self.is_running:
            os.kill(self._process.pid, number)

    def wait(self, seconds: float = RUN_SECONDS) -> TerminalRun:
        """Waits for the end, and returns it. Call this once.

        Raises:
            TimeoutError: the command did not end. It was killed.
        """
        with self._outputs:
            self._process.join(seconds)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
                raise TimeoutError(f"the command did not end in {seconds} s: {_read(self._out)} {_read(self._err)}")
            return TerminalRun(self._process.exitcode or 0, _read(self._out), _read(self._err))

    async def ended(self) -> tuple[int, str, str]:
        """Waits for the end, and returns the exit code, stdout and stderr. Call this once."""
        run = await asyncio.to_thread(self.wait, ENDED_SECONDS)
        return run.code, run.out, run.err


def run_in(
    terminal: Terminal, arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
) -> TerminalRun:
    """Runs `daybook` as `ForkedCommand` starts it, and waits for its end."""
    return ForkedCommand(terminal, arguments, environment, folder).wait()


def daybook(settings: Settings, *arguments: str, more: Mapping[str, str] | None = None) -> ForkedCommand:
    """Starts `daybook` with these settings and no terminal. `more` are additional environment variables."""
    environment = {"PATH": "/usr/bin:/bin", **environment_of(settings), **(more or {})}
    return ForkedCommand(Terminal("none"), arguments, environment, ROOT)


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


def _run(terminal: Terminal, arguments: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """Becomes the command, in the forked process."""
    from cli.app import main  # noqa: PLC0415 # imported by the server before the fork

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["daybook", *arguments]
    with _terminal(terminal, out) if terminal.columns else contextlib.nullcontext() as window:
        _open(0, terminal.stdin, os.O_RDONLY)
        _open(1, window or terminal.stdout or out, os.O_WRONLY | os.O_CREAT)
        _open(2, terminal.stderr or err, os.O_WRONLY | os.O_CREAT)
        sys.stdin, sys.stdout, sys.stderr = (_stream(number, terminal.encoding) for number in range(3))
        main()


def _open(descriptor: int, what: str, flags: int) -> None:
    if what == "closed":
        with contextlib.suppress(OSError):
            os.close(descriptor)
        return
    if what == "pipe":
        reader, opened = os.pipe()
        os.close(reader)
    else:
        opened = os.open(what, flags, 0o600)
    os.dup2(opened, descriptor)
    if opened != descriptor:
        os.close(opened)


def _stream(descriptor: int, encoding: str) -> io.TextIOWrapper | None:
    """Returns the stream that Python makes when it starts, or None for a closed descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return None
    return open(descriptor, "r" if descriptor == 0 else "w", encoding=encoding, closefd=False)


@contextlib.contextmanager
def _terminal(terminal: Terminal, out: str) -> Iterator[str]:
    """Yields the path of a terminal window. A child process copies everything that it shows to the file `out`."""
    controller, window = pty.openpty()
    fcntl.ioctl(window, termios.TIOCSWINSZ, struct.pack("HHHH", 24, terminal.columns, 0, 0))
    reader = os.fork()
    if reader == 0:
        os.close(window)
        _copy(controller, out)
        os._exit(0)
    os.close(controller)
    try:
        yield os.ttyname(window)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(window)
        os.waitpid(reader, 0)


def _copy(controller: int, out: str) -> None:
    with Path(out).open("wb") as file, contextlib.suppress(OSError):
        while data := os.read(controller, 65_536):
            file.write(data)


ODD_TERMINALS: Final[Sequence[Terminal]] = (
    Terminal("nothing is open", stdin="closed", stdout="closed", stderr="closed", environment={"COLUMNS": "0"}),
    Terminal("the disk is full", stdout="/dev/full", stderr="/dev/full"),
    Terminal("nobody reads", stdin="closed", stdout="pipe", environment={"FORCE_COLOR": "1", "COLUMNS": "1"}),
    Terminal("a narrow terminal in ASCII", columns=40, encoding="ascii", environment={"TERM": "dumb"}),
)
