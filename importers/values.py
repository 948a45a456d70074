"""Reads the values of foreign files: amounts, dates, currencies, texts. Each reader raises ValueError with a reason for the user.

An amount is never a float: its digits become an integer of minor units.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from importers.faults import quoted
from shared.input_types import Moment
from shared.money import AMOUNT_MAX, CURRENCIES, exponent
from shared.text_types import DisplayName, EmailAddress, Reference

_POINT: Final = re.compile(r"(?P<sign>[+-]?)(?P<whole>\d{1,30})(?:\.(?P<fraction>\d{1,30}))?", re.ASCII)
_COMMA: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3}(?P<group>[.\u00a0\u202f' ])\d{3}(?:(?P=group)\d{3}){0,8}|\d{1,30})"
    r"(?:,(?P<fraction>\d{1,30}))?",
    re.ASCII,
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LOCAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)
_TRIED_DATE: Final = datetime(2003, 2, 1, tzinfo=UTC)

_MOMENT: Final[TypeAdapter[str]] = TypeAdapter(Moment)
_TEXTS: Final[dict[str, TypeAdapter[str]]] = {
    "name": TypeAdapter(DisplayName),
    "email": TypeAdapter(EmailAddress),
    "reference": TypeAdapter(Reference),
}


def read_amount(text: str, currency: str, *, decimal_comma: bool) -> int:
    """Returns an amount in minor units, negative if it has a minus sign: "12.50" in EUR is 1250.

    If the currency is not known, `currency` is empty, and the decimal places are not checked.
    """
    found = (_COMMA if decimal_comma else _POINT).fullmatch(text)
    if found is None:
        if not decimal_comma and _COMMA.fullmatch(text):
            raise ValueError(f"{quoted(text)} has a decimal comma: use --decimal-comma")
        example = "1.234,50" if decimal_comma else "1234.50"
        raise ValueError(f"{quoted(text)} is not an amount: write it as in {example}")
    sign, whole, fraction = found["sign"], found["whole"], found["fraction"] or ""
    places = exponent(currency) if currency else len(fraction)
    if len(fraction) > places:
        raise ValueError(f"{quoted(text)} has {len(fraction)} decimal places, and {currency} has {places}")
    amount = int(re.sub(r"\D", "", whole, flags=re.ASCII) + fraction.ljust(places, "0"))
    if amount > AMOUNT_MAX:
        raise ValueError(f"{quoted(text)} is larger than {AMOUNT_MAX} minor units")
    return -amount if sign == "-" else amount


def read_currency(text: str) -> str:
    if text not in CURRENCIES:
        raise ValueError(f"{quoted(text)} is not an ISO 4217 code of a currency, such as EUR")
    return text


@lru_cache(maxsize=4_096)  # many rows have the same date
def read_date(text: str, date_format: str | None) -> str:
    """Returns a point in time in the form that events have. A date is its midnight, and a time without a zone is in UTC."""
    moment_text = text
    if date_format is None:
        if _DATE.fullmatch(text):
            moment_text = f"{text}T00:00:00Z"
        elif found := _LOCAL_TIME.fullmatch(text):
            moment_text = text.replace(" ", "T") + ("Z" if found[1] else ":00Z")
    else:
        try:
            moment = datetime.strptime(text, date_format)  # noqa: DTZ007 # the zone is set below
            moment_text = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
        except ValueError:
            raise ValueError(f"{quoted(text)} is not a date of the form {date_format}") from None
    try:
        return _MOMENT.validate_python(moment_text)
    except ValidationError:
        example = "2026-11-21 or 2026-11-21T09:30:00Z, of the years 1900 to 2199"
        raise ValueError(f"{quoted(text)} is not a date such as {example} (--dates sets another form)") from None


def require_date_format(text: str) -> None:
    """Checks that a form of dates, as of `datetime.strptime`, is one, and tells the day, the month and the year."""
    try:
        written = _TRIED_DATE.strftime(text)
        read = datetime.strptime(written, text)  # noqa: DTZ007 # only the date is compared
    except (ValueError, re.error):
        read = None
    if read is None or read.date() != _TRIED_DATE.date():
        raise ValueError(f"{quoted(text)} is not a form of dates with day, month and year, such as %d.%m.%Y")


def read_text(text: str, kind: str) -> str:
    """Returns a text that the command API takes as a `name`, an `email` or a `reference`."""
    try:
        return _TEXTS[kind].validate_python(text)
    except ValidationError as error:
        raise ValueError(f"{quoted(text)}: {_reason(error)}") from None


def _reason(error: ValidationError) -> str:
    message: Any = error.errors(include_url=False, include_input=False)[0]["msg"]
    if "should match pattern" in message:
        return "is not an e-mail address of ASCII letters"
    return f"{message[:1].lower()}{message[1:]}"
