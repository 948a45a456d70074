"""The group of all subcommands. It imports a subcommand when it is used, and ends each error as one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from cli.exit_codes import ExitCode
from shared.errors import SettingsInvalid, StoreUnavailable
from shared.logs import escaped

HELP: Final = "Usage:"
"""How the help of a group of commands begins."""


class Subcommand(NamedTuple):
    """Where the function or the `typer.Typer` of a subcommand is, as `module:name`, and its line in `daybook --help`."""

    where: str
    help: str


SUBCOMMANDS: Final[Mapping[str, Subcommand]] = {
    "dev": Subcommand("cli.dev:dev", "Start Daybook, and each database server that no environment variable configures."),
    "down": Subcommand("cli.dev:down", "End the development stack, and wait until all its processes have ended."),
    "env": Subcommand("cli.dev:env", "Print shell exports of the variables of the running development stack."),
    "status": Subcommand(
        "cli.status:status", "Show whether each process is ready, how far each read model is behind the log, and why."
    ),
    "doctor": Subcommand("cli.doctor:doctor", "Check settings and stores, list what is unsafe, and say how to fix it."),
    "migrate": Subcommand("cli.migrate:migrate", "Run the missing migrations."),
    "sql": Subcommand("cli.sql:sql", "Ask the tables of SQL reporting a question in SQL, and print the answer."),
    "publish": Subcommand("cli.publish:publish", "Show how far each ledger is published, or publish it again from an event on."),
    "replay": Subcommand("cli.replay:replay", "Rebuild read models from the first event."),
    "verify": Subcommand(
        "cli.verify:verify",
        "Check the log, everything that is derived from it, and the read models.",
    ),
    "explain": Subcommand("cli.explain:explain", "List the facts that make the balance of an account, and add them up."),
    "close": Subcommand("cli.close:close", "Close a business day: record its totals and the Merkle root of its events."),
    "keys": Subcommand("cli.keys:app", "Make, list, rotate and revoke API keys."),
    "seal-key": Subcommand("cli.seal_key:seal_key", "Print the public key that belongs to DAYBOOK_SEAL_KEY, for auditors."),
    "ledgers": Subcommand("cli.ledgers:app", "Create, change, list, show and close ledgers."),
    "projections": Subcommand("cli.projections:app", "Show, rebuild, roll back, compare, pause and prune read models."),
    "dead-letters": Subcommand(
        "cli.dead_letters:app", "Show, retry and skip the events that could not be applied to a read model."
    ),
    "events": Subcommand("cli.events:app", "Export a whole ledger to a file, and import it elsewhere."),
    "import": Subcommand("cli.imports:app", "Load data of other systems through the command API."),
    "master-keys": Subcommand("cli.master_keys:app", "Rotate the master keys."),
    "profiles": Subcommand(
        "cli.profiles:app", "Keep the addresses and API keys of the Daybooks that you use, each under a name."
    ),
    "users": Subcommand("cli.users:app", "List, show and create users over HTTP."),
    "accounts": Subcommand("cli.accounts:app", "List, show and open accounts over HTTP."),
    "transfers": Subcommand("cli.transfers:app", "List and show transfers over HTTP."),
    "holds": Subcommand("cli.holds:app", "List and show holds over HTTP."),
    "balance": Subcommand("cli.balance:balance", "Show the balance of an account, now or at a moment in the past."),
    "statement": Subcommand("cli.statement:statement", "Show the entries of an account in a period, between its two balances."),
    "send": Subcommand("cli.send:send", "Transfer money from one account to another, after showing what that does."),
    "deposit": Subcommand("cli.send:deposit", "Bring money into an account, after showing what that does."),
    "withdraw": Subcommand("cli.send:withdraw", "Take money out of an account, after showing what that does."),
    "top": Subcommand("cli.top:top", "Watch throughput, the queue of commands, and the lag of each read model."),
}
"""The subcommands, in the order in which the help lists them."""

API_COMMANDS: Final = frozenset(
    {
        *("profiles", "users", "accounts", "transfers", "holds"),
        *("balance", "statement", "send", "deposit", "withdraw", "top"),
    }
)
"""The subcommands that reach Daybook over HTTP, with a profile. Anyone may use them who has an API key."""


class Completion(NamedTuple):
    """A word that completes a command line, and its description."""

    value: str
    help: str


class LazyCommands(Mapping[str, Any]):
    """The subcommands by name. Each is imported when it is first used, so that none waits for the libraries of the others."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, SUBCOMMANDS[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SUBCOMMANDS)

    def __len__(self) -> int:
        return len(SUBCOMMANDS)


def _load(name: str, subcommand: Subcommand) -> Any:
    module, _, attribute = subcommand.where.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if missing.name != "daybook_client":
            raise
        problem = f"`daybook {name}` needs the package daybook-client: run `make install`, or `pip install ./clients/python`"
        raise SettingsInvalid([problem]) from None
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = None
        command: Any = get_group(found)
    else:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command()(found)
        command = get_command(alone)
    command.name = name
    return command


class CommandLine(TyperGroup):
    """A group of commands whose errors end as one line on stderr and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": LazyCommands()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 # the signature is typer's
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # the signature is typer's
        for title, for_people in (("Commands", False), ("Commands for people, over HTTP", True)):
            named = [(name, each.help) for name, each in SUBCOMMANDS.items() if (name in API_COMMANDS) == for_people]
            with formatter.section(title):
                formatter.write_dl(named)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completes the names of the subcommands without importing any of them."""
        named = [Completion(name, each.help) for name, each in SUBCOMMANDS.items() if name.startswith(incomplete)]
        return [*named, *super(TyperGroup, self).shell_complete(ctx, incomplete)]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # stdout raises `ReaderGone`, so this is a connection. Typer would end the command without a word.
            raise StoreUnavailable("a store closed the connection; run the same command again") from error

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            exit_code = super().main(*args, **{**extra, "standalone_mode": False})
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 # the table has every error
            exit_code = report(error)
        sys.exit(exit_code if isinstance(exit_code, int) else ExitCode.DONE)


def report(error: BaseException) -> ExitCode:
    """Prints an error as one line, after its traceback if DAYBOOK_DEBUG asks for it. Returns the exit code."""
    if os.environ.get("DAYBOOK_DEBUG"):
        traceback.print_exception(error)
    # The table of errors knows those of all drivers, so it is imported only when there is an error.
    failure = import_module("cli.errors").describe(error)
    message = "\n".join(map(escaped, failure.message.splitlines()))
    if message:
        typer.echo(message if message.startswith(HELP) else f"daybook: {message}", err=True)
    return ExitCode(failure.exit_code)
