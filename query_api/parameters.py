"""What clients may ask: the parameters of each list as a strict model. A parameter that is not here is refused.

The brackets of `amount[gte]` are part of a parameter's name. Values arrive as text; nothing is taken that would have to be
guessed.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from shared.events import EVENT_TYPES
from shared.fields import Currency, Id, Moment
from shared.money import AMOUNT_MAX
from shared.read_models import ACTIVITY_MAX, search_words

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
DAYS_DEFAULT: Final = 30
POSITION_MAX: Final = 2**53 - 1

_DIGITS: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})")


def _integer(value: object) -> object:
    """Only digits: pydantic would take `1_000`, ` 7 ` and `3.0` as well."""
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            code, message = "int_parsing", "Must be a whole number of at most 16 digits"
            raise PydanticCustomError(code, message)
        return int(value)
    return value


def _searchable(value: str) -> str:
    if not search_words(value):
        code, message = "search_empty", "Must have a letter or a digit"
        raise PydanticCustomError(code, message)
    return value


def _event_type(value: object) -> object:
    if value not in EVENT_TYPES:
        raise PydanticCustomError("event_type_unknown", "Must be a type of event")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
Position = Annotated[Integer, Field(ge=0, le=POSITION_MAX)]
Amount = Annotated[Integer, Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
Search = Annotated[str, Field(min_length=1, max_length=100), BeforeValidator(_searchable)]
EventType = Annotated[str, BeforeValidator(_event_type), Field(json_schema_extra={"enum": list(EVENT_TYPES)})]
StreamId = Annotated[
    str,
    StringConstraints(pattern=r"^(user|account|transfer|email)-[0-9a-f-]{32,36}$"),
    Field(examples=["account-0198c5a0-0000-7000-8000-0000000000e1"]),
]
SealPosition = Annotated[Position, Field(examples=[42])]
ProjectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$"), Field(examples=["accounts"])]


class Parameters(BaseModel):
    """No unknown parameters, and nothing of the input in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def filters(self) -> dict[str, Any]:
        """Everything that decides which items a list has and in which order: what a cursor is bound to."""
        return self.model_dump(exclude={"limit", "cursor"}, exclude_none=True)


NoParameters = Parameters


class PageParameters(Parameters):
    limit: Annotated[Integer, Field(ge=1, le=LIMIT_MAX, description="Most items to return.")] = LIMIT_DEFAULT
    cursor: Annotated[str, Field(min_length=1, max_length=1_000, description="`next` of the page before.")] | None = None


def _bound(name: str, operator: str) -> Any:
    words = {"gt": "Only above", "gte": "Only from", "lt": "Only below", "lte": "Only up to"}
    return Field(default=None, alias=f"{name}[{operator}]", description=f"{words[operator]} this.")


class RecordedAtRange(Parameters):
    recorded_at_gt: Moment | None = _bound("recorded_at", "gt")
    recorded_at_gte: Moment | None = _bound("recorded_at", "gte")
    recorded_at_lt: Moment | None = _bound("recorded_at", "lt")
    recorded_at_lte: Moment | None = _bound("recorded_at", "lte")


class OccurredAtRange(Parameters):
    occurred_at_gt: Moment | None = _bound("occurred_at", "gt")
    occurred_at_gte: Moment | None = _bound("occurred_at", "gte")
    occurred_at_lt: Moment | None = _bound("occurred_at", "lt")
    occurred_at_lte: Moment | None = _bound("occurred_at", "lte")


class AmountRange(Parameters):
    amount_gt: Amount | None = _bound("amount", "gt")
    amount_gte: Amount | None = _bound("amount", "gte")
    amount_lt: Amount | None = _bound("amount", "lt")
    amount_lte: Amount | None = _bound("amount", "lte")


class UserParameters(PageParameters):
    status: Literal["active", "inactive", "erased"] | None = None
    search: Annotated[Search, Field(description="Words that each begin a word of the name or address.")] | None = None
    sort: Literal["created_at", "-created_at", "name", "-name"] = "created_at"


class AccountParameters(PageParameters):
    owner_id: Id | None = None
    currency: Currency | None = None
    status: Literal["open", "frozen", "closed"] | None = None
    sort: Annotated[
        Literal["opened_at", "-opened_at", "posted", "-posted"],
        Field(description="`posted` orders the accounts of one `currency`."),
    ] = "opened_at"

    @model_validator(mode="after")
    def _comparable(self) -> "AccountParameters":
        if self.sort.endswith("posted") and self.currency is None:
            code, message = "currency_missing", "Balances can be ordered within one currency only: add currency="
            raise PydanticCustomError(code, message)
        return self


class TransferParameters(PageParameters, RecordedAtRange, OccurredAtRange, AmountRange):
    account_id: Annotated[Id, Field(description="On either side.")] | None = None
    currency: Currency | None = None
    sort: Annotated[
        Literal["recorded_at", "-recorded_at", "position", "-position", "occurred_at", "-occurred_at", "amount", "-amount"],
        Field(description="`position` and `recorded_at` are the same order."),
    ] = "-recorded_at"


class EntryParameters(PageParameters, RecordedAtRange, AmountRange):
    sort: Annotated[
        Literal["recorded_at", "-recorded_at", "position", "-position"],
        Field(description="`position` and `recorded_at` are the same order."),
    ] = "-recorded_at"


class EventParameters(PageParameters):
    after: Annotated[Position, Field(description="Only events after this position.")] = 0
    type: EventType | None = None
    stream: StreamId | None = None


class PushParameters(Parameters):
    after: Annotated[Position | None, Field(description="Only events after this position. Default: those yet to come.")] = None
    type: EventType | None = None
    stream: StreamId | None = None


class StreamParameters(PageParameters):
    after: Annotated[Position, Field(description="Only events after this version of the stream.")] = 0


class SealParameters(PageParameters):
    pass


class RefusalParameters(PageParameters):
    pass


class ConsistencyParameters(Parameters):
    from_position: Annotated[Position, Field(alias="from", ge=1, description="The position of the earlier seal.", examples=[7])]


class ActivityParameters(Parameters):
    limit: Annotated[Integer, Field(ge=1, le=ACTIVITY_MAX, description="Most items to return.")] = LIMIT_DEFAULT


class StatisticsParameters(Parameters):
    currency: Annotated[Currency, Field(description="Rank the accounts of this currency by balance.")] | None = None
    days: Annotated[Integer, Field(ge=1, le=366, description="How many of the latest days with transfers.")] = DAYS_DEFAULT
    top: Annotated[Integer, Field(ge=1, le=LIMIT_MAX, description="How many of the busiest and richest accounts.")] = 10
