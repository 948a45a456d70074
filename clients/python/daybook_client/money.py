"""Amounts with their currency. An amount is an integer number of minor units, and never a float."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

EXACT = Context(prec=60)
"""More digits than any amount has, whatever the context of the caller rounds to."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency. `Daybook.money` makes one, because it knows the currency's exponent."""

    minor_units: int
    currency: str
    exponent: int
    """The number of decimal places of the currency: 2 for EUR, 0 for JPY."""

    @property
    def decimal(self) -> Decimal:
        """The amount in major units: `Decimal("12.50")` for 1250 minor units of EUR."""
        return Decimal(self.minor_units).scaleb(-self.exponent, EXACT)

    def __str__(self) -> str:
        return f"{self.decimal:f} {self.currency}"

    def __neg__(self) -> "Money":
        return Money(-self.minor_units, self.currency, self.exponent)

    def __add__(self, other: "Money") -> "Money":
        """Adds money of the same currency.

        Raises:
            ValueError: the currencies differ.
        """
        if (other.currency, other.exponent) != (self.currency, self.exponent):
            raise ValueError(f"{self.currency} and {other.currency} cannot be added")
        return Money(self.minor_units + other.minor_units, self.currency, self.exponent)

    def __sub__(self, other: "Money") -> "Money":
        """Subtracts money of the same currency.

        Raises:
            ValueError: the currencies differ.
        """
        return self + -other


class Exponents:
    """Makes `Money` with the exponents that `GET /v1/currencies` lists."""

    def __init__(self, currencies: Mapping[str, int]) -> None:
        self._exponents = currencies

    def money(self, amount: Decimal | str, currency: str) -> Money:
        """Makes `Money` of an amount in major units.

        Raises:
            ValueError: the currency is unknown, or the amount is no number or has more decimal places than the currency.
            TypeError: the amount is a float or an int, which does not say whether it means major or minor units.
        """
        if not isinstance(amount, (Decimal, str)):
            raise TypeError(f"an amount is a Decimal or a text of digits, and not a {type(amount).__name__}")
        exponent = self._exponent(currency)
        try:
            scaled = Decimal(amount).scaleb(exponent, EXACT)
            minor_units = int(scaled)
        except (ArithmeticError, ValueError):
            raise ValueError(f"{amount!r} is no amount") from None
        if scaled != minor_units:
            raise ValueError(f"{amount} has more decimal places than {currency} ({exponent})")
        return Money(minor_units, currency, exponent)

    def money_of(self, answer: Mapping[str, Any], member: str = "amount") -> Money:
        """Reads a member of an answer that has minor units, beside the member `currency` or, for `to_amount`, `to_currency`."""
        currency = answer[currency_member(member)] if member.endswith("amount") else answer["currency"]
        return Money(int(answer[member]), currency, self._exponent(currency))

    def _exponent(self, currency: str) -> int:
        try:
            return self._exponents[currency]
        except KeyError:
            raise ValueError(f"{currency!r} is none of the currencies that GET /v1/currencies lists") from None


def currency_member(member: str) -> str:
    """Returns the member with the currency of an amount: `currency` for `amount`, and `from_currency` for `from_amount`."""
    return f"{member.removesuffix('amount')}currency"
