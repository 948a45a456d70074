"""The rejections about holds: see `shared.errors`."""

from shared.errors import Rejection


class HoldExpiryPassed(Rejection):
    """The hold would have expired already."""

    code = "hold-expiry-passed"
    message = "The hold would have expired already: it is {now}."


class TooManyHolds(Rejection):
    """The account has as many holds as it may have."""

    code = "too-many-holds"
    retryable = True
    message = "The account has {holds_max} holds, as many as it may have. Capture or release some of them."


class HoldNotActive(Rejection):
    """The hold has ended."""

    code = "hold-not-active"
    message = "The hold has ended: it is {hold_status}."


class HoldAmountExceeded(Rejection):
    """The hold holds less than that."""

    code = "hold-amount-exceeded"
    message = "The hold holds less than that: remaining {remaining}, required {required}."
