"""`daybook master-keys`: the keys that wrap those of people."""

from typing import Final

import typer
import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.progress import Progress
from shared.connections import STORE_ERRORS, open_postgres_as_owner
from shared.errors import StackError
from shared.person_keys import PersonKeys
from shared.settings import Settings, read_settings

app = typer.Typer(help="The keys that wrap those which personal data are sealed with.", no_args_is_help=True)

PIECE: Final = 1_000


@app.callback()
def main() -> None:
    """Alone in its group, a command would take the group's name."""


@app.command()
def rotate() -> None:
    """Wrap the keys of all people with the newest master key, the first in DAYBOOK_MASTER_KEYS.

    Interrupted, it goes on where it was when it is started again; it may run beside everything else. Afterwards the older master
    keys are needed for backups only. At the end the table of keys is rewritten, so that no deleted key stays in its file.

    Example: daybook master-keys rotate
    """
    try:
        rewrapped, key_id = uvloop.run(_rotate(read_settings()))
    except STORE_ERRORS as error:
        reason = type(error).__name__
        raise StackError(f"PostgreSQL does not do it ({reason}); the same command goes on from here") from error
    typer.echo(f"{rewrapped} keys rewrapped; master key {key_id} wraps all of them")


async def _rotate(settings: Settings) -> tuple[int, str]:
    """The number of keys that were rewrapped, and the name of the master key."""
    person_keys = PersonKeys(settings)
    async with open_postgres_as_owner(settings) as engine:
        async with engine.connect() as connection:
            total = await person_keys.count_old(connection)
        rewrapped = 0
        with Progress("rotate", total, "keys") as progress:
            while count := await _rewrap(engine, person_keys):
                rewrapped += count
                progress.advance(count)
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM (FULL) person_keys"))
    return rewrapped, person_keys.newest_id


async def _rewrap(engine: AsyncEngine, person_keys: PersonKeys) -> int:
    """Some, in a transaction of their own: what is done stays done."""
    async with engine.begin() as connection:
        return await person_keys.rewrap(connection, PIECE)
