"""`daybook projections`: see, rebuild, roll back, compare, pause and prune read models.

`daybook replay` is the same rebuild for several of them at once, so that the log is read once.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import typer
import uvloop
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table

from cli.progress import Progress
from projector.comparison import Comparison
from projector.dead_letters import Attempts
from projector.feed import Feed
from projector.generations import SHOWN_MAX, Check, Generations, OvertakenError, PausedError
from projector.operating import BY_NAME, LABEL, Estimate, Operating
from projector.projections import Projection
from projector.rebuild import Rebuilt, rebuild
from shared.connections import STORE_ERRORS, open_stores
from shared.errors import NotFound, ProjectionPaused, StackError
from shared.events import timestamp
from shared.garbage import calm_collector
from shared.person_keys import PersonKeys
from shared.read_models import Generation
from shared.settings import read_settings

T = TypeVar("T")

app = typer.Typer(help="See, rebuild, roll back, compare, pause and prune read models.", no_args_is_help=True)

INTERRUPTED: Final = 130
WATCH_SECONDS: Final = 1.0
ATTEMPTS: Final = 20
ATTEMPT_SECONDS: Final = 0.1


def _name(value: str) -> str:
    if value not in BY_NAME:
        raise typer.BadParameter(f"there is no read model {value!r}; there are {', '.join(BY_NAME)}")
    return value


def _label(value: str | None) -> str | None:
    if value is not None and not LABEL.fullmatch(value):
        raise typer.BadParameter("a lower-case name of letters, digits and hyphens, at most 31 long")
    return value


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter("an RFC 3339 moment: 2026-01-31T23:59:59Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Name = Annotated[str, typer.Argument(help=f"One of {', '.join(BY_NAME)}.", callback=_name)]
LedgerOption = Annotated[str, typer.Option(help="The ledger whose read models are meant.")]


@asynccontextmanager
async def _opened(ledger_id: str) -> AsyncIterator[Callable[[str], Operating]]:
    settings = read_settings()
    calm_collector()
    async with open_stores(settings, "daybook_projector") as stores:
        feed = Feed(stores.engine, ledger_id, PersonKeys(settings))
        await feed.refresh()
        bounds = settings.projector_attempts_max, settings.projector_dead_letters_max
        yield lambda name: Operating(stores, feed, BY_NAME[name], Attempts(*bounds))


def run_on(ledger_id: str, work: Callable[[Callable[[str], Operating]], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _opened(ledger_id) as operating:
            return await work(operating)

    try:
        return uvloop.run(run())
    except KeyboardInterrupt:
        typer.echo("interrupted: what was built stays, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None
    except PausedError as paused:
        raise ProjectionPaused(f"paused since {paused}: run `daybook projections resume`") from None
    except (*STORE_ERRORS, PyMongoError) as error:
        raise StackError(f"a store does not answer ({type(error).__name__}); run the same command again") from error


@app.command(name="list")
def list_(ledger: LedgerOption = "main") -> None:
    """Show every generation of every read model, and the copies as of past moments.

    Example: daybook projections list
    """
    Console(soft_wrap=True).print(run_on(ledger, _generations_table))


async def _generations_table(operating: Callable[[str], Operating]) -> Table:
    table = Table("name", "generation", "role", "position", "version", "documents or keys")
    for name in BY_NAME:
        for entry in await operating(name).entries():
            row = (entry.name, entry.number, entry.role, entry.position, entry.version, entry.count)
            table.add_row(*("" if each is None else str(each) for each in row))
    return table


@app.command()
def status(
    ledger: LedgerOption = "main",
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Show how far each read model is, and what is being built.

    Example: daybook projections status --watch
    """

    async def show(operating: Callable[[str], Operating]) -> None:
        console = Console(soft_wrap=True)
        console.print(await _status_table(operating))
        while watch:
            await asyncio.sleep(WATCH_SECONDS)
            console.clear()
            console.print(await _status_table(operating))

    run_on(ledger, show)


async def _status_table(operating: Callable[[str], Operating]) -> Table:
    table = Table("name", "generation", "position", "lag events", "lag seconds", "paused since", "being built")
    for name in BY_NAME:
        one = operating(name)
        by_role = {entry.role: entry for entry in await one.entries()}
        live, building = by_role.get("live"), by_role.get("building")
        position = live.position if live else None
        head = await one.generations.feed.refresh()
        lag = max(head - (position or 0), 0), f"{await one.lag_seconds(position or 0):.1f}"
        row = (name, live.number if live else "none", position, *lag, await one.paused_since() or "")
        table.add_row(*map(str, row), f"generation {building.number}: {building.position} of {head}" if building else "")
    return table


