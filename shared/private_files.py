"""Writes files that only their owner may read, completely or not at all."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yields a new file, which takes the place of `path` when the block ends. On any error, the new file is removed instead.

    At no moment can anybody but its owner read the new file. If `path` is a symbolic link, the file that it leads to is replaced.
    Until the end of the block, the new file is called `.<name>.part`.

    Raises:
        OSError: the file cannot be written, or another program is writing it.
    """
    target = path.resolve()
    part = target.with_name(f".{target.name}.part")
    # A file that an earlier run has left behind could be readable by others, or be a link.
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    out = os.fdopen(descriptor, "wb")
    try:
        yield out
        out.flush()
        os.fsync(descriptor)
        _require(descriptor, part)
        part.replace(target)
    except BaseException:
        if _is(descriptor, part):
            part.unlink()
        raise
    finally:
        with suppress(OSError):  # the last write has already raised it
            out.close()


def _require(descriptor: int, part: Path) -> None:
    if not _is(descriptor, part):
        raise OSError(errno.EBUSY, "another program is writing it")


def _is(descriptor: int, path: Path) -> bool:
    """Returns True if the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_private(path: Path, text: str) -> None:
    """Writes a file with this text."""
    with replacing(path) as file:
        file.write(text.encode(errors="surrogateescape"))  # a path in the text may have bytes that are not UTF-8


def open_private_log(path: Path) -> int:
    """Opens a log file for appending and returns its descriptor. Only its owner may read it, also if others could before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return descriptor
