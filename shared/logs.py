"""Configures the log lines of all processes, which go to stdout.

A log line never contains a person's name, what a person owns, or a secret. The text of an error is therefore logged only if the
error is a `DaybookError`. Other errors may contain data: PostgreSQL quotes the row that it rejects, and a failed conversion
quotes the text that it could not convert.

Logging never raises. If a line cannot be written, because the disk is full or nobody reads the pipe, it is lost and counted. The
next line that can be written tells how many were lost. Text from outside cannot forge a line or move the terminal's cursor:
control characters and characters that change the direction of text are escaped.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

from shared.errors import DaybookError
from shared.invisible_characters import has_invisible

_LEVELS: Final = logging.getLevelNamesMapping()
_PLAIN: Final = (int, float, type(None))


def configure_logs(level: str, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Configures log lines of at least this level. A logged traceback shows only the lines of code and the kind of the error.

    structlog's own tracebacks would also show the values of variables, and Python's would show the text of the error.
    """
    lines = LineWriter(to)
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=_write_traceback)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        renderer,
    ]
    structlog.configure(
        processors=[SafeProcessors(processors)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: lines,
    )
    # The standard library's loggers: uvicorn, arq and asyncio.
    logging.raiseExceptions = False
    logging.setLogRecordFactory(_safe_record)


def report_loop_errors() -> None:
    """Makes the running event loop log errors that nobody awaited as all others are logged: without data, and never raising."""
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)


def say(line: str) -> None:
    """Writes a line to stderr, where the person who starts the process reads it. Never raises."""
    with suppress(Exception):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def escaped(text: str) -> str:
    """Returns the text with an escape in place of each character that is not printable, such as a line feed or U+202E."""
    return text if _is_printable(text) else "".join(each if _is_printable(each) else _escape(each) for each in text)


def kind_of(error: BaseException) -> str:
    """Returns the class of an error for a log line. The text of the error is added only if it is a `DaybookError`."""
    if isinstance(error, DaybookError):
        return escaped(f"{type(error).__name__}: {error}")
    # PostgreSQL and MongoDB give their errors a code, which contains no data.
    driver = getattr(error, "orig", None) or error
    codes = [str(code) for name in ("sqlstate", "code") if isinstance(code := getattr(driver, name, None), str | int)]
    return " ".join([type(error).__name__, *codes[:1]])


class SafeProcessors:
    """Makes the text of a log line. If that fails, the line says so instead of raising."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: Any, name: str, line: MutableMapping[str, Any]) -> Any:
        event = line.get("event")
        try:
            result: Any = {escaped(key): value if key == "exc_info" else _shown(value) for key, value in line.items()}
            for processor in self._processors:
                result = processor(logger, name, result)
        except structlog.DropEvent:
            raise
        except Exception as error:  # noqa: BLE001 # a mistake in a log line must not end the work that it tells of
            return escaped(f"{event} (the rest of this line is lost: {type(error).__name__})")
        return result


class LineWriter:
    """Writes lines to stdout or stderr. Never raises."""

    def __init__(self, to: Literal["stdout", "stderr"]) -> None:
        self.lost = 0
        self._to = to
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        with self._lock:
            try:
                stream: TextIO = getattr(sys, self._to)  # looked up now, because a process may replace it
                if self.lost:
                    # The last line may have been written in part, so this begins on a new line.
                    stream.write(f"\n{self.lost} log lines are lost, because they could not be written\n")
                    stream.flush()
                    self.lost = 0
                stream.write(message + "\n")
                stream.flush()
            except Exception:  # noqa: BLE001 # a full disk, a pipe without a reader, a closed stdout, a character of no encoding
                self.lost += 1

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, BaseException):
        return kind_of(value)
    return value if isinstance(value, _PLAIN) else escaped(repr(value))


def _is_printable(text: str) -> bool:
    return text.isprintable() and not has_invisible(text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _write_traceback(stream: TextIO, exc_info: Any) -> None:
    error: BaseException | None = exc_info[1]
    while error is not None:
        stream.write("\n" + "".join(traceback.format_tb(error.__traceback__)) + kind_of(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _safe_record(*arguments: Any, **named: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **named)
    record.msg = kind_of(record.msg) if isinstance(record.msg, BaseException) else escaped(str(record.msg).rstrip("\n"))
    if isinstance(record.args, tuple):
        record.args = tuple(_shown(each) for each in record.args)
    if record.exc_info and record.exc_info[1]:
        shown = StringIO()
        _write_traceback(shown, record.exc_info)
        record.exc_text = shown.getvalue().lstrip("\n")
    return record


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    # The message of an error shows the arguments of the function that failed.
    what = "an error that nobody awaited" if error else context["message"]
    structlog.get_logger().error("event loop", what=what, exc_info=error)
