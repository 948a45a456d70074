"""`daybook dead-letters`: shows, retries and skips the events that could not be applied to a read model."""

from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError

from cli.arguments import LedgerOption, PositionArgument, utf8
from cli.read_model_operations import NameArgument, OperationsOf, names_in_use, run_operations, show_rebuild
from cli.tables import print_table
from command_api.domain.projection import SkipProjectionEvent
from command_api.operator_commands import run_operator_command
from projector.generations.dead_letter_operations import (
    ListedDeadLetter,
    SkippedEvent,
    find_dead_letter,
    list_dead_letters,
    retry_dead_letters,
    skip_event,
)
from shared.errors import Unavailable
from shared.log.read import StoredEvent
from shared.login_name import login_name
from shared.settings import read_settings

app = typer.Typer(help="Show, retry and skip the events that could not be applied to a read model.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(name="list")
def list_(*, ledger: LedgerOption = "main", json: AsJson = False) -> None:
    """Show all dead letters, which are events that could not be applied, and how many later events are parked behind them.

    Example: daybook dead-letters list --json
    """

    async def read(operations_of: OperationsOf) -> list[ListedDeadLetter]:
        return [listed for name in names_in_use() for listed in await list_dead_letters(operations_of(name))]

    found = run_operations(ledger, read)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
    elif found:
        _print_table(found)
    else:
        typer.echo("no dead letters: every read model has applied every event up to its checkpoint")


def _print_table(found: list[ListedDeadLetter]) -> None:
    rows = []
    for listed in found:
        letter = listed.letter
        cells = (listed.projection, letter.position, letter.type, letter.cause, letter.attempts, letter.since)
        rows.append((*cells, listed.parked_streams, listed.put_aside))
    print_table(("read model", "position", "event", "cause", "attempts", "since", "parked streams", "put aside behind it"), rows)


@app.command()
def show(name: NameArgument, position: PositionArgument, *, ledger: LedgerOption = "main", json: AsJson = False) -> None:
    """Show one dead letter with its stored event, and the commands that resolve it. Personal data stay encrypted.

    Example: daybook dead-letters show balances 812
    """
    listed, stored = run_operations(ledger, lambda operations_of: find_dead_letter(operations_of(name), position))
    printed = msgspec.json.encode(_document(listed, stored))
    if json:
        typer.echo(printed.decode())
        return
    typer.echo(msgspec.json.format(printed).decode())
    typer.echo(f"to apply the event, correct the code, deploy it, and run `daybook dead-letters retry {name}`", err=True)
    typer.echo(f"to leave it out permanently, run `daybook dead-letters skip {name} {position} --reason '…'`", err=True)


def _document(listed: ListedDeadLetter, stored: StoredEvent) -> dict[str, object]:
    event = {"type": stored.type, "schema_version": stored.schema_version, "data": msgspec.Raw(stored.data.encode())}
    return {
        "projection": listed.projection,
        **msgspec.to_builtins(listed.letter),
        "event": event,
        "parked_streams": listed.parked_streams,
        "metadata": msgspec.Raw(stored.metadata.encode()),
        "put_aside": listed.put_aside,
    }


@app.command()
def retry(name: NameArgument, ledger: LedgerOption = "main") -> None:
    """Rebuild the read model, and switch readers to the result only if every event could be applied.

    First deploy the corrected code. Readers keep the live generation until the switch. If an event still cannot be applied, the
    exit code is 1 and nothing has changed.

    Example: daybook dead-letters retry balances
    """
    position = run_operations(ledger, lambda operations_of: retry_dead_letters(operations_of(name), show_rebuild))
    typer.echo(f"{name}: every event up to {position} is applied")


@app.command()
def skip(
    name: NameArgument,
    position: PositionArgument,
    reason: Annotated[
        str,
        typer.Option(
            help="Why, in at most 140 characters. It is recorded in the log with the name of your login.", callback=utf8
        ),
    ],
    ledger: LedgerOption = "main",
) -> None:
    """Leave an event out of a read model permanently. The log records this, so that every rebuild leaves the event out too.

    The read model is then rebuilt beside the live generation, which applies the later events of the same streams. If you
    interrupt the rebuild, the worker finishes it.

    Example: daybook dead-letters skip balances 812 --reason "ticket 4711: was entered twice"
    """
    try:
        command = SkipProjectionEvent(projection=name, position=position, reason=reason)
    except ValidationError:
        raise typer.BadParameter("give 1 to 140 printable characters", param_hint="--reason") from None

    async def record() -> None:
        try:
            await run_operator_command(read_settings(), ledger, command, login_name())
        except Unavailable as error:
            raise type(error)(f"the skip could not be recorded ({error.detail}); run the same command again") from error

    async def leave_out(operations_of: OperationsOf) -> SkippedEvent:
        return await skip_event(operations_of(name), position, record, show_rebuild)

    done = run_operations(ledger, leave_out)
    if not done.letters:
        typer.echo(f"{name}: event {position} is left out; all other events up to {done.position} are applied")
        return
    left = ", ".join(str(letter.position) for letter in done.letters)
    typer.echo(f"{name}: event {position} is left out; dead letters remain at these positions: {left}")
