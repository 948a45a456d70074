"""Checks the events and the stored replies: the deciders decide each event again, and each reply is computed again.

The same check guards an import (see `shared.log.event_check`). It is stricter than the arithmetic of the balances, which is done
too: money on a frozen account, an unknown owner or a negative amount can add up.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.money import FoldedLog
from shared.log.event_check import Domain
from shared.log.history_check import RepliesCheck, check_history
from shared.privacy.person_keys import PersonKeys
from shared.progress import CountDone


async def verify_events(
    connection: AsyncConnection, ledger_id: str, head: int, domain: Domain, person_keys: PersonKeys, count_done: CountDone
) -> tuple[FoldedLog, RepliesCheck]:
    """Checks all events up to `head`, and returns their totals. A wrong reply raises no error, but is in the second result.

    Raises:
        DifferenceFound: the amounts and balances of an event do not agree with the events before it.
        EventImpossible: no command could have recorded an event where it is. The error names the first such position.
        UnknownEvent: this code cannot read an event.
    """
    folded = FoldedLog()
    replies = await check_history(
        connection,
        ledger_id,
        head,
        domain,
        person_keys,
        lambda recorded: folded.enter(recorded.position, recorded.event),
        count_done,
    )
    folded.books.close()
    return folded, replies
