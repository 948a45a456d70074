"""Prepares stdin, stdout and stderr, each of which can be closed, full, or unable to show a character.

An error of writing to stdout becomes an `OutputLost`, which no command mistakes for an error of a store. stderr never raises:
when it cannot be written, nobody could be told.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

from shared.errors import OperatorError

_CLOSED: Final = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR))
"""How /dev/null is opened in place of a closed descriptor: reading stdin and writing to stdout must fail as before."""


class OutputLost(OperatorError):
    """The results cannot be written to stdout."""

    code = "output-lost"


class ReaderGone(OutputLost):
    """The program that was reading the output has ended."""

    code = "reader-gone"


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise OutputLost(f"stdout cannot be written: {error.strerror}") from None


class _ErrorOutput(io.FileIO):
    def write(self, data: Any) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(data)


def prepare_streams() -> None:
    """Replaces the standard streams. A character that a stream cannot show is written as its escape sequence.

    A closed descriptor is opened first. Otherwise the event loop would use its number for something else, and abort.
    """
    for descriptor, flags in _CLOSED:
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, flags), descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 # open as long as the process
    sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_ErrorOutput(2, "wb", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    encoding = before.encoding if before else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=raw.isatty())


def give_up_output() -> None:
    """Discards what stdout did not take. Otherwise Python would try to write it again when it exits, and report the error."""
    try:
        sys.stdout.flush()
    except OutputLost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
