"""Members that the answers of both APIs have. The models are documentation: no answer is made of them."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MinorUnitAmount = Annotated[int, Field(description="Minor units of the currency.")]


class Member(BaseModel):
    """The base of the models. Every member is always present, and is null if it has no value."""

    model_config = ConfigDict(extra="forbid")


class PostingMember(Member):
    account_id: Annotated[str | None, Field(description="null for the outside world.")]
    amount: MinorUnitAmount
    currency: str


class PlannedTransferMember(Member):
    """The transfer that each run makes."""

    from_account_id: str
    to_account_id: str
    amount: MinorUnitAmount
    currency: str
    reference: str | None
    metadata: dict[str, str] | None


class RuleMember(Member):
    """The rule of a schedule. `day` is 1 (Monday) to 7 of a week, or 1 to 31 of a month."""

    every: Literal["day", "week", "month"]
    day: int | None
    time: str
    time_zone: str
    weekend: Literal["same", "before", "after"]
    starts_on: str | None
    until: str | None


PLANNED_TRANSFER_EXAMPLE: Final[dict[str, Any]] = {
    "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
    "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
    "amount": 1250,
    "currency": "EUR",
    "reference": "rent",
    "metadata": {"flat": "3"},
}
RULE_EXAMPLE: Final[dict[str, Any]] = {
    "every": "month",
    "day": 31,
    "time": "09:00",
    "time_zone": "Europe/Berlin",
    "weekend": "before",
    "starts_on": "2026-10-01",
    "until": "2027-12-31",
}
