"""Checks the hash chain: the log has no gaps, and the hash of each event follows from the event and the hash before it.

The log is read in slices while commands are being recorded. Events that are appended after the start are checked in the next run.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.difference import DifferenceFound, require_equal
from shared.log.heads import Head, read_ends, read_head, read_recorded
from shared.log.read import READ_EVENTS_MAX, StoredEvent, read_stored
from shared.progress import CountDone

LOWEST_POSITION: Final = -(2**62)
"""A position before all others. Reading starts here, so that a forged row with a negative position is read too."""


async def verify_chain(connection: AsyncConnection, ledger_id: str, count_done: CountDone) -> Head:
    """Checks every event from the first to the head, and returns the head.

    Raises:
        DifferenceFound: an event is missing or was changed. The error names the first such position.
    """
    head = await read_head(connection, ledger_id)
    last = Head(0, b"", head.now)
    while last.position < head.position:
        limit = min(READ_EVENTS_MAX, head.position - last.position)
        page = await read_stored(connection, ledger_id, last.position or LOWEST_POSITION, limit)
        if not page:
            raise DifferenceFound(f"position {last.position + 1} of the log", "an event", None)
        for stored in page:
            last = _verify_link(last, stored)
        count_done(len(page))
    require_equal(f"head of the log at {head.position}, hash", head.hash.hex(), last.hash.hex())
    await _verify_ends(connection, ledger_id)
    if recorded := await read_recorded(connection, ledger_id):
        position, of_head, of_event = recorded
        require_equal(f"head of the log at {position}, recorded_at", str(of_event), str(of_head))
    return head


async def _verify_ends(connection: AsyncConnection, ledger_id: str) -> None:
    """Checks that no event has a position below 1 or after the head.

    Events and the head are written in one transaction, so this is true at every moment.
    """
    head, first, last = await read_ends(connection, ledger_id)
    for position, is_there in ((first, first < 1), (head + 1, last > head)):
        if is_there:
            raise DifferenceFound(f"position {position} of the log", "no event outside 1 to the head", f"one at {position}")


def _verify_link(last: Head, stored: StoredEvent) -> Head:
    require_equal("the next position of the log", last.position + 1, stored.position)
    where = f"position {stored.position} of the log (event {stored.event_id}, {stored.type}), hash"
    try:
        computed = stored.computed_hash(last.hash)
    except ValueError as error:
        raise DifferenceFound(where, "JSON that Daybook writes", str(error)) from error
    if computed != stored.hash:
        raise DifferenceFound(where, computed.hex(), stored.hash.hex())
    return Head(stored.position, stored.hash, stored.recorded_at)
