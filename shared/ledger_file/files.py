"""Reads and writes files of lines. The name `-` means stdin or stdout. A file whose name ends in `.gz` is compressed."""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Final

from shared.errors import FileUnusable, LedgerFileInvalid
from shared.private_files import replacing

STANDARD: Final = Path("-")
_STDOUT: Final = 1
_GZIP: Final = 31  # zlib's number for a window of 32 KiB with the header and trailer of gzip
LINE_BYTES_MAX: Final = 16 * 2**20
"""The longest line that is read. No line that Daybook writes is longer. A few kB of a packed file can make a line of GBs."""
WriteLines = Callable[[bytes], None]


@contextmanager
def write_file(file: Path) -> Iterator[WriteLines]:
    """Yields a function that writes lines to a file.

    A regular file, or a new one, is replaced when everything is written, and only its owner may read it. Anything else, such as a
    device or a pipe, gets the lines as they come.

    Raises:
        FileUnusable: the file cannot be written.
    """
    with ExitStack() as stack:
        with _os_errors_named(file, "written"):
            out = stack.enter_context(_opened(file))
        write = _writer(out, file)
        if file.suffix == ".gz":
            packer = zlib.compressobj(wbits=_GZIP)
            yield lambda lines: write(packer.compress(lines))
            write(packer.flush())
        else:
            yield write
        with _os_errors_named(file, "written"):
            out.flush()
            stack.close()


def is_same_file(one: Path, other: Path) -> bool:
    """Returns True if both paths, which need not exist, lead to the same file. `-` is stdout."""
    statuses = _status(one), _status(other)
    if None not in statuses:
        return os.path.samestat(*statuses)  # type: ignore[arg-type] # neither is None
    return one.resolve() == other.resolve()


def _status(file: Path) -> os.stat_result | None:
    """Returns the status of a file after all links, or None if there is none."""
    try:
        return os.fstat(_STDOUT) if file == STANDARD else file.stat()
    except FileNotFoundError:
        return None


def _opened(file: Path) -> AbstractContextManager[IO[bytes]]:
    status = _status(file)
    if file == STANDARD or (status and os.path.samestat(status, os.fstat(_STDOUT))):
        return nullcontext(sys.stdout.buffer)
    if status is None or stat.S_ISREG(status.st_mode):
        return replacing(file)
    return _closing(file.open("wb"))


@contextmanager
def _closing(out: IO[bytes]) -> Iterator[IO[bytes]]:
    """Closes the file after the block. Suppresses an error of closing, because the last write has already raised it."""
    try:
        yield out
    finally:
        with suppress(OSError):
            out.close()


@contextmanager
def read_file(file: Path) -> Iterator[Iterable[bytes]]:
    """Yields an iterable of the lines of a file.

    Raises:
        LedgerFileInvalid: a compressed file was cut off or changed, or a line is longer than any that Daybook writes.
        FileUnusable: the file cannot be read.
    """
    if file == STANDARD:
        yield _lines(sys.stdin.buffer, file)
        return
    with ExitStack() as stack:
        with _os_errors_named(file, "read"):
            plain = stack.enter_context(file.open("rb"))
        yield _lines(gzip.GzipFile(fileobj=plain) if file.suffix == ".gz" else plain, file)


def _writer(out: IO[bytes], file: Path) -> WriteLines:
    def write(lines: bytes) -> None:
        with _os_errors_named(file, "written"):
            out.write(lines)

    return write


def _lines(content: IO[bytes] | gzip.GzipFile, file: Path) -> Iterator[bytes]:
    number = 0
    with _os_errors_named(file, "read"):
        try:
            while line := content.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX:
                    raise LedgerFileInvalid(f"{file}, line {number}: the line is too long; nothing is imported")
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = str(error).rstrip(".")
            raise LedgerFileInvalid(f"{file} cannot be unpacked after line {number}: {reason}; nothing is imported") from None


@contextmanager
def _os_errors_named(file: Path, verb: str) -> Iterator[None]:
    """Replaces errors of the operating system by errors that name the file, so that they do not look like a failed store."""
    try:
        yield
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise FileUnusable(f"{file} cannot be {verb}: {error.strerror or error}") from None
