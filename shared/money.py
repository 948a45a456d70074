"""Money is an integer count of a currency's minor units. Never make a float of it."""

from decimal import Decimal
from typing import Final

from iso4217 import Currency

AMOUNT_MAX: Final = 2**53 - 1
"""Largest magnitude of an amount and of a balance: what every JSON reader and a Redis score hold exactly."""

_EXPONENTS: Final[dict[str, int]] = {c.code: c.exponent for c in Currency if c.exponent is not None}

CURRENCIES: Final = frozenset(_EXPONENTS)
"""ISO 4217 codes that have a minor unit; the codes for metals, tests and «no currency» have none."""


def exponent(currency: str) -> int:
    """Decimal places of a known currency: 2 for EUR, 0 for JPY, 3 for KWD."""
    return _EXPONENTS[currency]


def to_minor_units(amount: Decimal, currency: str) -> int:
    """Exact: `Decimal("12.50")`, EUR → 1250.

    Raises:
        ValueError: the amount has more decimal places than the currency.
    """
    scaled = amount.scaleb(exponent(currency))
    if scaled != scaled.to_integral_value():
        msg = f"{amount} has more decimal places than {currency} ({exponent(currency)})"
        raise ValueError(msg)
    return int(scaled)
