"""Money is an integer number of a currency's minor units. Never convert it to a float."""

from decimal import Decimal
from typing import Final

from shared.currency_table import ACTIVE, HISTORICAL

AMOUNT_MAX: Final = 2**53 - 1
"""The largest absolute value of an amount or a balance. Every JSON parser and every Redis score can represent it exactly."""

CURRENCIES: Final = {**ACTIVE, **HISTORICAL}
"""Code → definition of each currency that an account can have, active or historical."""


def exponent(currency: str) -> int:
    """Returns the number of decimal places of a currency: 2 for EUR, 0 for JPY, 3 for KWD. The code must be in `CURRENCIES`."""
    return CURRENCIES[currency].exponent


def to_minor_units(amount: Decimal, currency: str) -> int:
    """Converts an amount to minor units without rounding: `Decimal("12.50")` in EUR becomes 1250.

    Raises:
        ValueError: the amount has more decimal places than the currency.
    """
    scaled = amount.scaleb(exponent(currency))
    if scaled != scaled.to_integral_value():
        msg = f"{amount} has more decimal places than {currency} ({exponent(currency)})"
        raise ValueError(msg)
    return int(scaled)
