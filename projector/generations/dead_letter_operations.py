"""Lists and retries dead letters for an operator, and skips events."""

from collections.abc import Awaitable, Callable

import msgspec

from projector.generations.operations import Operations
from projector.generations.operator_rebuilds import rebuild_showing
from shared.errors import EventNotApplied, NotFound
from shared.log.read import StoredEvent, read_stored
from shared.progress import ShowProgress
from shared.read_models.dead_letters import DeadLetter


class ListedDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter and its read model. `parked_streams` and `put_aside` (events) count for the whole read model."""

    projection: str
    letter: DeadLetter
    parked_streams: int
    put_aside: int


class SkippedEvent(msgspec.Struct, frozen=True):
    """The result of a skip: the position of the read model after its rebuild, and its remaining dead letters."""

    position: int
    letters: list[DeadLetter]


async def list_dead_letters(one: Operations) -> list[ListedDeadLetter]:
    aside, letters = await one.aside()
    return [ListedDeadLetter(one.projection.name, letter, aside.parked, aside.put_aside) for letter in letters]


async def find_dead_letter(one: Operations, position: int) -> tuple[ListedDeadLetter, StoredEvent]:
    """Returns the dead letter at a position, and its event as stored.

    Raises:
        NotFound: the read model has no dead letter there.
    """
    found = await _find(one, position)
    async with one.engine.connect() as connection:
        [stored] = await read_stored(connection, one.generations.feed.ledger_id, position - 1, 1)
    return found, stored


async def _find(one: Operations, position: int) -> ListedDeadLetter:
    for listed in await list_dead_letters(one):
        if listed.letter.position == position:
            return listed
    raise NotFound(f"{one.projection.name} has no dead letter at {position}; see `daybook dead-letters list`")


async def retry_dead_letters(one: Operations, show_progress: ShowProgress) -> int:
    """Rebuilds the read model. The new generation becomes live only if every event could be applied. Returns its position.

    Raises:
        NotFound: the read model has no dead letters.
        EventNotApplied: an event still cannot be applied. The read model has not changed.
    """
    if not (await one.aside())[1]:
        raise NotFound(f"{one.projection.name} has no dead letters")
    try:
        return (await rebuild_showing(one.strict_generations(), one.generations.feed.head, show_progress)).position
    except EventNotApplied as not_applied:
        raise EventNotApplied(f"{not_applied.detail}; nothing has changed", **not_applied.extra) from not_applied.__cause__


async def skip_event(
    one: Operations, position: int, record_skip: Callable[[], Awaitable[None]], show_progress: ShowProgress
) -> SkippedEvent:
    """Records that an event is left out permanently, and rebuilds the read model without it.

    `record_skip` must append the decision to the log. If the rebuild is interrupted, a worker finishes it.

    Raises:
        NotFound: the event is neither a dead letter nor the event at which the read model has stopped.
    """
    if await one.stopped_at() != position:
        await _find(one, position)
    await record_skip()
    built = await rebuild_showing(one.generations, await one.generations.feed.refresh(), show_progress)
    return SkippedEvent(built.position, (await one.aside())[1])
