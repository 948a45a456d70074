"""Builds the bodies of the answers to commands on ledgers, with a class for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from command_api.answers import PositionMember, VersionMember
from command_api.domain.ledger import ChangeLedger, CloseLedger, CreateLedger
from command_api.writer.command_request import Outcome
from shared.log.ledger_state import LedgerState
from shared.log.streams import LEDGER_STREAM


class LedgerBody(BaseModel):
    """A ledger after a command."""

    id: str
    position: PositionMember
    version: VersionMember
    name: str
    status: Literal["open", "closed"]
    time_zone: str
    currencies: Annotated[list[str] | None, Field(description="null for all.")]
    transfer_max: Annotated[
        dict[str, int] | None,
        Field(description="The largest amount of a transfer by currency. null for no limit."),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "acme",
                "position": 1,
                "version": 1,
                "name": "Acme",
                "status": "open",
                "time_zone": "Europe/Berlin",
                "currencies": ["EUR", "USD"],
                "transfer_max": {"EUR": 1_000_000},
            }
        }
    )


def ledger_body(ledger_id: str, _: CreateLedger | ChangeLedger | CloseLedger, outcome: Outcome) -> dict[str, Any]:
    """Builds a `LedgerBody`."""
    ledger: LedgerState = outcome.states[LEDGER_STREAM]
    return {
        "id": ledger_id,
        "position": outcome.position,
        "version": outcome.version,
        "name": ledger.name or ledger_id,
        "status": ledger.status,
        "time_zone": ledger.time_zone,
        "currencies": ledger.currencies,
        "transfer_max": dict(sorted(ledger.transfer_max.items())) if ledger.transfer_max else None,
    }
