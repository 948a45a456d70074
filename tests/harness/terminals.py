"""Runs `daybook` in many terminals, each of which is odd in another way.

Importing the command line takes more time than most commands. A server that has imported it once is forked for each run: the
process, its file descriptors and its environment are real. Only the start of Python is not repeated, so a few tests start it.
"""

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
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from cli.command_line import SUBCOMMANDS

RUN_SECONDS: Final = 60


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


def run_in(
    terminal: Terminal, arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
) -> TerminalRun:
    """Runs `daybook` with these arguments. `environment` replaces the environment, and `folder` the working folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_SUBCOMMANDS, "cli.app", "cli.errors", "pytest", __name__])
    with tempfile.TemporaryDirectory() as outputs:
        out, err = Path(outputs, "out"), Path(outputs, "err")
        given = dict(environment) | dict(terminal.environment)
        process = context.Process(
            target=_run, args=(terminal, list(arguments), given, str(folder or outputs), str(out), str(err))
        )
        process.start()
        _wait(process)
        return TerminalRun(process.exitcode or 0, _read(out), _read(err))


def _wait(process: ForkServerProcess) -> None:
    process.join(RUN_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"the command did not end in {RUN_SECONDS} s")


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
