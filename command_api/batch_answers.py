"""Says how each command that a batch can have is answered, with a class of the whole answer for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from command_api.answers import OutsideTransferBody, TransferBody, transfer_body
from command_api.domain.command import Command
from command_api.domain.exchange import ExchangeFunds
from command_api.domain.hold import CaptureHold, ExpireHold, PlaceHold, ReleaseHold
from command_api.domain.postings import MoveFunds
from command_api.domain.reversal import ReverseTransfer
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.exchange_answers import ExchangeBody, exchange_body
from command_api.hold_answers import CaptureBody, HoldBody, capture_body, hold_body
from command_api.posting_answers import PostingsBody, postings_body
from command_api.requests import AnsweredCommand, BuildBody
from command_api.reversal_answers import ReversalBody, reversal_body

MONEY_ANSWERS: Final[Mapping[type[Command], tuple[BuildBody, int]]] = {
    Deposit: (transfer_body, 201),
    Withdraw: (transfer_body, 201),
    TransferFunds: (transfer_body, 201),
    MoveFunds: (postings_body, 201),
    ExchangeFunds: (exchange_body, 201),
    ReverseTransfer: (reversal_body, 201),
    PlaceHold: (hold_body, 201),
    CaptureHold: (capture_body, 201),
    ReleaseHold: (hold_body, 200),
    ExpireHold: (hold_body, 200),
}
"""The body and the status of the answer to each command about money, if it is accepted."""


def answered(command: Command) -> AnsweredCommand:
    return AnsweredCommand(command, *MONEY_ANSWERS[type(command)])


class CommandResult(BaseModel):
    """The HTTP status and the body that this command would have got in a request of its own: its answer, or a problem."""

    status: int
    body: (
        OutsideTransferBody | TransferBody | PostingsBody | ExchangeBody | HoldBody | CaptureBody | ReversalBody | dict[str, Any]
    )


class CommandResults(BaseModel):
    """The results of the commands, in the order of the request."""

    results: list[CommandResult]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "results": [
                    {"status": 201, "body": OutsideTransferBody.model_config["json_schema_extra"]["example"]},  # type: ignore[index]
                    {"status": 201, "body": TransferBody.model_config["json_schema_extra"]["example"]},  # type: ignore[index]
                ]
            }
        }
    )
