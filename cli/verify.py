"""`daybook verify`: folds the log afresh and holds everything that was derived from it against the result."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
import uvloop
from pymongo.errors import PyMongoError

from cli.progress import Progress
from command_api.fold import snapshot_place
from command_api.folds import fold_of
from projector.difference import DifferenceFound
from projector.feed import Feed
from projector.projections import PROJECTIONS, Projection
from projector.verify_log import Books, StreamWalk, verify_chain, verify_money, verify_people, verify_streams
from projector.verify_read_models import verify_read_model
from projector.verify_seals import verify_seals
from shared.connections import STORE_ERRORS, Stores, open_stores
from shared.errors import LogDamaged, NotFound, StackError, UnknownEvent
from shared.person_keys import PersonKeys
from shared.seals import KnownKeys, known_keys
from shared.settings import Settings, read_settings

DIFFERENT: Final = 3
PARKED: Final = 4

Advanced = Callable[[int], None]
Check = Callable[[Advanced], Awaitable[str]]
"""Gives a line about what was found, which begins with `ok` or `PARKED`."""


def verify(
    ledger: Annotated[str, typer.Option(help="The ledger that is verified.")] = "main",
    seals: Annotated[
        Path | None, typer.Option(help="Seals that were published: lines of JSON. Default: DAYBOOK_SEAL_FILE.", exists=True)
    ] = None,
) -> None:
    """Fold the log afresh and compare: hash chain, seals, balances, keys of people, streams and snapshots, all read models.

    Prints a line for each check. Where something differs, the line names the first place, what was expected and what was
    found, and the exit code is 3. It is 4 where nothing differs but read models have put events aside (`daybook dead-letters`).
    May run while everything else does.

    Example: daybook verify
    """
    try:
        words = uvloop.run(_verify(read_settings(), ledger, seals))
    except NotFound as error:
        raise typer.BadParameter(error.detail) from None
    except (*STORE_ERRORS, PyMongoError) as error:
        raise StackError(f"a store does not answer ({type(error).__name__})") from error
    if "DIFFERENT" in words:
        raise typer.Exit(DIFFERENT)
    if "PARKED" in words:
        raise typer.Exit(PARKED)


async def _verify(settings: Settings, ledger_id: str, file: Path | None) -> set[str]:
    """What the checks came to, in a word each."""
    async with open_stores(settings, "daybook_projector") as stores:
        person_keys = PersonKeys(settings)
        feed = Feed(stores.engine, ledger_id, person_keys)
        log = LogChecks(stores, ledger_id, await feed.refresh(), person_keys, trusted(settings, file))
        lines = [await _outcome(name, check, total) for name, check, total in log.checks()]
        with Progress("verify read models", feed.head * len(PROJECTIONS), "events") as progress:
            read_models = [_read_model_check(stores, feed, projection) for projection in PROJECTIONS]
            found = await asyncio.gather(*(_run(check, progress.advance) for check in read_models))
        for projection, line in zip(PROJECTIONS, found, strict=True):
            typer.echo(f"{projection.name:<12} {line}")
            lines.append(line)
    return {line.partition(" ")[0] for line in lines}


async def _outcome(name: str, check: Check, total: int) -> str:
    with Progress(f"verify {name}", total, "events") as progress:
        line = await _run(check, progress.advance)
    typer.echo(f"{name:<12} {line}")
    return line


async def _run(check: Check, advanced: Advanced) -> str:
    try:
        return await check(advanced)
    except (DifferenceFound, UnknownEvent, LogDamaged) as difference:
        return f"DIFFERENT  {difference}"


class Trusted(NamedTuple):
    """What seals are held against; both may be missing."""

    keys: KnownKeys
    file: Path | None


def trusted(settings: Settings, file: Path | None) -> Trusted:
    seed = settings.seal_key.get_secret_value() if settings.seal_key else None
    configured = Path(settings.seal_file) if settings.seal_file else None
    return Trusted(known_keys(seed, [text for text in settings.seal_public_keys.split(",") if text]), file or configured)


class LogChecks:
    """What can be checked without the read models; each check is told what the ones before it found."""

    def __init__(self, stores: Stores, ledger_id: str, head: int, person_keys: PersonKeys, trusted: Trusted) -> None:
        self._trusted = trusted
        self._engine = stores.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._ledger_id = ledger_id
        self._head = head
        self._person_keys = person_keys
        self._books: Books | None = None

    def checks(self) -> Iterator[tuple[str, Check, int]]:
        """Name, check, and how much there is to look at; to be run one after another."""
        yield "log", self._chain, self._head
        yield "seals", self._seals, self._head
        yield "money", self._money, self._head
        yield "people", self._people, 0
        yield "streams", self._streams, self._books.members if self._books else self._head

    async def _chain(self, advanced: Advanced) -> str:
        async with self._engine.connect() as connection:
            head = await verify_chain(connection, self._ledger_id, advanced)
        self._head = head.position
        return f"ok  {head.position} events, dense and unchanged; the last hash is {head.hash.hex()}"

    async def _seals(self, advanced: Advanced) -> str:
        keys, file = self._trusted
        async with self._engine.connect() as connection:
            sealed = await verify_seals(connection, self._ledger_id, keys, file, advanced)
        if not (sealed.in_postgres or sealed.in_file):
            return "ok  there are none: no worker has a DAYBOOK_SEAL_KEY, and a cut-off end of the log would not be found"
        signed = "all signed" if keys else "signatures NOT checked: neither DAYBOOK_SEAL_KEY nor DAYBOOK_SEAL_PUBLIC_KEYS is set"
        where = f"{sealed.in_postgres} in PostgreSQL and {sealed.in_file} in {file or 'no file'}"
        return f"ok  {where}, {signed}; events 1 to {sealed.position} are those that were sealed"

    async def _money(self, advanced: Advanced) -> str:
        async with self._engine.connect() as connection:
            books = await verify_money(connection, self._ledger_id, self._head, advanced)
        self._books = books
        return f"ok  {books.accounts} accounts, none ever below its limit; every currency sums to zero"

    async def _people(self, _: Advanced) -> str:
        if self._books is None:
            raise DifferenceFound("people", "a log whose events can be read", None)
        async with self._engine.connect() as connection:
            await verify_people(connection, self._ledger_id, self._books, self._person_keys)
        return f"ok  {len(self._books.people)} have a key; {len(self._books.erased)} were erased and have none"

    async def _streams(self, advanced: Advanced) -> str:
        walk, members = StreamWalk(self._ledger_id, fold_of, snapshot_place), self._books.members if self._books else None
        async with self._engine.connect() as connection:
            await verify_streams(connection, self._ledger_id, self._head, members, walk, self._person_keys, advanced)
        return f"ok  {walk.streams} streams hold what their events prescribe; {walk.snapshots} snapshots are what they fold to"


def _read_model_check(stores: Stores, feed: Feed, projection: Projection[Any]) -> Check:
    async def check(advanced: Advanced) -> str:
        verified = await verify_read_model(stores, projection, feed, advanced)
        what = "documents" if projection.model.store == "mongo" else "keys"
        line = f"{verified.count} {what} are what the log folds to at {verified.position}"
        if aside := verified.aside.letters:
            behind = f"{verified.aside.put_aside} events behind them in {verified.aside.parked} parked streams"
            return f"PARKED  {line}, without {aside} dead letters and {behind}: `daybook dead-letters list`"
        return f"ok  {line}"

    return check
