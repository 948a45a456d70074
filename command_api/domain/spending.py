"""The rules of what an account may spend in one transfer, a day and a month. Withdrawals, transfers and captures are spending.

Days and months are those of UTC, and the time that counts is that at which the log records the spending. A limit counts what was
spent since the account has it. Each event that spends contains what was spent after it, so no fold of events needs a clock.
"""

import msgspec

from shared.limit_errors import AmountOutsideLimits, LimitExceeded
from shared.log.event_struct import Spent
from shared.spending_periods import reset_of


class SpendingLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of an account, in minor units. None is no limit."""

    per_transfer_min: int | None = None
    per_transfer_max: int | None = None
    per_day: int | None = None
    per_month: int | None = None

    @property
    def are_counted(self) -> bool:
        return self.per_day is not None or self.per_month is not None


NO_LIMITS = SpendingLimits()


def spent_until(limits: SpendingLimits, spent: Spent | None, now: str) -> Spent:
    """Returns what was spent in the day and the month of `now`, as far as these limits count it. `now` is RFC 3339 in UTC."""
    day = now[:10]
    if spent is None:
        return Spent(day)
    today = spent.today if spent.day == day and limits.per_day is not None else 0
    in_month = spent.in_month if spent.day[:7] == day[:7] and limits.per_month is not None else 0
    return Spent(day, today, in_month)


def spend(limits: SpendingLimits | None, spent: Spent | None, amount: int, now: str) -> Spent | None:
    """Returns what was spent after `amount` is spent too, or None if no limit counts it.

    Raises:
        AmountOutsideLimits: the amount is smaller or larger than the limits for one transfer allow.
        LimitExceeded: with the amount, more would be spent in the day or, if not that, in the month than the limit.
    """
    if limits is None:
        return None
    smallest, largest = limits.per_transfer_min, limits.per_transfer_max
    if (smallest is not None and amount < smallest) or (largest is not None and amount > largest):
        raise AmountOutsideLimits(smallest=smallest, largest=largest)
    if not limits.are_counted:
        return None
    before = spent_until(limits, spent, now)
    for period, limit, used in (("day", limits.per_day, before.today), ("month", limits.per_month, before.in_month)):
        if limit is not None and used + amount > limit:
            raise LimitExceeded(limit=limit, used=used, period=period, resets_at=reset_of(before.day)[period])
    today = before.today + amount if limits.per_day is not None else 0
    in_month = before.in_month + amount if limits.per_month is not None else 0
    return Spent(before.day, today, in_month)
