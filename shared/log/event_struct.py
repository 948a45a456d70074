"""The base class of all events."""

from typing import ClassVar, NamedTuple

import msgspec

from shared.schedule_rules import PlannedRun


class Posting(NamedTuple):
    """The change that an event makes to one account. The amounts of all postings of an event in one currency sum to zero.

    `amount` is in minor units and is negative if money leaves the account. `balance` is the account's balance after the event.
    `account_id` and `balance` are None for the outside world, which is not an account.
    """

    account_id: str | None
    currency: str
    amount: int
    balance: int | None


class Spent(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an account has spent on `day`, a date in UTC, and in its month, in minor units, as far as a limit counts it."""

    day: str
    today: int = 0
    in_month: int = 0


class ScheduledRun(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The run of a schedule that made a transfer. `number` counts its runs from 1. `next_run` is None if it was the last one."""

    schedule_id: str
    number: int
    next_run: PlannedRun | None = None


class EventStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base class of an event. Events are immutable and compared by value. A field with its default value is not stored."""

    schema_version: ClassVar[int] = 1

    def streams(self) -> tuple[str, ...]:
        """Returns the ids of the streams that this event belongs to. The first is the stream of its subject."""
        raise NotImplementedError

    def postings(self) -> tuple[Posting, ...]:
        """Returns the changes that this event makes to accounts. Only events that move money override this."""
        return ()
