"""Many transfers in one request: each for itself, or all or none."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from command_api.command import Command, Fields, States
from command_api.folds import evolve_all
from command_api.transfer import TransferFunds
from shared.errors import Rejection
from shared.events import Event

TRANSFERS_MAX: Final = 500


class TransferBatch(Fields):
    """`independent`: each transfer has its own verdict. `atomic`: one that is refused refuses all."""

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
    """Refused as the first transfer that is; `index` says which. Each is decided on what the ones before it leave."""

    transfers: tuple[TransferFunds, ...]

    def streams(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stream_id for transfer in self.transfers for stream_id in transfer.streams()))

    def new_streams(self) -> tuple[str, ...]:
        return tuple(stream_id for transfer in self.transfers for stream_id in transfer.new_streams())

    def decide(self, states: States) -> list[Event]:
        running, events = dict(states), []
        for index, transfer in enumerate(self.transfers):
            try:
                decided = transfer.decide(running)
            except Rejection as rejection:
                rejection.extra["index"] = index
                raise
            for event in decided:
                evolve_all(running, event)
            events += decided
        return events
