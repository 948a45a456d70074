"""Builds the body of the answer to the closing of a day, with a class of it for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from command_api.answers import PositionMember, VersionMember
from command_api.domain.day import CloseDay, DaysState, DayTotals
from command_api.writer.command_request import Outcome
from shared.log.streams import DAYS_STREAM


class DayBody(BaseModel):
    """A closed day. `version` is the number of days that the ledger has closed."""

    position: PositionMember
    version: VersionMember
    day: str
    time_zone: str
    up_to: Annotated[
        int, Field(description="The last position that was counted. Later events of the day came after its closing.")
    ]
    events: Annotated[int, Field(description="How many events the day has up to there.")]
    first_position: int | None = None
    last_position: int | None = None
    root: Annotated[str, Field(description="The root of the Merkle tree (RFC 6962) of the events' hashes, hexadecimal.")]
    totals: list[DayTotals]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "position": 43,
                "version": 1,
                "day": "2026-01-31",
                "time_zone": "UTC",
                "up_to": 42,
                "events": 2,
                "first_position": 40,
                "last_position": 42,
                "root": "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456",
                "totals": [{"currency": "EUR", "entries": 2, "moved": "1250", "paid_in": "1250", "paid_out": "0"}],
            }
        }
    )


def day_body(_: CloseDay, outcome: Outcome) -> dict[str, Any]:
    """Builds a `DayBody`. A day is closed again without effect only if it was the last, so the state has it."""
    state: DaysState = outcome.states[DAYS_STREAM]
    members = msgspec.to_builtins(state.last)
    return {"position": outcome.position, "version": outcome.version, "totals": [], **members}
