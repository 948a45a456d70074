"""What all commands of `daybook import` share: their options, their progress, and how they end."""

import asyncio
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, Final, Self, TypeVar

import typer

from cli.terminal_progress import TerminalProgress
from importers.book import Book, in_major_units
from importers.command_client import post_commands
from importers.commands import rehearsals_of, stages_of
from importers.faults import Faults
from shared.errors import SettingsInvalid
from shared.http_values import read_header_value, read_http_url

T = TypeVar("T")

QUIET_SECONDS: Final = 1.0

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check the files and print what they contain. Send nothing.")]
ContinuesOption = Annotated[
    bool,
    typer.Option(
        "--continues", help="The files go on where earlier files ended, so do not compare balances with overdraft limits."
    ),
]
ConcurrencyOption = Annotated[int, typer.Option(help="The number of requests to send at once.", min=1, max=512)]
CommandUrlOption = Annotated[str, typer.Option(envvar="DAYBOOK_COMMAND_URL", help="The URL of the command API.")]
COMMAND_URL: Final = "http://127.0.0.1:8000"


class LateProgress:
    """A context manager that shows progress when the work has taken longer than a second."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._parts = label, total, unit
        self._started, self._done = time.monotonic(), 0
        self._shown: TerminalProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown:
            self._shown.__exit__(kind, error, trace)

    def advance(self, count: int) -> None:
        self._done += count
        if self._shown:
            self._shown.advance(count)
        elif time.monotonic() - self._started >= QUIET_SECONDS:
            self._shown = TerminalProgress(*self._parts).__enter__()
            self._shown.advance(self._done)


def read_book(label: str, bytes_total: int, read: Callable[[Faults, Callable[[int], None]], Book]) -> Book:
    """Reads files with `read`, which is told where to collect faults and to count bytes.

    Raises:
        ImportFileInvalid: something in the files is wrong.
    """
    faults = Faults()
    with LateProgress(f"{label}: read", bytes_total, "bytes") as progress:
        book = read(faults, progress.advance)
    faults.require_none()
    return book


def send_book(label: str, book: Book, *, dry_run: bool, concurrency: int, command_url: str) -> None:
    """Sends what a book contains, and prints a line with the result. A dry run only prints what would be sent."""
    stages = stages_of(book)
    total = sum(len(chain) for stage in stages for chain in stage)
    contents = f"{len(book.users)} users, {len(book.accounts)} accounts, {len(book.transactions)} transactions"
    sums = ", ".join(in_major_units(units, currency) for currency, units in sorted(book.posted().items())) or "0"
    if dry_run:
        typer.echo(f"{contents}: the files are right, and nothing was sent; the balances of the files sum to {sums}")
        return
    url, api_key = _setting("command URL", command_url, read_http_url), os.environ.get("DAYBOOK_API_KEY", "")
    _setting("DAYBOOK_API_KEY", api_key, read_header_value)
    with LateProgress(label, total, "commands") as progress:
        new = asyncio.run(post_commands(url, api_key, stages, concurrency, progress.advance, rehearsals_of(book)))
    typer.echo(
        f"{contents}: {new} commands were new, {total - new} were recorded before; the balances of the files sum to {sums}"
    )


def checked(hint: str, check: Callable[[], None]) -> None:
    """Runs a check of an option, and turns its ValueError into an error of this option."""
    try:
        check()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def _setting(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise SettingsInvalid([f"{name}: {error}"]) from None
