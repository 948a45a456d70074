"""The rejections about ledgers: see `shared.errors`."""

from shared.errors import Rejection


class LedgerIsClosed(Rejection):
    """The ledger is closed."""

    code = "ledger-closed"


class CurrencyNotAllowed(Rejection):
    """The ledger has no accounts in this currency."""

    code = "currency-not-allowed"
    message = "The ledger has no accounts in this currency. Its currencies are {currencies}."


class LedgerLimitExceeded(Rejection):
    """The amount is larger than the ledger allows in one transfer."""

    code = "ledger-limit-exceeded"
    message = "The amount is larger than the ledger allows in one transfer: {transfer_max} {currency}, in minor units."
