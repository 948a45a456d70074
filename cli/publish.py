"""`daybook publish`: shows how far events are published to the broker, and publishes them again."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from cli.arguments import POSITION_MAX, LedgerOption
from cli.tables import print_table
from shared.errors import NotFound
from shared.publishing.checkpoints import PublishedLedger, read_published, rewind
from shared.settings import Settings, read_settings
from shared.stores.postgres import open_postgres

PUBLISHED_COLUMNS: Final = ("published ledger", "position", "lag_events", "lag_seconds", "cause")


def published_rows(ledgers: Iterable[PublishedLedger]) -> list[tuple[Any, ...]]:
    """Returns a row of `PUBLISHED_COLUMNS` for each ledger."""
    return [(each.ledger_id, each.position, each.lag_events, round(each.lag_seconds, 3), each.cause) for each in ledgers]


def publish(
    *,
    start: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="POSITION", min=1, max=POSITION_MAX, help="Publish the events from this position on (again)."
        ),
    ] = None,
    ledger: LedgerOption = "main",
) -> None:
    """Show how far each ledger is published, or publish it again from an event on.

    With --from, the worker sends the events of the ledger from this position on, in order, as if it had never sent them. The
    topic then has them twice, unless you have deleted it before. Consumers drop repeats by the position. NATS drops those that it
    got in the last two minutes.

    Example: daybook publish --from 1
    """
    settings = read_settings()
    if start is None:
        print_table(PUBLISHED_COLUMNS, published_rows(asyncio.run(_read(settings))))
        return
    if not asyncio.run(_rewind(settings, ledger, start)):
        raise NotFound(f"There is no event {start} in a ledger {ledger!r}.")
    typer.echo(f"{ledger}: the worker publishes the events from {start} on")


async def _read(settings: Settings) -> list[PublishedLedger]:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        return await read_published(connection)


async def _rewind(settings: Settings, ledger_id: str, start: int) -> bool:
    async with open_postgres(settings, "daybook_projector") as engine, engine.begin() as connection:
        return await rewind(connection, ledger_id, start - 1)
