"""Builds the body of the answer to a transfer with postings, with a class of it for the OpenAPI document, as `answers` does."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from command_api.answers import EUROS_ID, SAVINGS_ID, TRANSFER_ID, BalanceMember, PositionMember, balance_member
from command_api.domain.postings import MoveFunds
from command_api.writer.command_request import Outcome
from shared.log.money_events import FundsMoved
from shared.log.streams import account_stream
from shared.timestamps import timestamp
from shared.web.members import PostingMember


class PostingsBody(BaseModel):
    """A transfer with postings. `balances` are those of its accounts right after it, in the order of the postings."""

    id: str
    position: PositionMember
    postings: list[PostingMember]
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER_ID,
                "position": 44,
                "postings": [
                    {"account_id": EUROS_ID, "amount": -1250, "currency": "EUR"},
                    {"account_id": SAVINGS_ID, "amount": 1250, "currency": "EUR"},
                ],
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [
                    {"account_id": EUROS_ID, "posted": 0, "held": 0, "available": 0},
                    {"account_id": SAVINGS_ID, "posted": 1250, "held": 0, "available": 1250},
                ],
            }
        }
    )


def postings_body(_: MoveFunds, outcome: Outcome) -> dict[str, Any]:
    """Builds a `PostingsBody`."""
    [event] = outcome.events
    if not isinstance(event, FundsMoved):
        msg = f"{type(event).__name__} has no legs"
        raise TypeError(msg)
    return moved_members(event, outcome)


def moved_members(event: FundsMoved, outcome: Outcome) -> dict[str, Any]:
    """Returns the members of the answers to all transfers between many accounts."""
    recorded_at = timestamp(outcome.recorded_at)
    said = {"reference": event.reference, "metadata": event.metadata}
    return {
        "id": event.transfer_id,
        "position": outcome.position,
        "postings": [{"account_id": leg.account_id, "amount": leg.amount, "currency": leg.currency} for leg in event.legs],
        "occurred_at": event.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        **{name: value for name, value in said.items() if value is not None},
        "balances": [balance_member(outcome.states[account_stream(leg.account_id)]) for leg in event.legs if leg.account_id],
    }
