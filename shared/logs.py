"""How the processes log: to stdout, a line for each thing worth knowing, and never what a person is called, what they own, or a
secret. What an error says is therefore not logged unless the error is ours: a database quotes the row that it refuses, and a
conversion the text that it cannot convert.
"""

import logging
import sys
import traceback
from typing import Any, Final, TextIO

import structlog

from shared.errors import DaybookError

_LEVELS: Final = logging.getLevelNamesMapping()


def configure_logs(level: str) -> None:
    """Tracebacks say where and what kind: structlog's own show the values of variables too, and the usual ones what was said."""
    *others, _ = structlog.get_config()["processors"]
    structlog.configure(
        processors=[*others, structlog.dev.ConsoleRenderer(exception_formatter=_write_traceback)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
    )


def say(line: str) -> None:
    """For who starts a process: a line on stderr."""
    sys.stderr.write(line + "\n")


def kind_of(error: BaseException) -> str:
    """For a log: what kind of error it is, and what it says only where that is ours."""
    if isinstance(error, DaybookError):
        return f"{type(error).__name__}: {error}"
    # What PostgreSQL and MongoDB have codes for.
    driver = getattr(error, "orig", None) or error
    codes = [str(code) for name in ("sqlstate", "code") if isinstance(code := getattr(driver, name, None), str | int)]
    return " ".join([type(error).__name__, *codes[:1]])


def _write_traceback(stream: TextIO, exc_info: Any) -> None:
    error: BaseException | None = exc_info[1]
    while error is not None:
        stream.write("\n" + "".join(traceback.format_tb(error.__traceback__)) + kind_of(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