@app.command(name="rebuild")
def rebuild_(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,  # noqa: FBT002 # a flag
    until: Annotated[str | None, typer.Option(help="As of this moment, RFC 3339; with --into.")] = None,
    to: Annotated[int | None, typer.Option(min=1, help="As of this position; with --into.")] = None,
    into: Annotated[
        str | None, typer.Option(help="A name for the copy as of then, which is never served.", callback=_label)
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all of it with the log, not a sample.")] = False,  # noqa: FBT002 # a flag
    ledger: LedgerOption = "main",
) -> None:
    """Build a new generation beside the live one, compare it with the log and with that one, and switch.

    What is not as the log says is never switched to. The generation before is kept for `rollback`. Interrupted, it leaves what it
    has built, and the same command goes on from there. With --into, and --until or --to, it builds a copy as of a past moment
    instead: look at it with `diff`, remove it with `prune`.

    Example: daybook projections rebuild balances --until 2026-01-31T23:59:59Z --into january
    """
    moment = _moment(until)
    if (into is None) != (moment is None and to is None) or (moment is not None and to is not None):
        raise typer.BadParameter("--into goes with one of --until and --to")
    if into is not None and BY_NAME[name].model.personal:
        raise typer.BadParameter(f"{name} holds personal data, and no copies are kept of what an erasure must remove")

    async def work(operating: Callable[[str], Operating]) -> None:
        one = operating(name)
        estimate = await one.estimate()
        target = await one.position_at(moment) if moment else to
        if target is not None and target > estimate.events:
            raise typer.BadParameter(f"the log ends at {estimate.events}")
        estimate = Estimate(target or estimate.events, estimate.rate, estimate.live_version, estimate.version)
        typer.echo(_said(name, estimate), err=not dry_run)
        if dry_run:
            return
        if into is not None and target is not None:
            await _build_copy(one, into, target)
        else:
            await _build_live(one, estimate, verify=verify)

    run_on(ledger, work)


def _said(name: str, estimate: Estimate) -> str:
    before = estimate.live_version
    change = "there is none live" if before is None else f"made by version {before} before" if before != estimate.version else ""
    version = f"version {estimate.version}" + (f" ({change})" if change else ", as the live one")
    return f"{name}: {estimate.events} events at {estimate.rate:.0f}/s, about {estimate.seconds:.0f} s; {version}"


async def _build_live(one: Operating, estimate: Estimate, *, verify: bool) -> None:
    started = time.monotonic()
    equal: bool | None = None

    def inspecting(progress: Progress) -> Check:
        async def check(generation: Generation, comparison: Comparison) -> None:
            nonlocal equal

            def advanced(count: int) -> None:
                progress.extend(2 * generation.position)
                progress.advance(count)

            equal = await one.inspect(generation, comparison, advanced, whole=verify)

        return check

    built = await with_progress(one.generations, estimate.events, inspecting=inspecting)
    await one.note_rate(max(built.position, 1) / max(time.monotonic() - started, 1e-3))
    typer.echo(f"{one.projection.name} {built.position} {built.digest or '(it moves with the log)'}")
    if letters := (await one.aside())[0].letters:
        typer.echo(f"{letters} events could not be applied: see `daybook dead-letters list`", err=True)
    if built.comparison:
        _print_comparison(one.projection, built.comparison, equal)


def _print_comparison(projection: Projection[Any], found: Comparison, equal: bool | None) -> None:  # noqa: FBT001 # an answer
    typer.echo(f"as the log says: {found.count} documents or keys, and {found.sampled} that were folded anew")
    before = found.before
    if before is None:
        typer.echo("there was no generation before")
        return
    said = {
        True: "all content is equal",
        False: "not all content is equal",
        None: "no digest of all: the log moves, or events were put aside",
    }[equal]
    differ = f"{len(before.differing)} of {before.compared} sampled differ"
    typer.echo(f"generation {before.number} before, made by version {before.version}: {differ}; {said}")
    for difference in before.differing[:SHOWN_MAX]:
        typer.echo(f"  {difference}")
    if (before.differing or equal is False) and before.version == projection.model.version:
        typer.echo(f"the one before was wrong: the log says what the new one says; `daybook projections prune {projection.name}`")


async def _build_copy(one: Operating, label: str, target: int) -> None:
    pointer = await one.copies(label).read_pointer()
    if (
        any(entry.name.endswith(f"@{label}") and (entry.position or 0) > target for entry in await one.entries())
        and pointer.building
    ):
        await one.drop_copy(label)
    built = await with_progress(one.copies(label), target, target)
    typer.echo(f"{one.projection.name}@{label} {built.position} {built.digest}")


async def with_progress(
    generations: Generations, total: int, to: int | None = None, inspecting: Callable[[Progress], Check] | None = None
) -> Rebuilt:
    """Builds a new generation, or with `to` a copy. What `inspecting` makes may show how far it is, too."""
    with Progress("rebuild", total, "events", memory=_memory_mebibytes) as progress:
        shown = 0

        def moved(position: int) -> None:
            nonlocal shown
            progress.extend(max(total, position))
            progress.advance(position - shown)
            shown = position

        return await rebuild(generations, moved, to, inspecting(progress) if inspecting else None)


def _memory_mebibytes() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@app.command()
def rollback(name: Name, ledger: LedgerOption = "main") -> None:
    """Make the generation that was live before the live one again, once it has caught up with the log.

    Example: daybook projections rollback balances
    """

    async def work(operating: Callable[[str], Operating]) -> int:
        one = operating(name)
        return (await _again(one.generations.roll_back)).number

    typer.echo(f"{name}: generation {run_on(ledger, work)} is live again; `daybook projections rollback {name}` takes this back")


@app.command()
def prune(name: Name, ledger: LedgerOption = "main") -> None:
    """Delete all that is neither live nor being built: what `rollback` could go back to, and the copies made with --into.

    Example: daybook projections prune balances
    """

    async def work(operating: Callable[[str], Operating]) -> list[str]:
        return await _again(operating(name).prune)

    for each in run_on(ledger, work) or ["nothing to delete"]:
        typer.echo(each)


async def _again(work: Callable[[], Awaitable[T]]) -> T:
    """A worker may have been faster; then it is looked at anew."""
    for _ in range(ATTEMPTS):
        try:
            return await work()
        except OvertakenError:
            await asyncio.sleep(ATTEMPT_SECONDS)
    raise StackError("others keep moving this read model; run the same command again")


@app.command()
def pause(name: Name, ledger: LedgerOption = "main") -> None:
    """Let a read model stand still, for workers and rebuilds, until `resume`. Readers go on seeing it, as of where it stands.

    Example: daybook projections pause balances
    """

    async def work(operating: Callable[[str], Operating]) -> str:
        one = operating(name)
        since = await one.paused_since() or timestamp(datetime.now(UTC))
        await one.generations.sink.pause(one.projection.model, ledger, since)
        return since

    typer.echo(f"{name} is paused since {run_on(ledger, work)}")


@app.command()
def resume(name: Name, ledger: LedgerOption = "main") -> None:
    """Let a paused read model follow the log again.

    Example: daybook projections resume balances
    """

    async def work(operating: Callable[[str], Operating]) -> None:
        one = operating(name)
        await one.generations.sink.resume(one.projection.model, ledger)

    run_on(ledger, work)
    typer.echo(f"{name} goes on")


@app.command()
def diff(
    name: Name,
    generations: Annotated[
        list[str] | None, typer.Argument(help="Up to two: numbers, names given with --into, live, previous, building.")
    ] = None,
    ledger: LedgerOption = "main",
) -> None:
    """Compare two generations: count, digest, and a sample of documents or keys. Default: the previous with the live one.

    Exit code 1 when they differ; while the log moves, the live one may be ahead.

    Example: daybook projections diff balances january live
    """
    named: list[Any] = generations or []
    if len(named) > 2:  # noqa: PLR2004 # two sides
        raise typer.BadParameter("at most two generations")

    async def work(operating: Callable[[str], Operating]) -> bool:
        return await _print_difference(operating(name), *(*named, "", "")[:2])

    if not run_on(ledger, work):
        raise typer.Exit(1)


async def _print_difference(one: Operating, first: str, second: str) -> bool:
    found = await one.compare(first, second)
    for entry, digest in zip((found.one, found.other), found.digests, strict=True):
        typer.echo(f"{entry.name} {entry.number} ({entry.role}): {entry.count} at {entry.position}, digest {digest}")
    typer.echo(f"{len(found.differing)} of {found.sampled} sampled differ" + ("; all content is equal" if found.is_equal else ""))
    for difference in found.differing[:SHOWN_MAX]:
        typer.echo(f"  {difference}")
    return found.is_equal
