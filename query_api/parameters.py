"""Query parameters that several resources share. Each list has a strict model of its parameters, which rejects all others.

The brackets in `amount[gte]` are part of the parameter's name. Values arrive as text. A text that does not have exactly the
expected form is rejected and never converted by guessing.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from shared.input_types import Moment
from shared.money import AMOUNT_MAX
from shared.text_types import Reference

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
POSITION_MAX: Final = 2**53 - 1

_DIGITS: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})")


def _integer(value: object) -> object:
    """Converts a text of digits to a number, and rejects other texts. pydantic would also accept `1_000`, ` 7 ` and `3.0`."""
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            code, message = "int_parsing", "Must be a whole number of at most 16 digits"
            raise PydanticCustomError(code, message)
        return int(value)
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
PositionParameter = Annotated[Integer, Field(ge=0, le=POSITION_MAX)]
AmountParameter = Annotated[Integer, Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]


class Parameters(BaseModel):
    """The base of the models of query parameters. It rejects unknown parameters, and its errors never quote the input."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def filters(self) -> dict[str, Any]:
        """Returns the parameters that choose and order the items of a list. A cursor is bound to them."""
        return self.model_dump(exclude={"limit", "cursor"}, exclude_none=True)


class PageParameters(Parameters):
    limit: Annotated[Integer, Field(ge=1, le=LIMIT_MAX, description="The maximum number of items on a page.")] = LIMIT_DEFAULT
    cursor: Annotated[str, Field(min_length=1, max_length=1_000, description="The `next` of the previous page.")] | None = None


class ServedParameters(PageParameters):
    """The base of the parameters of a list that an index reads in each of its orders, with some filters.

    Without `sort`, the list has the first order that serves all its filters. Other combinations are rejected, because
    MongoDB would have to read documents that do not match, without a bound.
    """

    served: ClassVar[Mapping[str, frozenset[str]]]
    """The filters that each order serves, by the value of `sort`. An order serves them in both directions."""

    @model_validator(mode="before")
    @classmethod
    def _in_an_order_that_serves(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.keys() <= PageParameters.model_fields.keys():
            return given | {"sort": next(iter(cls.served))}
        known = frozenset[str]().union(*cls.served.values())
        asked = {name if name in known else name.partition("[")[0] for name in given} & known
        sort = given.get("sort")
        orders = [order for order in cls.served if sort is None or order.removeprefix("-") == str(sort).removeprefix("-")]
        serving = [order for order in orders if asked <= cls.served[order]]
        if orders and not serving:
            raise PydanticCustomError(
                "combination_not_served", "No index serves these together. Served are: {served}", cls._told()
            )
        return given if sort is not None or not serving else given | {"sort": serving[0]}

    @classmethod
    def _told(cls) -> dict[str, Any]:
        """Returns what an error says of the filters that each order serves."""
        told = (f"sort={order.removeprefix('-')} with {', '.join(sorted(names))}" for order, names in cls.served.items() if names)
        return {"served": "; ".join(told)}


MetadataName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
MetadataFilter = Annotated[
    dict[MetadataName, Annotated[str, Field(max_length=500)]],
    Field(max_length=20, description="`metadata[order]=1042`: only items with this pair in their metadata."),
]


class MetadataPairs(Parameters):
    """A filter by pairs of metadata, each of which is a parameter of its own."""

    metadata: MetadataFilter | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_pairs(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Turns each parameter `metadata[name]` into a pair of `metadata`."""
        pairs = {name: value for name, value in given.items() if name.startswith("metadata[") and name.endswith("]")}
        if not pairs:
            return given
        others = {name: value for name, value in given.items() if name not in pairs}
        if "metadata" in others:
            code, message = "metadata_form", "A filter by metadata has the form metadata[name]=value"
            raise PydanticCustomError(code, message)
        return others | {"metadata": {name[len("metadata[") : -1]: value for name, value in pairs.items()}}


class ReferenceAndMetadata(MetadataPairs):
    """Filters by what the caller of a command said of it. `reference[prefix]` is served in the order of the references."""

    reference: Annotated[Reference, Field(description="Only items with exactly this `reference`.")] | None = None
    reference_prefix: Reference | None = Field(
        default=None, alias="reference[prefix]", description="Only items whose `reference` begins with this."
    )


def _position_or_moment(value: object) -> object:
    """Converts a text of digits to a number. A year alone is not a moment, so no text can mean both."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


At = Annotated[
    Annotated[int, Field(strict=True, ge=1, le=POSITION_MAX)] | Moment,
    BeforeValidator(_position_or_moment),
    Field(description="A moment (RFC 3339 with a time zone), or a position of the ledger's log."),
]
"""A place in the past: a position, or a moment as RFC 3339 in UTC."""
Axis = Literal["recorded_at", "occurred_at"]


class AtParameters(Parameters):
    """Chooses a place in the past, on one of two axes."""

    at: At | None = None
    axis: Annotated[
        Axis,
        Field(
            description="`recorded_at`: what the log said then, which nothing changes later. `occurred_at`: what was true "
            "then as far as the log tells today, so entries that were back-dated later count too. Requires `at`."
        ),
    ] = "recorded_at"

    @model_validator(mode="after")
    def _somewhere(self) -> "AtParameters":
        if self.at is None and "axis" in self.model_fields_set:
            code, message = "at_missing", "An axis needs a place on it: add at="
            raise PydanticCustomError(code, message)
        return self


def _bound(name: str, operator: str) -> Any:
    words = {"gt": "greater than", "gte": "greater than or equal to", "lt": "less than", "lte": "less than or equal to"}
    return Field(default=None, alias=f"{name}[{operator}]", description=f"Only items with `{name}` {words[operator]} this.")


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


class PlacedAtRange(Parameters):
    placed_at_gt: Moment | None = _bound("placed_at", "gt")
    placed_at_gte: Moment | None = _bound("placed_at", "gte")
    placed_at_lt: Moment | None = _bound("placed_at", "lt")
    placed_at_lte: Moment | None = _bound("placed_at", "lte")


class AmountRange(Parameters):
    amount_gt: AmountParameter | None = _bound("amount", "gt")
    amount_gte: AmountParameter | None = _bound("amount", "gte")
    amount_lt: AmountParameter | None = _bound("amount", "lt")
    amount_lte: AmountParameter | None = _bound("amount", "lte")
