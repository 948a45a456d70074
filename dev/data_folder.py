"""Manages the data folder of a development stack: locks it, and lets other programs find the running stack.

A stack is running as long as its folder is locked. Every child process inherits the lock. So the folder becomes free only when
the last child has ended, even if the supervisor was killed.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dev.child_processes import alive
from shared.errors import StackError
from shared.private_files import write_private

ROOT: Final = Path(__file__).resolve().parents[1]
DATA_FOLDER: Final = ROOT / ".daybook"
"""The folder of the stack, unless DAYBOOK_DATA_DIR names another."""
CLOSE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class RunningStack:
    """A stack that is ready: the process id of its supervisor, and the `DAYBOOK_…` variables with which programs reach it."""

    pid: int
    environment: dict[str, str]


@contextmanager
def hold(folder: Path) -> Iterator[int]:
    """Locks a folder while the body runs. Yields the lock's file descriptor, which children must inherit.

    Raises:
        StackError: another stack has locked the folder, or the folder cannot be made.
    """
    make_folder(folder)
    descriptor = os.open(_lock(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = time.monotonic() + CLOSE_SECONDS
        while not _locked(descriptor):
            pid = _holder(folder)
            if alive(pid) or time.monotonic() > end:
                raise StackError(f"a stack already runs on {folder} (process {pid}); `daybook down` ends it")
            # The supervisor of the other stack was killed. Its servers will end soon and free the lock.
            time.sleep(0.1)
        os.pwrite(descriptor, f"{os.getpid():>10}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes the folder, if there is none.

    Raises:
        StackError: the folder cannot be made, or this user may not write there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "this user may not write there"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StackError(f"{folder} cannot hold the data ({reason}); name another folder with --data-dir or DAYBOOK_DATA_DIR")


def stack_environment() -> dict[str, str]:
    """Returns the variables with which programs reach the running stack, or none if no stack of this user runs."""
    try:
        running = find_running(Path(os.environ.get("DAYBOOK_DATA_DIR") or DATA_FOLDER))
    except PermissionError:
        return {}
    return running.environment if running else {}


def publish(folder: Path, running: RunningStack) -> None:
    """Lets other programs find the stack until `withdraw` is called."""
    write_private(_state(folder), json.dumps(asdict(running), indent=2))


def withdraw(folder: Path) -> None:
    _state(folder).unlink(missing_ok=True)


def find_running(folder: Path) -> RunningStack | None:
    """Returns the stack that is ready on this folder, or None. Ignores a file that a killed stack has left behind."""
    if held_by(folder) is None:
        return None
    try:
        state = json.loads(_state(folder).read_text())
    except FileNotFoundError:
        return None
    return RunningStack(state["pid"], state["environment"])


def held_by(folder: Path) -> int | None:
    """Returns the process id of the supervisor that has locked the folder, or None. The stack may not be ready yet."""
    try:
        descriptor = os.open(_lock(folder), os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return None if _locked(descriptor) else _holder(folder)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(folder: Path) -> int:
    return int(_lock(folder).read_text() or 0)


def _lock(folder: Path) -> Path:
    return folder / "stack.lock"


def _state(folder: Path) -> Path:
    return folder / "stack.json"
