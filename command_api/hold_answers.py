"""Builds the bodies of the answers to commands on holds, with a class of each for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from command_api.answers import (
    EUROS_ID,
    SAVINGS_ID,
    TRANSFER_ID,
    BalanceMember,
    PositionMember,
    VersionMember,
    balance_member,
)
from command_api.domain.hold import CaptureHold, HoldCommand, HoldState, PlaceHold
from command_api.writer.command_request import Outcome
from shared.log.money_events import HoldCaptured
from shared.log.streams import account_stream, hold_stream
from shared.timestamps import timestamp
from shared.web.members import MinorUnitAmount

HOLD_ID: Final = "0198c5a0-0000-7000-8000-000000000077"


class HoldMember(BaseModel):
    """A hold after a command. `amount` is what it was placed for, and `remaining` is what it still holds."""

    id: str
    version: VersionMember
    account_id: str
    to_account_id: Annotated[str | None, Field(description="Where captures go. null for the outside world.")]
    amount: MinorUnitAmount
    currency: str
    captured: MinorUnitAmount
    remaining: MinorUnitAmount
    status: Literal["active", "captured", "released", "expired"]
    expires_at: Annotated[str | None, Field(description="The hold ends by itself at this moment. null if it does not.")]


HOLD_EXAMPLE: Final[dict[str, Any]] = {
    "id": HOLD_ID,
    "version": 1,
    "account_id": EUROS_ID,
    "to_account_id": SAVINGS_ID,
    "amount": 1250,
    "currency": "EUR",
    "captured": 0,
    "remaining": 1250,
    "status": "active",
    "expires_at": "2199-01-01T00:00:00.000000Z",
}


class HoldBody(HoldMember):
    """A hold after a command, with the balance of its account."""

    position: PositionMember
    recorded_at: str
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **HOLD_EXAMPLE,
                "position": 42,
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [{"account_id": EUROS_ID, "posted": 1250, "held": 1250, "available": 0}],
            }
        }
    )


class CaptureBody(BaseModel):
    """The transfer that a capture made, and the hold after it. `balances` are those right after it, the payer's first."""

    id: str
    position: PositionMember
    from_account_id: str
    to_account_id: Annotated[str | None, Field(description="null for the outside world.")]
    amount: MinorUnitAmount
    currency: str
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    hold: HoldMember
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER_ID,
                "position": 43,
                "from_account_id": EUROS_ID,
                "to_account_id": SAVINGS_ID,
                "amount": 500,
                "currency": "EUR",
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "hold": {**HOLD_EXAMPLE, "version": 2, "captured": 500, "remaining": 750},
                "balances": [
                    {"account_id": EUROS_ID, "posted": 750, "held": 750, "available": 0},
                    {"account_id": SAVINGS_ID, "posted": 500, "held": 0, "available": 500},
                ],
            }
        }
    )


def hold_body(command: PlaceHold | HoldCommand, outcome: Outcome) -> dict[str, Any]:
    """Builds a `HoldBody`."""
    hold_id = command.id if isinstance(command, PlaceHold) else command.hold_id
    hold: HoldState = outcome.states[hold_stream(hold_id)]
    return {
        **_hold_member(hold_id, hold, outcome.version),
        "position": outcome.position,
        "recorded_at": timestamp(outcome.recorded_at),
        "balances": [balance_member(outcome.states[account_stream(hold.account_id)])],
    }


def capture_body(command: CaptureHold, outcome: Outcome) -> dict[str, Any]:
    """Builds a `CaptureBody`."""
    [event] = outcome.events
    if not isinstance(event, HoldCaptured):
        msg = f"{type(event).__name__} captures nothing"
        raise TypeError(msg)
    recorded_at = timestamp(outcome.recorded_at)
    said = {"reference": event.reference, "metadata": event.metadata}
    return {
        "id": event.transfer_id,
        "position": outcome.position,
        "from_account_id": event.from_account_id,
        "to_account_id": event.to_account_id,
        "amount": event.amount,
        "currency": event.currency,
        "occurred_at": event.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        **{name: value for name, value in said.items() if value is not None},
        "hold": _hold_member(command.hold_id, outcome.states[hold_stream(command.hold_id)], outcome.version),
        "balances": [
            balance_member(outcome.states[account_stream(account_id)])
            for account_id in (event.from_account_id, event.to_account_id)
            if account_id
        ],
    }


def _hold_member(hold_id: str, hold: HoldState, version: int) -> dict[str, Any]:
    return {
        "id": hold_id,
        "version": version,
        "account_id": hold.account_id,
        "to_account_id": hold.to_account_id,
        "amount": hold.amount,
        "currency": hold.currency,
        "captured": hold.captured,
        "remaining": hold.remaining,
        "status": hold.status,
        "expires_at": hold.expires_at,
    }
