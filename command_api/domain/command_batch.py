"""Commands of several kinds in one request. In one mode each is decided separately, in the other all are recorded or none."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from command_api.domain.command import Command
from command_api.domain.command_fields import StrictFields
from command_api.domain.exchange import ExchangeFunds
from command_api.domain.hold import CaptureHold, HoldCapture, PlaceHold, ReleaseHold
from command_api.domain.postings import MoveFunds
from command_api.domain.reversal import Reversal, ReverseTransfer
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from shared.input_types import Id

COMMANDS_MAX: Final = 1_000


class DepositItem(Deposit):
    type: Literal["deposit"]

    def command(self) -> Command:
        return Deposit.model_construct(**_without_type(self))


class WithdrawalItem(Withdraw):
    type: Literal["withdrawal"]

    def command(self) -> Command:
        return Withdraw.model_construct(**_without_type(self))


class TransferItem(TransferFunds):
    type: Literal["transfer"]

    def command(self) -> Command:
        return TransferFunds.model_construct(**_without_type(self))


class PostingsItem(MoveFunds):
    type: Literal["transfer"]

    def command(self) -> Command:
        return MoveFunds.model_construct(**_without_type(self))


class ExchangeItem(ExchangeFunds):
    type: Literal["exchange"]

    def command(self) -> Command:
        return ExchangeFunds.model_construct(**_without_type(self))


class HoldItem(PlaceHold):
    type: Literal["hold"]

    def command(self) -> Command:
        return PlaceHold.model_construct(**_without_type(self))


class CaptureItem(HoldCapture):
    type: Literal["capture"]
    hold_id: Id

    def command(self) -> Command:
        capture = HoldCapture.model_construct(**_without_type(self, "hold_id"))
        return CaptureHold.model_construct(hold_id=self.hold_id, capture=capture)


class ReleaseItem(StrictFields):
    type: Literal["release"]
    hold_id: Id

    def command(self) -> Command:
        return ReleaseHold.model_construct(hold_id=self.hold_id)


class ReverseItem(Reversal):
    type: Literal["reverse"]
    transfer_id: Id

    def command(self) -> Command:
        reversal = Reversal.model_construct(**_without_type(self, "transfer_id"))
        return ReverseTransfer.model_construct(transfer_id=self.transfer_id, reversal=reversal)


def _without_type(item: StrictFields, *names: str) -> dict[str, Any]:
    """Returns the validated members of an item, without its type and those that are named."""
    return {name: value for name, value in item.__dict__.items() if name != "type" and name not in names}


def _kind(members: Any) -> Any:
    """Returns the tag of an item: its type, or `postings` for a transfer that has them."""
    if not isinstance(members, dict):
        return None
    return "postings" if members.get("type") == "transfer" and "postings" in members else members.get("type")


BatchItem = Annotated[
    Annotated[DepositItem, Tag("deposit")]
    | Annotated[WithdrawalItem, Tag("withdrawal")]
    | Annotated[TransferItem, Tag("transfer")]
    | Annotated[PostingsItem, Tag("postings")]
    | Annotated[ExchangeItem, Tag("exchange")]
    | Annotated[HoldItem, Tag("hold")]
    | Annotated[CaptureItem, Tag("capture")]
    | Annotated[ReleaseItem, Tag("release")]
    | Annotated[ReverseItem, Tag("reverse")],
    Discriminator(_kind),
]


class CommandBatch(StrictFields):
    """The commands of one request. Each item has a `type`, and the members that its own request would have.

    `mode` is `independent` (each command gets its own result) or `atomic` (if one is rejected, none is recorded).
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "mode": "atomic",
                "commands": [
                    {"type": "deposit", "account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": 1250, "currency": "EUR"},
                    {
                        "type": "transfer",
                        "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                        "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
                        "amount": 1250,
                        "currency": "EUR",
                    },
                ],
            }
        }
    )

    mode: Literal["independent", "atomic"] = "independent"
    commands: Annotated[tuple[BatchItem, ...], Field(min_length=1, max_length=COMMANDS_MAX, strict=False)]
