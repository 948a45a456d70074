"""The rejections about reversals: see `shared.errors`."""

from shared.errors import Rejection


class TransferNotReversible(Rejection):
    """A reversal cannot be reversed, and neither can an exchange or a transfer with postings."""

    code = "transfer-not-reversible"


class TransferAlreadyReversed(Rejection):
    """All money of the transfer has moved back already."""

    code = "transfer-already-reversed"
    message = "All money of the transfer has moved back already: {reversed}."


class ReversalAmountExceeded(Rejection):
    """Less than that can still be reversed."""

    code = "reversal-amount-exceeded"
    message = "Less than that can still be reversed: remaining {remaining}, required {required}."


class TooManyReversals(Rejection):
    """The transfer was reversed in as many parts as it may be."""

    code = "too-many-reversals"
    message = "The transfer was reversed in {reversals_max} parts, as many as it may be. Make a transfer instead."
