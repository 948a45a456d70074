"""`daybook events export|import`: a whole ledger as lines of JSON, out and in again."""

import gzip
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Final

import msgspec
import typer
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.event_lines import KeyRow, answer_line, cloud_event_line, event_line, read_line, require_next
from cli.ledger_import import Importer
from cli.progress import Progress
from shared.connections import STORE_ERRORS, open_postgres
from shared.errors import LedgerFileRefused, NotFound, StackError
from shared.event_store import PAGE_EVENTS, Answer, StoredEvent, read_answers, read_head, read_stored
from shared.person_keys import PersonKeys
from shared.settings import Settings, read_settings

INTERRUPTED: Final = 130
STDOUT: Final = Path("-")


class Format(StrEnum):
    """How events are written."""

    DAYBOOK = "daybook"
    CLOUDEVENTS = "cloudevents"


app = typer.Typer(help="Take a whole ledger out, and in again.", no_args_is_help=True)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Where to; compressed if it ends in .gz. Default: stdout.")] = STDOUT,
    ledger: Annotated[str, typer.Option(help="The ledger to export.")] = "main",
    format: Annotated[Format, typer.Option(help="`cloudevents` is for others to read, and cannot be imported.")] = Format.DAYBOOK,  # noqa: A002 # the option's name
    keys: Annotated[Path | None, typer.Option(help="A second file, for the keys of people, wrapped by the master keys.")] = None,
) -> None:
    """Write a ledger's events as lines of JSON: position, hash and time kept, what is personal sealed.

    Names and addresses cannot be read without the keys of people. Export those only to move a ledger, and destroy the file
    afterwards: an erasure does not reach it.

    Example: daybook events export ledger.jsonl.gz
    """
    _run(_export(read_settings(), ledger, file, format, keys))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `daybook events export` wrote.", exists=True, dir_okay=False)],
    keys: Annotated[Path | None, typer.Option(help="The keys of people that were exported with it.", exists=True)] = None,
) -> None:
    """Read a ledger into a database where it is empty, or not there yet; it goes on working as it did.

    Every event must follow from the one before: a line that was changed, is missing or stands in another place is refused by its
    number. Interrupted, the same command goes on where it was. Give the processes the same DAYBOOK_MASTER_KEYS.

    Example: daybook events import ledger.jsonl.gz --keys ledger.keys
    """
    _run(_import(read_settings(), file, keys))


def _run(work: Any) -> None:
    try:
        uvloop.run(work)
    except KeyboardInterrupt:
        typer.echo("interrupted: what was imported stays, and the same command goes on; an export leaves nothing", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None
    except STORE_ERRORS as error:
        raise StackError(f"PostgreSQL or a file does not answer ({type(error).__name__}: {error})".partition("\n")[0]) from error


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _export(settings: Settings, ledger_id: str, file: Path, kind: Format, keys: Path | None) -> None:
    """The keys last: whoever is erased meanwhile is not among them."""
    async with open_postgres(settings, "daybook_command") as engine:
        async with engine.connect() as connection:
            head = await read_head(connection, ledger_id)
        with Progress("export", head.position, "events") as progress, _written(file) as out:
            line_of = cloud_event_line if kind == Format.CLOUDEVENTS else event_line
            async for page in _pages(engine, ledger_id, head.position):
                out.write(b"".join(map(line_of, page)))
                progress.advance(len(page))
            if kind == Format.DAYBOOK:
                async for answers in _answers(engine, ledger_id, head.position):
                    out.write(b"".join(map(answer_line, answers)))
        if keys:
            async with engine.connect() as connection:
                rows = await PersonKeys(settings).read_wrapped(connection, ledger_id)
            with _written(keys) as out:
                out.write(b"".join(msgspec.json.encode(KeyRow(ledger_id, *row)) + b"\n" for row in rows))
            keys.chmod(0o600)


async def _pages(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[StoredEvent]]:
    position = 0
    while position < head:
        async with engine.connect() as connection:
            page = await read_stored(connection, ledger_id, position, min(PAGE_EVENTS, head - position))
        yield page
        position = page[-1].position


async def _answers(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[Answer]]:
    """Those about events that were exported, and refusals."""
    last = ("", "")
    while True:
        async with engine.connect() as connection:
            page = await read_answers(connection, ledger_id, last)
        if not page:
            return
        yield [answer for answer in page if (answer.position or 0) <= head]
        last = page[-1].principal, page[-1].key


@contextmanager
def _written(file: Path) -> Iterator[IO[bytes]]:
    """A file appears when it is whole, or not at all."""
    if file == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as plain:
            if file.suffix == ".gz":
                with gzip.GzipFile(fileobj=plain, mode="wb", filename="", compresslevel=6) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield plain
            plain.flush()
            os.fsync(plain.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _import(settings: Settings, file: Path, keys: Path | None) -> None:
    async with open_postgres(settings, "daybook_command") as engine:
        with _opened(file) as lines, Progress("import", file.stat().st_size, "bytes") as progress:
            importer = Importer(engine, PersonKeys(settings), _key_rows(keys) if keys else [])
            numbered = enumerate(lines, 1)
            read = 0
            while batch := list(islice(numbered, PAGE_EVENTS)):
                await importer.take([(number, read_line(number, line)) for number, line in batch])
                at = _place(lines)
                progress.advance(at - read)
                read = at
        importer.close()
    typer.echo(f"ledger {importer.ledger_id}: {importer.position} events; `daybook verify` checks what follows from them")


def _place(lines: Any) -> int:
    """How far in the file on the disk."""
    return int((lines.fileobj if isinstance(lines, gzip.GzipFile) else lines).tell())


def _key_rows(file: Path) -> list[KeyRow]:
    with _opened(file) as lines:
        try:
            return [msgspec.json.decode(line, type=KeyRow) for line in lines]
        except ValueError:
            raise LedgerFileRefused(f"{file} does not hold keys of people") from None


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rb") as packed:
                yield packed
        else:
            with file.open("rb") as plain:
                yield plain
    except (EOFError, gzip.BadGzipFile) as error:
        raise LedgerFileRefused(f"{file} is not whole ({error})") from None
