"""Builds the body of the answer to a reversal, with a class of it for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from command_api.answers import EUROS_ID, SAVINGS_ID, TRANSFER_ID, BalanceMember, PositionMember, balance_member
from command_api.domain.reversal import ReverseTransfer
from command_api.writer.command_request import Outcome
from shared.log.money_events import TransferReversed
from shared.log.streams import account_stream
from shared.timestamps import timestamp
from shared.web.members import MinorUnitAmount


class ReversalBody(BaseModel):
    """A reversal, which is a transfer. `balances` are those right after it, first that of the account that gave money back."""

    id: str
    position: PositionMember
    reverses: Annotated[str, Field(description="The transfer whose money moved back.")]
    from_account_id: Annotated[str | None, Field(description="null for the outside world.")]
    to_account_id: Annotated[str | None, Field(description="null for the outside world.")]
    amount: MinorUnitAmount
    currency: str
    reversed: Annotated[int, Field(description="What of that transfer has moved back so far, in minor units.")]
    remaining: Annotated[int, Field(description="What can still be reversed, in minor units.")]
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0198c5a0-0000-7000-8000-000000000043",
                "position": 43,
                "reverses": TRANSFER_ID,
                "from_account_id": SAVINGS_ID,
                "to_account_id": EUROS_ID,
                "amount": 500,
                "currency": "EUR",
                "reversed": 500,
                "remaining": 750,
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [
                    {"account_id": SAVINGS_ID, "posted": 750, "held": 0, "available": 750},
                    {"account_id": EUROS_ID, "posted": 500, "held": 0, "available": 500},
                ],
            }
        }
    )


def reversal_body(_: ReverseTransfer, outcome: Outcome) -> dict[str, Any]:
    """Builds a `ReversalBody`."""
    [event] = outcome.events
    if not isinstance(event, TransferReversed):
        msg = f"{type(event).__name__} reverses nothing"
        raise TypeError(msg)
    recorded_at = timestamp(outcome.recorded_at)
    said = {"reference": event.reference, "metadata": event.metadata}
    return {
        "id": event.transfer_id,
        "position": outcome.position,
        "reverses": event.reverses,
        "from_account_id": event.from_account_id,
        "to_account_id": event.to_account_id,
        "amount": event.amount,
        "currency": event.currency,
        "reversed": event.reversed,
        "remaining": event.remaining,
        "occurred_at": event.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        **{name: value for name, value in said.items() if value is not None},
        "balances": [
            balance_member(outcome.states[account_stream(account_id)])
            for account_id in (event.from_account_id, event.to_account_id)
            if account_id
        ],
    }
