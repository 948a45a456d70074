"""`daybook dead-letters`: the events that a read model could not take in, and what to do about them."""

import getpass
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from cli.projections import LedgerOption, Name, run_on, with_progress
from command_api.batch import Outcome, Request
from command_api.handler import CommandHandler
from command_api.projection import SkipProjectionEvent
from command_api.wake import Waker
from projector.operating import BY_NAME, Operating
from shared.connections import open_postgres, open_redis
from shared.dead_letters import Aside, Letter
from shared.errors import EventRefused, NotFound, Rejection, StackError, Unavailable
from shared.event_store import StoredEvent, read_stored
from shared.ids import new_id
from shared.settings import read_settings

app = typer.Typer(help="See, retry and skip the events that a read model could not take in.", no_args_is_help=True)

WIDE: Final = 400

Position = Annotated[int, typer.Argument(min=1, help="The event's position in the log, as `daybook dead-letters list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Open = Callable[[str], Operating]


class Held(msgspec.Struct, frozen=True):
    """A dead letter of a read model, and how much the read model has put aside behind all of them."""

    projection: str
    letter: Letter
    parked_streams: int
    put_aside: int


@app.command(name="list")
def list_(*, ledger: LedgerOption = "main", json: AsJson = False) -> None:
    """Show all events that could not be applied, and how much is parked behind them.

    Example: daybook dead-letters list --json
    """

    async def read(operating: Open) -> list[Held]:
        return [held for name in BY_NAME for held in _held(name, *await operating(name).aside())]

    found = run_on(ledger, read)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
    elif found:
        _print(found)
    else:
        typer.echo("there are none: every read model has taken in every event that it has come to")


def _held(name: str, aside: Aside, letters: list[Letter]) -> list[Held]:
    return [Held(name, letter, aside.parked, aside.put_aside) for letter in letters]


def _print(found: list[Held]) -> None:
    table = Table("read model", "position", "event", "cause", "attempts", "since", "parked streams", "put aside behind it")
    for held in found:
        letter = held.letter
        cells = (held.projection, letter.position, letter.type, letter.cause, letter.attempts, letter.since)
        table.add_row(*map(str, (*cells, held.parked_streams, held.put_aside)))
    console = Console()
    # A script that reads it has no width to keep to.
    (console if console.is_terminal else Console(width=WIDE)).print(table)


@app.command()
def show(name: Name, position: Position, *, ledger: LedgerOption = "main", json: AsJson = False) -> None:
    """Show one event that could not be applied, as it stands in the log, and what can be done. Personal data stay sealed.

    Example: daybook dead-letters show balances 812
    """

    async def read(operating: Open) -> tuple[Held, StoredEvent]:
        one = operating(name)
        async with one.engine.connect() as connection:
            [stored] = await read_stored(connection, ledger, position - 1, 1)
        return await _found(one, position), stored

    held, stored = run_on(ledger, read)
    event = {"type": stored.type, "schema_version": stored.schema_version, "data": msgspec.Raw(stored.data.encode())}
    document = {"projection": name, **msgspec.to_builtins(held.letter), "event": event, "parked_streams": held.parked_streams}
    document |= {"metadata": msgspec.Raw(stored.metadata.encode()), "put_aside": held.put_aside}
    printed = msgspec.json.encode(document)
    if json:
        typer.echo(printed.decode())
        return
    typer.echo(msgspec.json.format(printed).decode())
    typer.echo(f"mend the code, deploy it, and run `daybook dead-letters retry {name}`", err=True)
    typer.echo(f"or leave it out for good: `daybook dead-letters skip {name} {position} --reason '…'`", err=True)


async def _found(one: Operating, position: int) -> Held:
    """Raises:
    NotFound: there is no such letter.
    """
    name = one.projection.name
    for held in _held(name, *await one.aside()):
        if held.letter.position == position:
            return held
    raise NotFound(f"{name} has no dead letter at {position}; see `daybook dead-letters list`")


@app.command()
def retry(name: Name, ledger: LedgerOption = "main") -> None:
    """Build the read model anew with the present code, beside the one that is read; switch only if every event is in.

    To be run with the code that was mended. Exit code 1, and nothing has changed, where an event still cannot be applied.

    Example: daybook dead-letters retry balances
    """

    async def build(operating: Open) -> int:
        one = operating(name)
        if not (await one.aside())[1]:
            raise NotFound(f"{name} has no dead letters")
        return (await with_progress(one.strict_generations(), one.generations.feed.head)).position

    try:
        position = run_on(ledger, build)
    except EventRefused as refused:
        raise EventRefused(f"{refused.detail}; nothing has changed", **refused.extra) from refused.__cause__
    typer.echo(f"{name}: every event is in, up to {position}")


@app.command()
def skip(
    name: Name,
    position: Position,
    reason: Annotated[str, typer.Option(help="Stands in the log for good, with your login's name. At most 140 characters.")],
    ledger: LedgerOption = "main",
) -> None:
    """Leave an event out of a read model for good: recorded in the log, so that every rebuild leaves it out too.

    What came after it in its streams is applied, by building the read model anew beside the one that is read. Interrupted, the
    worker does that by itself.

    Example: daybook dead-letters skip balances 812 --reason "ticket 4711: was entered twice"
    """
    try:
        command = SkipProjectionEvent(projection=name, position=position, reason=reason)
    except ValidationError:
        raise typer.BadParameter("1 to 140 printable characters", param_hint="--reason") from None

    async def leave_out(operating: Open) -> tuple[int, list[Letter]]:
        one = operating(name)
        if await one.stopped_at() != position:
            await _found(one, position)
        await _record(ledger, command)
        built = await with_progress(one.generations, await one.generations.feed.refresh())
        return built.position, (await one.aside())[1]

    reached, letters = run_on(ledger, leave_out)
    typer.echo(
        f"{name}: event {position} is left out; every other is in, up to {reached}" if not letters else _left(name, letters)
    )


def _left(name: str, letters: list[Letter]) -> str:
    return (
        f"{name}: {len(letters)} events are left that could not be applied: {', '.join(str(each.position) for each in letters)}"
    )


class _Silent:
    """Nobody waits for the answer as a document."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 200, b""

    def refused(self, rejection: Rejection) -> tuple[int, bytes]:
        raise rejection


async def _record(ledger_id: str, command: SkipProjectionEvent) -> None:
    """By the same way as every event comes into the log."""
    settings = read_settings()
    metadata: dict[str, Any] = {
        "command": type(command).__name__,
        "request_id": new_id(),
        "principal": f"operator:{getpass.getuser()}",
        "key_id": None,
        "network": None,
    }
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_postgres(settings, "daybook_command"))
        waker = Waker(await stack.enter_async_context(open_redis(settings)), settings.wake_timeout_ms)
        stack.push_async_callback(waker.close)
        handler = CommandHandler(engine, settings, waker.wake)
        stack.push_async_callback(handler.close)
        try:
            await handler.handle(ledger_id, [Request(command=command, replies=_Silent(), metadata=metadata)])
        except Unavailable as error:
            raise StackError(f"the skip could not be recorded ({error.detail}); run the same command again") from error
