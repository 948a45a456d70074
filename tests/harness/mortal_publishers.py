"""Starts publishers that die at one place, as `mortal_workers` does with workers."""

import asyncio
from typing import Final

from projector.publishing import nats_broker, publisher
from projector.publishing.publisher import publishing
from shared.publishing import checkpoints
from shared.settings import read_settings
from tests.harness.await_points import watch
from tests.harness.mortal_workers import Fate, Note, fork_each, meeting

PATH: Final = publisher, nats_broker, checkpoints
"""The modules that carry an event from the log to the broker."""


async def _publish() -> None:
    async with publishing(read_settings()):
        await asyncio.Event().wait()


def _live(fate: Fate, note: Note) -> None:
    # Unlike uvloop, asyncio's own loop sends at once: a process that is `asleep` at a point has sent its question.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        watch(runner.get_loop(), PATH, meeting(fate, note))
        runner.run(_publish())


if __name__ == "__main__":
    fork_each(_live)
