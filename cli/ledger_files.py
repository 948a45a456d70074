"""Files of lines: `-` is stdin or stdout, and what ends in `.gz` is compressed."""

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from shared.errors import LedgerFileRefused, StackError

STANDARD: Final = Path("-")
_GZIP: Final = 31  # what zlib calls a window of 32 KiB with gzip's head and tail
Write = Callable[[bytes], None]


@contextmanager
def written(file: Path) -> Iterator[Write]:
    """The file is there when it is whole, and stands beside itself until then; only its owner may read it.

    Raises:
        StackError: it cannot be written.
    """
    if file == STANDARD:
        yield _writer(sys.stdout.buffer, file)
        with _named(file, "written"):
            sys.stdout.buffer.flush()
        return
    part = file.with_name(f".{file.name}.part")
    with ExitStack() as stack:
        # Before it is there: Ctrl-C may come at any moment.
        stack.callback(_removed, part)
        with _named(file, "written"):
            out = stack.enter_context(_closed(os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")))
        write = _writer(out, file)
        if file.suffix == ".gz":
            packer = zlib.compressobj(wbits=_GZIP)
            yield lambda lines: write(packer.compress(lines))
            write(packer.flush())
        else:
            yield write
        with _named(file, "written"):
            out.flush()
            os.fsync(out.fileno())
            part.replace(file)


@contextmanager
def opened(file: Path) -> Iterator[Iterable[bytes]]:
    """The lines.

    Raises:
        LedgerFileRefused: it was cut off or changed since it was compressed.
        StackError: it cannot be read.
    """
    if file == STANDARD:
        yield _lines(sys.stdin.buffer, file)
        return
    with ExitStack() as stack:
        with _named(file, "read"):
            plain = stack.enter_context(file.open("rb"))
        yield _lines(gzip.GzipFile(fileobj=plain) if file.suffix == ".gz" else plain, file)


def _removed(part: Path) -> None:
    with suppress(OSError):
        part.unlink()


@contextmanager
def _closed(out: IO[bytes]) -> Iterator[IO[bytes]]:
    """Also where the disk is full, which whoever wrote last has said."""
    try:
        yield out
    finally:
        with suppress(OSError):
            out.close()


def _writer(out: IO[bytes], file: Path) -> Write:
    def write(lines: bytes) -> None:
        with _named(file, "written"):
            out.write(lines)

    return write


def _lines(content: Iterable[bytes], file: Path) -> Iterator[bytes]:
    number = 0
    with _named(file, "read"):
        try:
            for number, line in enumerate(content, 1):  # noqa: B007 # where it broke off
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = str(error).rstrip(".")
            raise LedgerFileRefused(f"{file} cannot be unpacked after line {number}: {reason}; nothing is imported") from None


@contextmanager
def _named(file: Path, verb: str) -> Iterator[None]:
    """Whatever is wrong with a file must not pass for a store that is away."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says it again as it ends
        raise StackError("nobody reads any more what is written") from None
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise StackError(f"{file} cannot be {verb}: {error.strerror or error}") from None
