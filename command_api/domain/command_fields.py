"""The field types that only commands use, and the strict base model of all commands.

Field types that queries use too are in `shared.input_types`, and those that importers use too in `shared.text_types`.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shared.money import AMOUNT_MAX
from shared.text_types import printable


class StrictFields(BaseModel):
    """The strict base model of commands: it converts no values and rejects unknown fields.

    Instances are frozen, so a command cannot change between its validation and its decision.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def _not_zero(amount: int) -> int:
    if amount == 0:
        code, message = "amount_zero", "Must not be 0"
        raise PydanticCustomError(code, message)
    return amount


MetadataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
MetadataValue = Annotated[str, Field(max_length=500), AfterValidator(printable)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=20)]

PositiveAmount = Annotated[int, Field(ge=1, le=AMOUNT_MAX, description="Minor units of the currency.")]
SignedAmount = Annotated[
    int,
    Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="Minor units of the currency, below 0 where money leaves. Never 0."),
    AfterValidator(_not_zero),
]
SpendingLimit = Annotated[int, Field(ge=0, le=AMOUNT_MAX, description="Minor units of the currency. 0 forbids all spending.")]
OverdraftLimit = Annotated[int, Field(ge=0, le=AMOUNT_MAX, description="How far below zero the balance may go, in minor units.")]
