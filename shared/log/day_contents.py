"""Reads what the log says of a business day: its events, counted, added up, and hashed into one Merkle root.

An event belongs to the day in which it occurred, or in which it was recorded if that was earlier. So no event of a day was
recorded before the day began, and only the end of the log is read. The events are read in slices, so the memory that is needed
does not grow with them.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.business_days import bounds_of
from shared.log.day_events import CurrencyTotals, DayClosed
from shared.log.events import RecordedEvent
from shared.log.moments import read_positions_at
from shared.log.money_events import MoneyEvent
from shared.log.read import read_all
from shared.proof.merkle import Frontier, leaf_hash
from shared.timestamps import timestamp

SLICE_EVENTS: Final = 500
"""How many events are read at once. Other requests are served between two slices."""


async def read_day(connection: AsyncConnection, ledger_id: str, day: str, time_zone: str, up_to: int) -> DayClosed:
    """Returns what the events up to the position `up_to` say of a day, as the event that closes it.

    Raises:
        UnknownEvent: this code cannot read one of the events.
    """
    bounds, contents = bounds_of(day, time_zone), _Contents()
    before = datetime.fromisoformat(bounds.start) - timedelta(microseconds=1)
    position = (await read_positions_at(connection, ledger_id, [before]) or [0])[0]
    while position < up_to and (page := await read_all(connection, ledger_id, position, min(SLICE_EVENTS, up_to - position))):
        for recorded in page:
            if bounds.start <= moment_of(recorded) < bounds.end:
                contents.enter(recorded)
        position = page[-1].position
    return contents.closed(day, time_zone, up_to)


def moment_of(recorded: RecordedEvent) -> str:
    """Returns the moment at which an event belongs to a day: when it occurred, or was recorded if that was earlier."""
    recorded_at = timestamp(recorded.recorded_at)
    occurred_at = recorded.event.occurred_at if isinstance(recorded.event, MoneyEvent) else None
    return min(occurred_at or recorded_at, recorded_at)


class _Contents:
    def __init__(self) -> None:
        self._tree = Frontier()
        self._first: int | None = None
        self._last: int | None = None
        self._entries, self._moved = Counter[str](), Counter[str]()
        self._paid_in, self._paid_out = Counter[str](), Counter[str]()

    def enter(self, recorded: RecordedEvent) -> None:
        for _ in self._tree.append(leaf_hash(recorded.hash)):
            pass
        self._first, self._last = self._first or recorded.position, recorded.position
        for posting in recorded.event.postings():
            self._moved[posting.currency] += max(posting.amount, 0)
            if posting.account_id:
                self._entries[posting.currency] += 1
            elif posting.amount < 0:
                self._paid_in[posting.currency] -= posting.amount
            else:
                self._paid_out[posting.currency] += posting.amount

    def closed(self, day: str, time_zone: str, up_to: int) -> DayClosed:
        totals = tuple(
            CurrencyTotals(each, self._entries[each], str(moved), str(self._paid_in[each]), str(self._paid_out[each]))
            for each, moved in sorted(self._moved.items())
        )
        return DayClosed(
            day=day,
            time_zone=time_zone,
            up_to=up_to,
            events=self._tree.size,
            root=self._tree.root().hex(),
            first_position=self._first,
            last_position=self._last,
            totals=totals,
        )


def difference(recorded: DayClosed, computed: DayClosed) -> str:
    """Returns what a recorded closing says otherwise than the log, or nothing."""
    names = (name for name in recorded.__struct_fields__ if getattr(recorded, name) != getattr(computed, name))
    return ", ".join(names)
