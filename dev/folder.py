"""A stack's data folder: who holds it, and what a running stack tells other programs.

The lock is the truth about «is it running»: every child inherits it, so that the folder is free only when the last of them has
gone, however the supervisor ended.
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

from dev.children import alive
from dev.servers import write_private
from shared.errors import StackError

ROOT: Final = Path(__file__).resolve().parents[1]
DATA_FOLDER: Final = Path(os.environ.get("DAYBOOK_DATA_DIR") or ROOT / ".daybook")
CLOSE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Running:
    """A stack that is ready: its supervisor, and the `DAYBOOK_…` variables that lead to it."""

    pid: int
    environment: dict[str, str]


@contextmanager
def hold(folder: Path) -> Iterator[int]:
    """Yields the file descriptor of the lock, for children to inherit.

    Raises:
        StackError: another stack has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = time.monotonic() + CLOSE_SECONDS
        while not _locked(descriptor):
            pid = _holder(folder)
            if alive(pid) or time.monotonic() > end:
                raise StackError(f"a stack already runs on {folder} (process {pid}); `daybook down` ends it")
            # Its supervisor was killed, and its servers are about to follow.
            time.sleep(0.1)
        os.pwrite(descriptor, f"{os.getpid():>10}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def stack_environment(folder: Path = DATA_FOLDER) -> dict[str, str]:
    """The variables that lead to the running stack; none when nothing runs."""
    running = find_running(folder)
    return running.environment if running else {}


def publish(folder: Path, running: Running) -> None:
    write_private(_state(folder), json.dumps(asdict(running), indent=2))


def withdraw(folder: Path) -> None:
    _state(folder).unlink(missing_ok=True)


def find_running(folder: Path = DATA_FOLDER) -> Running | None:
    """The stack that is ready on this folder; what a stack left behind that was killed does not count."""
    if held_by(folder) is None:
        return None
    try:
        state = json.loads(_state(folder).read_text())
    except FileNotFoundError:
        return None
    return Running(state["pid"], state["environment"])


def held_by(folder: Path) -> int | None:
    """The process whose stack has the folder, ready or not."""
    try:
        descriptor = os.open(_lock(folder), os.O_RDWR)
    except FileNotFoundError:
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
