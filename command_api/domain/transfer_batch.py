"""Many transfers in one request. In one mode each transfer is decided separately, in the other all are recorded or none."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from command_api.domain.command import Command, States
from command_api.domain.command_fields import StrictFields
from command_api.domain.stream_folds import evolve_states
from command_api.domain.transfer import TransferFunds
from shared.errors import Rejection
from shared.log.events import Event

TRANSFERS_MAX: Final = 500


class TransferBatch(StrictFields):
    """The transfers of one request.

    `mode` is `independent` (each transfer gets its own result) or `atomic` (if one transfer is rejected, none is recorded).
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "mode": "independent",
                "transfers": [
                    {
                        "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                        "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
                        "amount": 1250,
                        "currency": "EUR",
                    }
                ],
            }
        }
    )

    mode: Literal["independent", "atomic"] = "independent"
    transfers: Annotated[tuple[TransferFunds, ...], Field(min_length=1, max_length=TRANSFERS_MAX, strict=False)]


class TransferAll(Command):
    """Records all of these transfers or none. Each transfer is decided on the states that the transfers before it leave.

    The first transfer that is rejected rejects the whole command. The member `index` of the rejection is the place of that
    transfer, counted from 0.
    """

    transfers: tuple[TransferFunds, ...]

    def streams(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stream_id for transfer in self.transfers for stream_id in transfer.streams()))

    def new_streams(self) -> tuple[str, ...]:
        return tuple(stream_id for transfer in self.transfers for stream_id in transfer.new_streams())

    def owned_streams(self) -> tuple[str, ...]:
        return tuple(stream_id for transfer in self.transfers for stream_id in transfer.owned_streams())

    def decide(self, states: States) -> list[Event]:
        running, events = dict(states), []
        for index, transfer in enumerate(self.transfers):
            try:
                decided = transfer.decide(running)
            except Rejection as rejection:
                rejection.extra["index"] = index
                raise
            for event in decided:
                evolve_states(running, event)
            events += decided
        return events
