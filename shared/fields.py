"""The types of fields that both APIs take from clients: validated once, stored and compared in one form."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from shared.events import timestamp
from shared.money import CURRENCIES

_UUID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
Id = Annotated[str, StringConstraints(pattern=_UUID, to_lower=True), Field(json_schema_extra={"format": "uuid"})]

LEDGER_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


def _known_currency(value: str) -> str:
    if value not in CURRENCIES:
        code, message = "currency_unknown", "Must be an ISO 4217 code with a minor unit"
        raise PydanticCustomError(code, message)
    return value


Currency = Annotated[str, Field(examples=["EUR"]), AfterValidator(_known_currency)]

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_YEARS: Final = range(1900, 2200)
_OFFSET_MAX: Final = timedelta(hours=14)


def _moment(value: object) -> str:
    """RFC 3339 with a zone, to the text that events hold."""
    code, message = "timestamp_invalid", "Must be an RFC 3339 timestamp with a zone, of the years 1900 to 2199"
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise PydanticCustomError(code, message)
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise PydanticCustomError(code, message) from None
    offset = moment.utcoffset()
    if moment.year not in _YEARS or offset is None or abs(offset) > _OFFSET_MAX:
        raise PydanticCustomError(code, message)
    return timestamp(moment.astimezone(UTC))


Moment = Annotated[
    str,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T09:30:00Z"]}),
]
