"""The rejections about limits of accounts: see `shared.errors`."""

from shared.errors import Rejection


class AmountOutsideLimits(Rejection):
    """The amount is smaller or larger than the account may spend in one transfer."""

    code = "amount-outside-limits"
    message = "The amount is outside the limits of the account: smallest {smallest}, largest {largest}."


class LimitExceeded(Rejection):
    """The account would spend more in a day or a month than its limit."""

    code = "limit-exceeded"
    retryable = True
    message = "The account may spend {limit} in a {period}, and has spent {used}. The limit resets at {resets_at}."
