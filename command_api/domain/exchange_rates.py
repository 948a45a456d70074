"""Exact amounts in another currency: rates, their products, and what rounding leaves. No number here is ever a float.

A rate has at most 12 decimal places, and a currency at most 4. So every exact amount in minor units is a decimal number with at
most 16 places.
"""

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shared.money import exponent

PLACES_MAX: Final = 16


def _not_zero(rate: str) -> str:
    if not rate.strip("0."):
        code, message = "rate_zero", "Must be more than 0"
        raise PydanticCustomError(code, message)
    return rate


Rate = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$",
        description="How many units of `to_currency` one unit of `from_currency` gives, as a decimal number: `1.0834` says that "
        "1 EUR is 1.0834 USD. A text, because many programs read the numbers of JSON as floats.",
    ),
    AfterValidator(_not_zero),
]


def exchanged(amount: int, from_currency: str, to_currency: str, rate: str) -> Fraction:
    """Returns what an amount in minor units is worth in minor units of another currency, exactly."""
    return amount * Fraction(rate) * Fraction(10) ** (exponent(to_currency) - exponent(from_currency))


def decimal_text(number: Fraction) -> str:
    """Writes a number with at most `PLACES_MAX` decimal places, without zeros at its end: `-0.25`."""
    return f"{Decimal(int(number * 10**PLACES_MAX)).scaleb(-PLACES_MAX).normalize():f}"
