"""Events about holds that move no money. A capture moves money: see `HoldCaptured` in `shared.log.money_events`.

Class names and field names are the storage format: never rename one. Amounts are in minor units. `expires_at` is RFC 3339 in UTC,
or None if the hold does not expire. A hold ends by itself at that moment, and `HoldExpired` only records it, at any later time.
"""

from shared.log.event_struct import EventStruct
from shared.log.streams import account_stream, hold_stream


class HoldPlaced(EventStruct, frozen=True):
    """Money of `from_account_id` was reserved. `to_account_id` is where captures go, or None for the outside world."""

    hold_id: str
    from_account_id: str
    amount: int
    currency: str
    to_account_id: str | None = None
    expires_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return hold_stream(self.hold_id), account_stream(self.from_account_id)


class HoldReleased(EventStruct, frozen=True):
    """A hold was ended before its money was captured. `amount` is what was still held."""

    hold_id: str
    from_account_id: str
    amount: int
    currency: str

    def streams(self) -> tuple[str, ...]:
        return hold_stream(self.hold_id), account_stream(self.from_account_id)


class HoldExpired(EventStruct, frozen=True):
    """A hold had ended by itself. `amount` is what was still held at that moment."""

    hold_id: str
    from_account_id: str
    amount: int
    currency: str

    def streams(self) -> tuple[str, ...]:
        return hold_stream(self.hold_id), account_stream(self.from_account_id)
