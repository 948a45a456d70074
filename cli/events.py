"""`daybook events export|import`: a whole ledger as lines of JSON, out and in again."""

import signal
from collections.abc import AsyncIterator, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.ledger_files import STANDARD, opened, written
from cli.ledger_import import import_ledger
from cli.ledger_lines import LedgerWriter, cloud_event, key_lines, read_keys, read_ledger
from cli.progress import Progress
from shared.connections import DRIVER_ERRORS, STORE_ERRORS, open_postgres
from shared.errors import LedgerFileRefused, LogDamaged, NotFound, StackError
from shared.event_store import PAGE_EVENTS, Answer, StoredEvent, read_answers, read_head, read_stored
from shared.person_keys import PersonKeys
from shared.settings import Settings, read_settings

T = TypeVar("T")

INTERRUPTED: Final = 130
REFUSED_BY_POSTGRES: Final = ("22", "23")
"""Classes of SQLSTATE: the data are at fault."""


class Format(StrEnum):
    """How events are written."""

    DAYBOOK = "daybook"
    CLOUDEVENTS = "cloudevents"


app = typer.Typer(help="Take a whole ledger out of the database, and in again.", no_args_is_help=True)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Where to; compressed if it ends in .gz; `-` is stdout.", dir_okay=False)],
    ledger: Annotated[str, typer.Option(help="The ledger to export.")] = "main",
    form: Annotated[
        Format, typer.Option("--format", help="`cloudevents`: CloudEvents 1.0 for others to read; cannot be imported.")
    ] = Format.DAYBOOK,
    keys: Annotated[
        Path | None, typer.Option(help="A second file, for the keys of people, wrapped by the master keys.", dir_okay=False)
    ] = None,
) -> None:
    """Write a ledger as lines of JSON: every event with its position, hash and time, and what callers were answered.

    Names and addresses are sealed in it as they are in the log, with a key for each person. An import needs the keys: --keys
    writes them to a file of their own, which an erasure does not reach. Destroy it when the ledger has moved.

    Example: daybook events export ledger.jsonl.gz --keys ledger.keys
    """
    if keys and (keys in {STANDARD, file} or form == Format.CLOUDEVENTS):
        raise typer.BadParameter("keys go to a file of their own, beside one that can be imported", param_hint="--keys")
    _run(export_ledger(read_settings(), file, keys, ledger, form))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `daybook events export` wrote; `-` is stdin.", dir_okay=False)],
    keys: Annotated[Path | None, typer.Option(help="The keys of people that were exported with it.", exists=True)] = None,
) -> None:
    """Read an exported ledger into a database where it is empty or not there. It goes on working as it did where it came from.

    Every line is held against the one before. One that was changed, is missing or stands elsewhere is named and refused, and
    nothing is imported; interrupted, nothing is either. A ledger that has all of it already stays as it is. The processes need
    the same DAYBOOK_MASTER_KEYS as before.

    Example: daybook events import ledger.jsonl.gz --keys ledger.keys
    """
    typer.echo(_run(import_file(read_settings(), file, keys)))


def _run(work: Coroutine[Any, Any, T]) -> T:
    # With a handler of our own, no loop puts its own: that one would wait for a read of stdin to come back.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return uvloop.run(work)
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was imported, no file was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None
    except (*STORE_ERRORS, *DRIVER_ERRORS) as error:
        cause = getattr(error, "orig", error)
        reason = str(cause).partition("\n")[0]
        if str(getattr(cause, "sqlstate", ""))[:2] in REFUSED_BY_POSTGRES or isinstance(cause, ValueError):
            raise LedgerFileRefused(f"PostgreSQL cannot hold what stands in the file ({reason}); nothing is imported") from None
        raise StackError(f"PostgreSQL does not answer ({type(cause).__name__}: {reason})") from error


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def export_ledger(
    settings: Settings, file: Path, keys: Path | None = None, ledger_id: str = "main", form: Format = Format.DAYBOOK
) -> None:
    """The keys last: whoever is erased meanwhile is not among them.

    Raises:
        NotFound: there is no such ledger.
        LogDamaged: it could not be imported.
        StackError: a file cannot be written.
    """
    async with open_postgres(settings, "daybook_command") as engine:
        async with engine.connect() as connection:
            head = await read_head(connection, ledger_id)
        with Progress("export", head.position, "lines") as progress, written(file) as write:
            if form == Format.CLOUDEVENTS:
                async for events in _events(engine, ledger_id, head.position):
                    write(b"".join(map(cloud_event, events)))
                    progress.advance(len(events))
                return
            lines = LedgerWriter()
            write(lines.begin(ledger_id, head))
            async for events in _events(engine, ledger_id, head.position):
                write(b"".join(map(lines.event, events)))
                progress.advance(len(events))
            answered = 0
            async for answers in _answers(engine, ledger_id, head.position):
                write(b"".join(map(lines.answer, answers)))
                answered += len(answers)
                progress.extend(head.position + answered)
                progress.advance(len(answers))
            write(lines.end())
        async with engine.connect() as connection:
            wrapped = await PersonKeys(settings).read_wrapped(connection, ledger_id)
    if keys:
        with written(keys) as write:
            write(b"".join(key_lines(ledger_id, wrapped)))
    elif wrapped:
        typer.echo("without --keys, names and addresses cannot be read elsewhere, and the file cannot be imported", err=True)


async def _events(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[StoredEvent]]:
    position = 0
    while position < head:
        async with engine.connect() as connection:
            page = await read_stored(connection, ledger_id, position, min(PAGE_EVENTS, head - position))
        position += len(page)
        if not page or page[-1].position != position:
            raise LogDamaged(f"ledger {ledger_id!r} has a gap before position {position}: see `daybook verify`")
        yield page


async def _answers(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[Answer]]:
    """Those about events up to the head, and refusals."""
    last = ("", "")
    while True:
        async with engine.connect() as connection:
            page = await read_answers(connection, ledger_id, last)
        if not page:
            return
        yield [answer for answer in page if (answer.position or 0) <= head]
        last = page[-1].principal, page[-1].key


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def import_file(settings: Settings, file: Path, keys: Path | None = None) -> str:
    """A line about what was done.

    Raises:
        StackError: a file cannot be read.

    And what `read_ledger`, `read_keys` and `import_ledger` raise.
    """
    person_keys = PersonKeys(settings)
    async with open_postgres(settings, "daybook_command") as engine:
        with opened(file) as lines:
            ledger, contents = read_ledger(lines)
            key_rows = {}
            if keys:
                with opened(keys) as rows:
                    key_rows = read_keys(rows, ledger.ledger_id)
            with Progress("import", ledger.events, "lines") as progress:
                is_new = await import_ledger(engine, person_keys, ledger, contents, key_rows, progress)
    what = "imported" if is_new else "there already, nothing was written"
    return f"ledger {ledger.ledger_id}: {ledger.events} events {what}; `daybook verify` checks what follows from them"
