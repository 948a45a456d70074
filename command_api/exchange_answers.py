"""Builds the body of the answer to an exchange, with a class of it for the OpenAPI document, as `answers` does."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from command_api.answers import EUROS_ID, TRANSFER_ID
from command_api.domain.exchange import ExchangeFunds
from command_api.posting_answers import PostingsBody, moved_members
from command_api.writer.command_request import Outcome
from shared.log.money_events import FundsExchanged
from shared.web.members import MinorUnitAmount

DOLLARS_ID: Final = "0198c5a0-0000-7000-8000-0000000000d1"
HOUSE_EUROS_ID: Final = "0198c5a0-0000-7000-8000-0000000000e8"
HOUSE_DOLLARS_ID: Final = "0198c5a0-0000-7000-8000-0000000000d8"
REMAINDERS_ID: Final = "0198c5a0-0000-7000-8000-0000000000d9"
DecimalMember = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]{1,16})?$")]


class ExchangeBody(PostingsBody):
    """An exchange. `balances` are those of its accounts right after it, in the order of the postings."""

    from_account_id: str
    to_account_id: str
    from_amount: MinorUnitAmount
    from_currency: str
    to_amount: MinorUnitAmount
    to_currency: str
    rate: str
    remainder_account_id: str
    remainder: Annotated[
        DecimalMember,
        Field(description="What rounding took from the payee, in minor units of `to_currency`. Below 0 if it gave something."),
    ]
    carried: Annotated[
        DecimalMember,
        Field(description="What the remainder account has of all remainders and has not got as whole minor units."),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER_ID,
                "position": 45,
                "from_account_id": EUROS_ID,
                "to_account_id": DOLLARS_ID,
                "from_amount": 1251,
                "from_currency": "EUR",
                "to_amount": 1355,
                "to_currency": "USD",
                "rate": "1.0834",
                "remainder_account_id": REMAINDERS_ID,
                "remainder": "0.3334",
                "carried": "0.5834",
                "postings": [
                    {"account_id": EUROS_ID, "amount": -1251, "currency": "EUR"},
                    {"account_id": HOUSE_EUROS_ID, "amount": 1251, "currency": "EUR"},
                    {"account_id": HOUSE_DOLLARS_ID, "amount": -1355, "currency": "USD"},
                    {"account_id": DOLLARS_ID, "amount": 1355, "currency": "USD"},
                ],
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [
                    {"account_id": EUROS_ID, "posted": 0, "held": 0, "available": 0},
                    {"account_id": HOUSE_EUROS_ID, "posted": 51251, "held": 0, "available": 51251},
                    {"account_id": HOUSE_DOLLARS_ID, "posted": 48645, "held": 0, "available": 48645},
                    {"account_id": DOLLARS_ID, "posted": 1355, "held": 0, "available": 1355},
                ],
            }
        }
    )


def exchange_body(command: ExchangeFunds, outcome: Outcome) -> dict[str, Any]:
    """Builds an `ExchangeBody`."""
    [event] = outcome.events
    if not isinstance(event, FundsExchanged):
        msg = f"{type(event).__name__} exchanges nothing"
        raise TypeError(msg)
    return {
        **moved_members(event, outcome),
        "from_account_id": command.from_account_id,
        "to_account_id": command.to_account_id,
        "from_amount": event.amount,
        "from_currency": event.currency,
        "to_amount": event.to_amount,
        "to_currency": event.to_currency,
        "rate": event.rate,
        "remainder_account_id": event.remainder_account_id,
        "remainder": event.remainder,
        "carried": event.carried,
    }
