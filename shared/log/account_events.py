"""Events about accounts, except those that move money. Class names and field names are the storage format: never rename one."""

from shared.log.event_struct import EventStruct, Spent
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import MoneyEvent
from shared.log.streams import account_stream


class AccountOpened(EventStruct, frozen=True):
    """An account was opened. `overdraft_limit` is in minor units and at least 0; the balance may fall to `-overdraft_limit`."""

    account_id: str
    owner_id: str
    currency: str
    overdraft_limit: int
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountFrozen(EventStruct, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountUnfrozen(EventStruct, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountClosed(EventStruct, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class OverdraftLimitChanged(EventStruct, frozen=True):
    """The overdraft limit of an account was changed. Both limits are in minor units and at least 0."""

    account_id: str
    currency: str
    overdraft_limit: int
    overdraft_limit_before: int

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountLimitsChanged(EventStruct, frozen=True):
    """The limits of what an account may spend were changed. All are in minor units and None if there is no such limit.

    `spent` is what the limits per day and per month have counted before and go on with, or None if they begin to count.
    """

    account_id: str
    currency: str
    per_transfer_min: int | None = None
    per_transfer_max: int | None = None
    per_day: int | None = None
    per_month: int | None = None
    spent: Spent | None = None

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountMetadataChanged(EventStruct, frozen=True):
    """The key and value pairs of an account were replaced by these. None or no pairs: it has none."""

    account_id: str
    currency: str
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


AccountEvent = (
    AccountOpened  # one to a line, so that two people can add one each
    | AccountFrozen
    | AccountUnfrozen
    | AccountClosed
    | OverdraftLimitChanged
    | AccountLimitsChanged
    | AccountMetadataChanged
    | HoldPlaced
    | HoldReleased
    | HoldExpired
    | MoneyEvent
)
"""The types of events that the stream of an account can contain."""
