"""The table of errors: for each error that can end a command, the exit code, and one line that says the cause.

Commands raise what they get, or an `OperatorError` that says more. Only this module turns errors into messages.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import typer
from typer.exceptions import TyperException

from cli.command_line import HELP
from cli.exit_codes import ExitCode
from cli.request_errors import OutcomeUnknown, RequestRefused
from cli.standard_streams import OutputLost, ReaderGone
from importers.faults import ImportFileInvalid
from projector.generations.generations import PausedError
from shared import errors, reporting_errors
from shared.stores.store_errors import MONGO_ERRORS, POSTGRES_ERRORS, REDIS_ERRORS
from shared.web.api_client import API_ERRORS


class Failure(NamedTuple):
    """What the user gets to know of an error."""

    exit_code: ExitCode
    message: str


_FILE_ERRNOS: Final = {
    *(
        errno.EACCES,
        errno.EBADF,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENAMETOOLONG,
    ),
    *(errno.ENFILE, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EROFS),
}
"""The errors of the operating system that are about files. All others come from a connection."""

_POSTGRES: Final[Sequence[tuple[str, ExitCode, str]]] = (
    ("28", ExitCode.DENIED, "PostgreSQL denied the login"),
    ("42501", ExitCode.DENIED, "PostgreSQL denied this"),
    ("3D", ExitCode.SETTINGS, "PostgreSQL does not have this database"),
    ("3F", ExitCode.SETTINGS, "PostgreSQL lacks the schema; run `daybook migrate`"),
    ("42P01", ExitCode.SETTINGS, "PostgreSQL lacks a table; run `daybook migrate`"),
    ("42704", ExitCode.SETTINGS, "PostgreSQL lacks a role; run `daybook migrate`"),
    ("22023", ExitCode.SETTINGS, "PostgreSQL lacks a role; run `daybook migrate`"),
    ("22", ExitCode.USAGE, "PostgreSQL cannot hold a value that was given"),
    ("25006", ExitCode.UNAVAILABLE, "PostgreSQL takes no writes"),
    ("53100", ExitCode.UNAVAILABLE, "PostgreSQL's disk is full"),
    ("57014", ExitCode.UNAVAILABLE, "PostgreSQL took too long"),
    ("55P03", ExitCode.UNAVAILABLE, "another transaction holds a lock in PostgreSQL"),
)
"""The beginning of a SQLSTATE, and what it means."""


def _postgres(error: BaseException) -> Failure:
    """Describes an error of PostgreSQL, which SQLAlchemy may have wrapped."""
    cause = getattr(error, "orig", None) or error
    reason = str(cause).partition("\n")[0].rpartition(">: ")[2]
    if isinstance(cause.__cause__ or cause, ValueError | OverflowError):
        return Failure(ExitCode.USAGE, f"PostgreSQL cannot hold a value that was given: {reason}")
    state = str(getattr(cause, "sqlstate", None) or "")
    for beginning, exit_code, what in _POSTGRES:
        if state.startswith(beginning):
            return Failure(exit_code, f"{what}: {reason}")
    return Failure(
        ExitCode.UNAVAILABLE, f"PostgreSQL does not answer: {reason or type(cause).__name__}; run the same command again"
    )


def _operating_system(error: OSError) -> Failure:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return _postgres(error)  # the drivers of the other stores have errors of their own
    if error.filename is None and error.errno not in _FILE_ERRNOS:
        return _postgres(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return Failure(ExitCode.FILE, f"{where}{error.strerror or error}")


def _usage(error: Any) -> Failure:
    """Describes a wrong argument. If a group of commands was given no command, the message is its help."""
    message = str(error.format_message()).strip()
    context = getattr(error, "ctx", None)
    if context is None or message.startswith(HELP):
        return Failure(ExitCode.USAGE, message)
    return Failure(ExitCode.USAGE, f"{' '.join(message.split())} (`{context.command_path} --help` shows the options)")


def _detail(exit_code: ExitCode) -> Callable[[Any], Failure]:
    return lambda error: Failure(exit_code, str(error))


def _store(name: str) -> Callable[[Any], Failure]:
    return lambda error: Failure(
        ExitCode.UNAVAILABLE, f"{name} does not answer or refused this ({type(error).__name__}); run the same command again"
    )


def _defect(error: BaseException) -> Failure:
    # The text of the error is left out, because it may contain a secret.
    name = type(error).__name__
    return Failure(ExitCode.DEFECT, f"Daybook made a mistake ({name}); set DAYBOOK_DEBUG=1 to see where, and report it")


_CAUSES: Final[Sequence[tuple[tuple[type[BaseException], ...], Callable[[Any], Failure]]]] = (
    ((ReaderGone,), _detail(ExitCode.READER_GONE)),
    ((OutputLost, errors.FileUnusable), _detail(ExitCode.FILE)),
    (
        (errors.SettingsInvalid, errors.UnsafeSettings, errors.MasterKeyUnknown, errors.SchemaMismatch, errors.UnsafeStore),
        _detail(ExitCode.SETTINGS),
    ),
    (
        (errors.LogDamaged, errors.ReadModelDamaged, errors.UnknownEvent, errors.LedgerFileInvalid, ImportFileInvalid),
        _detail(ExitCode.DATA),
    ),
    ((RequestRefused,), lambda refused: Failure(refused.exit_code, str(refused))),
    ((OutcomeUnknown,), _detail(ExitCode.UNAVAILABLE)),
    ((errors.NotFound, errors.Rejection, errors.BadRequest, reporting_errors.StatementInvalid), _detail(ExitCode.USAGE)),
    ((reporting_errors.StatementDenied,), _detail(ExitCode.DENIED)),
    ((errors.Unavailable,), _detail(ExitCode.UNAVAILABLE)),
    ((errors.DaybookError,), _detail(ExitCode.NO)),
    ((PausedError,), lambda since: Failure(ExitCode.NO, f"paused since {since}: run `daybook projections resume`")),
    ((TyperException,), _usage),
    ((KeyboardInterrupt, typer.Abort), lambda _: Failure(ExitCode.INTERRUPTED, "interrupted")),
    (MONGO_ERRORS, _store("MongoDB")),
    (REDIS_ERRORS, _store("Redis")),
    (API_ERRORS, _store("an API")),
    (POSTGRES_ERRORS, _postgres),
    ((OSError,), _operating_system),
    ((BaseException,), _defect),
)
"""The first row that has the class of an error, or a base of it, describes the error."""


def describe(error: BaseException) -> Failure:
    return next(describe_cause(error) for classes, describe_cause in _CAUSES if isinstance(error, classes))
