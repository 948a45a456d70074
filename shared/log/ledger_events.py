"""Events about a ledger itself. Class names and field names are the storage format: never rename one.

They do not repeat the id of the ledger, which every recorded event has.
"""

from shared.log.event_struct import EventStruct
from shared.log.streams import LEDGER_STREAM


class LedgerCreated(EventStruct, frozen=True):
    """The ledger was created. This is the first event of its log. Older ledgers, and `main`, may begin without it.

    `time_zone` is a name of the IANA database. `currencies` are those in which accounts can be opened, or None for all.
    `transfer_max` has the largest amount of a transfer by currency, in minor units. A currency that it lacks has no limit.
    """

    name: str
    time_zone: str = "UTC"
    currencies: tuple[str, ...] | None = None
    transfer_max: dict[str, int] | None = None

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)


class LedgerChanged(EventStruct, frozen=True):
    """The settings of the ledger were replaced by these, which are as in `LedgerCreated`. Its time zone stays."""

    name: str
    currencies: tuple[str, ...] | None = None
    transfer_max: dict[str, int] | None = None

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)


class LedgerClosed(EventStruct, frozen=True):
    """The ledger was closed permanently. It can still be read."""

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)


LedgerEvent = LedgerCreated | LedgerChanged | LedgerClosed
"""The types of events that the stream `ledger` can contain."""
