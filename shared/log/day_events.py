"""Events about business days. Class names and field names are the storage format: never rename one."""

import msgspec

from shared.log.event_struct import EventStruct
from shared.log.streams import DAYS_STREAM


class CurrencyTotals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the events of a day moved in one currency, in minor units, as texts of digits: sums can pass 2^53.

    `entries` is the number of changes of accounts. `moved` is all that accounts and the outside world got. `paid_in` came from
    the outside world, and `paid_out` went there.
    """

    currency: str
    entries: int
    moved: str
    paid_in: str
    paid_out: str


class DayClosed(EventStruct, frozen=True):
    """A day was closed: nothing that the log says of it up to the position `up_to` can change unnoticed.

    An event belongs to the day in which it occurred, or was recorded if that was earlier. `events` is how many there are up to
    `up_to`, and `first_position` and `last_position` are those of the first and the last of them, or None without any. `root` is
    the root of the Merkle tree (RFC 6962, hexadecimal) of their hashes, in the order of the log.
    """

    day: str
    time_zone: str
    up_to: int
    events: int
    root: str
    first_position: int | None = None
    last_position: int | None = None
    totals: tuple[CurrencyTotals, ...] = ()

    def streams(self) -> tuple[str, ...]:
        return (DAYS_STREAM,)


DayEvent = DayClosed
"""The types of events that the stream `days` can contain."""
