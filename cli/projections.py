"""`daybook projections`: shows, rebuilds, rolls back, compares, pauses and prunes read models.

To rebuild several read models while reading the log only once, see `cli/replay.py`.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console

from cli.arguments import POSITION_MAX, LedgerOption, moment, moment_text
from cli.read_model_operations import NameArgument, OperationsOf, names_in_use, run_operations, show_rebuild
from cli.tables import print_table
from projector.generations.comparison import Comparison
from projector.generations.generations import SHOWN_MAX
from projector.generations.operations import LABEL, GenerationDiff, GenerationSummary, ReadModelStatus, RebuildEstimate
from projector.generations.operator_rebuilds import LiveRebuild, rebuild_copy, rebuild_live, retry_while_overtaken
from projector.projections.projection import Projection
from projector.projections.registry import ALL_PROJECTIONS_BY_NAME

app = typer.Typer(help="Show, rebuild, roll back, compare, pause and prune read models.", no_args_is_help=True)

WATCH_SECONDS: Final = 1.0


def _label(value: str | None) -> str | None:
    if value is not None and not LABEL.fullmatch(value):
        raise typer.BadParameter("give at most 31 lower-case letters, digits and hyphens, beginning with a letter")
    return value


@app.command(name="list")
def list_(ledger: LedgerOption = "main") -> None:
    """Show every generation of every read model, and every copy as of a past moment.

    Example: daybook projections list
    """

    async def read(operations_of: OperationsOf) -> list[GenerationSummary]:
        return [summary for name in names_in_use() for summary in await operations_of(name).summaries()]

    summaries = run_operations(ledger, read)
    print_table(
        ("name", "generation", "role", "position", "version", "documents or keys"),
        [(found.name, found.number, found.role, found.position, found.version, found.count) for found in summaries],
    )


@app.command()
def status(
    ledger: LedgerOption = "main",
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every second until Ctrl-C.")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Show the position and lag of each read model, and the generation that is being built.

    Example: daybook projections status --watch
    """

    async def show(operations_of: OperationsOf) -> None:
        await _print_status(operations_of)
        while watch:
            await asyncio.sleep(WATCH_SECONDS)
            Console().clear()
            await _print_status(operations_of)

    run_operations(ledger, show)


async def _print_status(operations_of: OperationsOf) -> None:
    columns = ("name", "generation", "position", "lag events", "lag seconds", "paused since", "being built")
    print_table(columns, [(name, *_status_cells(await operations_of(name).status())) for name in names_in_use()])


def _status_cells(status: ReadModelStatus) -> list[str]:
    live, building = status.live, status.building
    position = str(live.position if live else None)
    lag = str(status.lag_events), f"{status.lag_seconds:.1f}"
    being_built = f"generation {building.number}: {building.position} of {status.head}" if building else ""
    return [str(live.number if live else "none"), position, *lag, status.paused_since or "", being_built]


