"""`daybook events export` and `import`: write a whole ledger to a file of JSON lines, and read it back."""

import signal
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop

from cli.arguments import LedgerOption
from cli.exit_codes import ExitCode
from cli.terminal_progress import TerminalProgress
from command_api.past_history import DOMAIN
from shared.ledger_file.files import STANDARD, is_same_file
from shared.ledger_file.ledger_export import export_cloud_events, export_ledger
from shared.ledger_file.ledger_import import import_ledger
from shared.settings import read_settings

T = TypeVar("T")


class ExportFormat(StrEnum):
    """The format of an exported file."""

    DAYBOOK = "daybook"
    CLOUDEVENTS = "cloudevents"


app = typer.Typer(help="Export a whole ledger to a file, and import it elsewhere.", no_args_is_help=True)


@app.command("export")
def export(
    file: Annotated[
        Path, typer.Argument(help="The file to write. It is compressed if its name ends in .gz. `-` is stdout.", dir_okay=False)
    ],
    ledger: LedgerOption = "main",
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="`cloudevents` writes CloudEvents 1.0 for other systems. They cannot be imported again."),
    ] = ExportFormat.DAYBOOK,
    keys: Annotated[
        Path | None,
        typer.Option(help="A second file for the person keys, which stay wrapped by the master keys.", dir_okay=False),
    ] = None,
) -> None:
    """Write a ledger as lines of JSON: every event with its position, hash and time, and every stored reply.

    Only a regular file is replaced, when the new one is complete. Only its owner may read it. A device or a pipe gets the lines
    as they come, and a symbolic link is followed.

    Names and addresses stay encrypted with the key of each person. To import the file, you need these person keys: write them to
    a second file with --keys. An erasure does not change that file, so destroy it after you have imported the ledger.

    Example: daybook events export ledger.jsonl.gz --keys ledger.keys
    """
    if keys and (keys == STANDARD or form == ExportFormat.CLOUDEVENTS or is_same_file(file, keys)):
        raise typer.BadParameter("give a second file, and use it only with --format daybook", param_hint="--keys")
    settings = read_settings()
    if form == ExportFormat.CLOUDEVENTS:
        _run(export_cloud_events(settings, ledger, file, TerminalProgress), "no file was written")
    elif _run(export_ledger(settings, ledger, file, keys, TerminalProgress), "no file was written") and not keys:
        typer.echo("this file cannot be imported without its person keys: to move the ledger, export it with --keys", err=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file written by `daybook events export`. `-` is stdin.", dir_okay=False)],
    keys: Annotated[Path | None, typer.Option(help="The file of person keys that was exported with it.", exists=True)] = None,
) -> None:
    """Import an exported ledger into a PostgreSQL that does not have this ledger, or has it empty.

    The processes need the same DAYBOOK_MASTER_KEYS as before. Each line is checked against the line before it. If a line was
    changed, removed or moved, the command names this line and imports nothing. It also imports nothing if you interrupt it. If
    the same ledger was imported before, nothing changes.

    Example: daybook events import ledger.jsonl.gz --keys ledger.keys
    """
    found = _run(import_ledger(read_settings(), DOMAIN, file, keys, TerminalProgress), "nothing was imported")
    done = "imported" if found.is_new else "exist already, nothing was written"
    typer.echo(f"ledger {found.ledger_id}: {found.events} events {done}; run `daybook verify` to check them")


def _run(work: Coroutine[Any, Any, T], if_interrupted: str) -> T:
    # If a handler is set, the event loop installs none of its own, which would wait until a read of stdin returns.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return uvloop.run(work)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {if_interrupted}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
