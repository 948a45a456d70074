"""The members, pages and examples that the answers of several resources share.

The models are only documentation: answers are encoded without them, and a test compares real answers with the models. The
examples contain no nulls, because FastAPI removes them.
"""

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

AsOfPosition = Annotated[int, Field(description="The answer includes all events up to this position of the ledger's log.")]
FactPosition = Annotated[int, Field(description="The position of the event in the ledger's log.")]
MinorUnitSum = Annotated[
    str,
    Field(
        pattern=r"^(0|-?[1-9][0-9]*)$",
        description="A sum in minor units, as a text of digits: it has no upper limit, so it may be larger than 2^53 − 1.",
    ),
]
TimestampText = Annotated[str, Field(description="RFC 3339 in UTC, with microseconds.")]
ResourceVersion = Annotated[
    int, Field(description="The number of events of this resource. Send it as `If-Match` with a command.")
]
TransferKind = Literal["deposit", "withdrawal", "transfer", "reversal", "postings", "exchange"]
TransferParty = Annotated[str | None, Field(description="null if the money came from or went to the outside world.")]

ADA: Final = "0198c5a0-0000-7000-8000-00000000ada0"
EUROS: Final = "0198c5a0-0000-7000-8000-0000000000e1"
SAVINGS: Final = "0198c5a0-0000-7000-8000-0000000000e2"
TRANSFER: Final = "0198c5a0-0000-7000-8000-000000000042"
EVENT: Final = "0198c5a0-0000-7000-8000-0000000000ee"
MOMENT: Final = "2026-11-21T09:30:00.000000Z"


class ResponseModel(BaseModel):
    """The base of the models of answers. Every member is always present, and is null if it has no value."""

    model_config = ConfigDict(extra="forbid")


ItemT = TypeVar("ItemT")


class Page(ResponseModel, Generic[ItemT]):
    items: list[ItemT]
    next: Annotated[str | None, Field(description="Send this as `cursor` to get the next page. null on the last page.")]
    position: AsOfPosition


def as_of(example: dict[str, Any]) -> dict[str, Any]:
    """Returns the example of a resource with the position of the answer added."""
    return {**example, "position": 42}


def page_of(example: dict[str, Any]) -> dict[str, Any]:
    """Returns an example of a page that has this item."""
    return {"items": [example], "next": "Ct9FmEcvrOb9gOdN8fORwFs0MV0", "position": 42}
