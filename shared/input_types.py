"""Types of request fields that both APIs use. Each type validates a value and converts it to the one form that is stored."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from shared.money import CURRENCIES
from shared.time_zones import find_time_zone
from shared.timestamps import timestamp

_UUID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
Id = Annotated[str, StringConstraints(pattern=_UUID, to_lower=True), Field(json_schema_extra={"format": "uuid"})]

LEDGER_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
"""The id of a ledger. It has no full stop, slash or `@`: `shared.read_models.documents` rests on that."""


def _ledger_id(value: str) -> str:
    if not LEDGER_ID.fullmatch(value):
        code = "ledger_id_invalid"
        message = "Must be at most 31 lower-case letters, digits and hyphens, and begin with a letter"
        raise PydanticCustomError(code, message)
    return value


LedgerId = Annotated[
    str,
    AfterValidator(_ledger_id),
    WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,30}$", "examples": ["acme"]}),
]

ProjectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$"), Field(examples=["accounts"])]
"""The name of a read model, which may not exist."""

ApiKeyId = Annotated[str, StringConstraints(pattern=r"^[a-z2-7]{10}$"), Field(examples=["k3vq7m2xnp"])]
"""The id of an API key, which may not exist."""

_POSITION: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


def _position(value: object) -> int:
    if not isinstance(value, str) or not _POSITION.fullmatch(value):
        code, message = "position_invalid", "Must be a whole number from 1"
        raise PydanticCustomError(code, message)
    return int(value)


EventPosition = Annotated[int, BeforeValidator(_position), Field(ge=1, le=2**53 - 1, examples=[812])]
"""The position of an event, as it is written in a path."""

_TIME_ZONE: Final = re.compile(r"UTC|[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+")


def _known_time_zone(value: str) -> str:
    if _TIME_ZONE.fullmatch(value) and find_time_zone(value):
        return value
    code, message = "time_zone_unknown", "Must be UTC or a name of the IANA time zone database, such as Europe/Berlin"
    raise PydanticCustomError(code, message)


TimeZone = Annotated[str, Field(examples=["Europe/Berlin"]), AfterValidator(_known_time_zone)]


def _known_currency(value: str) -> str:
    if value not in CURRENCIES:
        code, message = "currency_unknown", "Must be an ISO 4217 code with a minor unit"
        raise PydanticCustomError(code, message)
    return value


Currency = Annotated[str, Field(examples=["EUR"]), AfterValidator(_known_currency)]

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(?:\.(\d{1,6})\d*)?([Zz]|[+-](?:0\d|1[0-4]):[0-5]\d)",
    re.ASCII,
)
_YEARS: Final = range(1900, 2200)
_OFFSET_MAX: Final = timedelta(hours=14)


def _calendar_day(value: str) -> str:
    try:
        if date.fromisoformat(value).isoformat() == value and int(value[:4]) in _YEARS:
            return value
    except ValueError:
        pass
    code, message = "day_invalid", "Must be a day such as 2026-01-31, of the years 1900 to 2199"
    raise PydanticCustomError(code, message)


Day = Annotated[
    str,
    AfterValidator(_calendar_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-01-31"]}),
]
MOMENT_DESCRIPTION: Final = (
    "RFC 3339 with a time zone, of the years 1900 to 2199 in UTC. Daybook keeps it in UTC with microseconds: further digits of a "
    "second are cut off. A leap second (`:60`) is refused."
)


def _moment(value: object) -> str:
    """Converts RFC 3339 text with a time zone to the form that events store.

    Digits after the microseconds are cut off and not rounded, because rounding could give a moment in the future. What this
    returns is accepted again, so each moment that was stored can be used in a filter.
    """
    code, message = "timestamp_invalid", "Must be an RFC 3339 timestamp with a zone, of the years 1900 to 2199 in UTC"
    parts = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise PydanticCustomError(code, message)
    minute, second, fraction, zone = parts.groups()
    if second == "60":
        raise PydanticCustomError("leap_second", "Must not be a leap second, which cannot be stored: send the second :59 instead")
    try:
        moment = datetime.fromisoformat(f"{minute}{second}.{fraction or 0:0<6}{zone}".upper())
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError(code, message) from None
    offset = moment.utcoffset()
    if in_utc.year not in _YEARS or offset is None or abs(offset) > _OFFSET_MAX:
        raise PydanticCustomError(code, message)
    return timestamp(in_utc)


Moment = Annotated[
    str,
    BeforeValidator(_moment),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "description": MOMENT_DESCRIPTION, "examples": ["2026-11-21T09:30:00Z"]}
    ),
]
