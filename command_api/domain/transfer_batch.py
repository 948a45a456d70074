"""Many transfers in one request. In one mode each transfer is decided separately, in the other all are recorded or none."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from command_api.domain.command_fields import StrictFields
from command_api.domain.transfer import TransferFunds

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