@app.command()
def rebuild(
    name: NameArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print an estimate only.")] = False,  # noqa: FBT002 # a flag
    until: Annotated[
        str | None, typer.Option(help="With --into: build the copy as of this time, in RFC 3339.", callback=moment_text)
    ] = None,
    to: Annotated[
        int | None, typer.Option(min=1, max=POSITION_MAX, help="With --into: build the copy as of this position.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(help="Build a copy with this name as of a past moment. It never becomes live.", callback=_label)
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare everything with the log.")] = False,  # noqa: FBT002 # a flag
    ledger: LedgerOption = "main",
) -> None:
    """Build a new generation beside the live one, compare it with the log and the live one, and make it live.

    The new generation becomes live only if it matches the log; without --verify, a sample is compared. The old one is kept for
    `rollback`. If you interrupt the command, run it again to continue. With --into, and --until or --to, it builds a copy as of a
    past moment instead. Compare the copy with `diff`, and remove it with `prune`.

    Example: daybook projections rebuild balances --until 2026-01-31T23:59:59Z --into january
    """
    past = moment(until)
    if (into is None) != (past is None and to is None) or (past is not None and to is not None):
        raise typer.BadParameter("give --into together with either --until or --to")
    if into is not None and ALL_PROJECTIONS_BY_NAME[name].model.personal:
        raise typer.BadParameter(f"{name} holds personal data, so it cannot be copied: an erasure would not reach the copy")

    async def work(operations_of: OperationsOf) -> None:
        one = operations_of(name)
        estimate = await one.estimate()
        target = await one.position_at(past) if past else to
        if target is not None and target > estimate.events:
            raise typer.BadParameter(f"the log ends at {estimate.events}")
        estimate = msgspec.structs.replace(estimate, events=target or estimate.events)
        typer.echo(_estimate_line(name, estimate), err=not dry_run)
        if dry_run:
            return
        if into is not None and target is not None:
            copy = await rebuild_copy(one, into, target, show_rebuild)
            typer.echo(f"{name}@{into} {copy.position} {copy.digest}")
        else:
            _print_rebuild(one.projection, await rebuild_live(one, estimate.events, show_rebuild, whole=verify))

    run_operations(ledger, work)


def _estimate_line(name: str, estimate: RebuildEstimate) -> str:
    before = estimate.live_version
    if before is None:
        change = " (no generation is live)"
    elif before != estimate.version:
        change = f" (the live generation has version {before})"
    else:
        change = ", the same as the live generation"
    version = f"model version {estimate.version}{change}"
    return f"{name}: {estimate.events} events at {estimate.rate:.0f}/s, about {estimate.seconds:.0f} s; {version}"


def _print_rebuild(projection: Projection[Any], done: LiveRebuild) -> None:
    built = done.rebuilt
    typer.echo(f"{projection.name} {built.position} {built.digest or '(no digest: it changed meanwhile)'}")
    if done.letters:
        typer.echo(f"{done.letters} events could not be applied: see `daybook dead-letters list`", err=True)
    if built.comparison:
        _print_comparison(projection, built.comparison, done)


def _print_comparison(projection: Projection[Any], found: Comparison, done: LiveRebuild) -> None:
    typer.echo(
        f"{found.count} documents or keys, as the log requires; {found.sampled} of them were compared with the log and match"
    )
    before = found.before
    if before is None:
        typer.echo("no generation was live before")
        return
    equal = {
        True: "all content is equal",
        False: "not all content is equal",
        None: "all content could not be compared: the log moved, or the generations leave out different events",
    }[done.equal]
    differ = f"{len(before.differing)} of {before.compared} sampled differ"
    typer.echo(f"compared with generation {before.number} (model version {before.version}): {differ}; {equal}")
    for difference in before.differing[:SHOWN_MAX]:
        typer.echo(f"  {difference}")
    if (before.differing or done.equal is False) and before.version == projection.model.version:
        prune_it = f"run `daybook projections prune {projection.name}` to delete it"
        typer.echo(f"generation {before.number} was wrong, and the new one matches the log; {prune_it}")


@app.command()
def rollback(name: NameArgument, ledger: LedgerOption = "main") -> None:
    """Make the previous generation live again. It is first brought up to date with the log.

    Example: daybook projections rollback balances
    """

    async def work(operations_of: OperationsOf) -> int:
        return (await retry_while_overtaken(operations_of(name).generations.roll_back)).number

    number = run_operations(ledger, work)
    typer.echo(f"{name}: generation {number} is live again; to undo this, run `daybook projections rollback {name}`")


@app.command()
def prune(name: NameArgument, ledger: LedgerOption = "main") -> None:
    """Delete the generation that is kept for `rollback`, the copies made with --into, and generations that are left over.

    Example: daybook projections prune balances
    """

    async def work(operations_of: OperationsOf) -> list[str]:
        return await retry_while_overtaken(operations_of(name).prune)

    for each in run_operations(ledger, work) or ["nothing to delete"]:
        typer.echo(each)


@app.command()
def pause(name: NameArgument, ledger: LedgerOption = "main") -> None:
    """Stop workers and rebuilds of a read model until `resume`. Readers still see it, as of the position where it stopped.

    Example: daybook projections pause balances
    """
    since = run_operations(ledger, lambda operations_of: operations_of(name).pause(datetime.now(UTC)))
    typer.echo(f"{name} is paused since {since}")


@app.command()
def resume(name: NameArgument, ledger: LedgerOption = "main") -> None:
    """Let a paused read model follow the log again.

    Example: daybook projections resume balances
    """
    run_operations(ledger, lambda operations_of: operations_of(name).resume())
    typer.echo(f"{name} follows the log again")


@app.command()
def diff(
    name: NameArgument,
    generations: Annotated[
        list[str] | None,
        typer.Argument(help="Up to two generations. Each is a number, a name from --into, or live, previous or building."),
    ] = None,
    ledger: LedgerOption = "main",
) -> None:
    """Compare two generations by count, digest, and a sample of documents or keys. The default is previous and live.

    The exit code is 1 if they differ. While events are recorded, the live generation may be ahead of the other one.

    Example: daybook projections diff balances january live
    """
    named = generations or []
    if len(named) > 2:  # noqa: PLR2004 # two sides
        raise typer.BadParameter("give at most two generations")
    first, second = (*named, "", "")[:2]
    found = run_operations(ledger, lambda operations_of: operations_of(name).compare(first, second))
    _print_difference(found)
    if not found.is_equal:
        raise typer.Exit(1)


def _print_difference(found: GenerationDiff) -> None:
    for generation, digest in zip((found.one, found.other), found.digests, strict=True):
        about = f"{generation.name} {generation.number} ({generation.role})"
        typer.echo(f"{about}: {generation.count} at {generation.position}, digest {digest}")
    typer.echo(f"{len(found.differing)} of {found.sampled} sampled differ" + ("; all content is equal" if found.is_equal else ""))
    for difference in found.differing[:SHOWN_MAX]:
        typer.echo(f"  {difference}")
