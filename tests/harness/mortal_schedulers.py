"""Starts processes that make the runs of schedules and die at one place, as `mortal_workers` does with workers.

Such a process does what the worker and the command API do for a run, one after the other: it finds the run, publishes it, hears
of it, decides it and appends it.
"""

import asyncio
from typing import Final, NoReturn

from command_api import due_runs, worker_messages
from command_api.due_runs import make_due_runs
from command_api.writer import ledger_writer, transaction
from command_api.writer.ledger_writer import CommandHandler
from projector import due
from projector.due import SCHEDULED_RUNS, DueTeller
from shared.settings import Settings, read_settings
from shared.stores.all_stores import Stores, open_stores
from shared.stores.postgres import open_postgres
from tests.harness.await_points import watch
from tests.harness.mortal_workers import Fate, Note, fork_each, meeting

PATH: Final = due, worker_messages, due_runs, ledger_writer, transaction
"""The modules that take a run from the read model to the log."""

LOOK_SECONDS: Final = 0.05


async def keep_scheduling(stores: Stores, handler: CommandHandler) -> NoReturn:
    """Makes the runs that are due, for ever."""
    making = asyncio.create_task(make_due_runs(stores.redis, handler))
    teller = DueTeller(SCHEDULED_RUNS)
    try:
        while True:
            await teller.tell(stores)
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        making.cancel()
        await asyncio.wait([making])


async def _schedule(settings: Settings) -> None:
    async with open_stores(settings, "daybook_projector") as stores, open_postgres(settings, "daybook_command") as engine:
        await asyncio.gather(stores.redis.ping(), stores.redis.ping())  # so that no step has to connect first
        await keep_scheduling(stores, CommandHandler(engine, settings, lambda _: None))


def _live(fate: Fate, note: Note) -> None:
    # Unlike uvloop, asyncio's own loop sends at once: a process that is `asleep` at a point has sent its question.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        watch(runner.get_loop(), PATH, meeting(fate, note))
        runner.run(_schedule(read_settings()))


if __name__ == "__main__":
    fork_each(_live)
