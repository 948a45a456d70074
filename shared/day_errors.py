"""The rejections about business days: see `shared.errors`."""

from shared.errors import Rejection


class DayNotEnded(Rejection):
    """The day has not ended yet."""

    code = "day-not-ended"
    retryable = True
    message = "The day has not ended yet: it ends at {ends_at}."


class DayOutOfOrder(Rejection):
    """Days are closed in order, and this one is not the next."""

    code = "day-out-of-order"
    message = "Days are closed in order. The next one is {next_day}."
