"""`daybook import ofx`, `mt940` and `camt053`: load bank statements."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.book_import import COMMAND_URL, CommandUrlOption, ConcurrencyOption, ContinuesOption, DryRunOption, read_book, send_book
from importers.book import UUID
from importers.csv_files import require_encoding
from importers.statements import StatementOptions, book_of
from shared.errors import OperatorError


class PackageMissing(OperatorError):
    """A package that is not installed is needed."""

    code = "package-missing"


def _command(name: str, description: str) -> Callable[..., None]:
    def import_statements(
        file: Annotated[Path, typer.Argument(help="The file with the statements.", exists=True, dir_okay=False)],
        *,
        account: Annotated[
            list[str] | None,
            typer.Option(help="The id of the account to import into, or NUMBER=ID for each of the file.", show_default=False),
        ] = None,
        owner: Annotated[str, typer.Option(help="The id of a user: accounts without --account are opened for this user.")] = "",
        opening_balance: Annotated[
            bool, typer.Option("--opening-balance", help="Record the first opening balance of each account too.")
        ] = False,
        encoding: Annotated[str, typer.Option(help="The encoding of a file of MT940. The others name theirs.")] = "utf-8",
        continues: ContinuesOption = False,
        dry_run: DryRunOption = False,
        concurrency: ConcurrencyOption = 64,
        command_url: CommandUrlOption = COMMAND_URL,
    ) -> None:
        try:
            require_encoding(encoding)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--encoding") from None
        options = StatementOptions(_accounts(account or []), _id(owner, "--owner") if owner else "", opening_balance, continues)
        reader: Any = _reader(name)
        book = read_book(
            f"import {name}",
            file.stat().st_size,
            lambda faults, _: book_of(name, file.name, reader.read_statements(file, encoding, faults), options, faults),
        )
        send_book(f"import {name}", book, dry_run=dry_run, concurrency=concurrency, command_url=command_url)

    import_statements.__doc__ = f"""Load {description}. A second run changes nothing. The API key is read from DAYBOOK_API_KEY.

    Each statement is checked before anything is sent: its entries, and that they add up to its closing balance, if it has one.

    Example: daybook import {name} january.{name} --owner 0198c5a0-0000-7000-8000-00000000ada0 --opening-balance --dry-run
    """
    return import_statements


def _reader(name: str) -> Any:
    try:
        return import_module(f"importers.{name}")
    except ModuleNotFoundError as missing:
        raise PackageMissing(f"the package of {missing.name} is not installed: pip install 'daybook[statements]'") from None


def _accounts(given: list[str]) -> dict[str, str]:
    """Returns the ids by account of the bank. The empty account stands for every other one."""
    pairs = [pair.rpartition("=")[::2] for pair in given]
    return {number: _id(account_id, "--account") for number, account_id in pairs}


def _id(text: str, option: str) -> str:
    if not UUID.fullmatch(text):
        raise typer.BadParameter("give an id such as 0198c5a0-0000-7000-8000-0000000000e1", param_hint=option)
    return text.lower()


import_ofx = _command("ofx", "bank statements in OFX")
import_mt940 = _command("mt940", "bank statements in MT940")
import_camt053 = _command("camt053", "bank statements in camt.053 (ISO 20022)")
