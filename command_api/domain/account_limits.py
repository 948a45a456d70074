"""The command that changes what an account may spend. The rules of spending are in `spending`."""

import msgspec
from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from command_api.domain.account import AccountCommand, require_account, require_not_closed
from command_api.domain.command import States
from command_api.domain.command_fields import PositiveAmount, SpendingLimit, StrictFields
from command_api.domain.spending import NO_LIMITS, SpendingLimits, spent_until
from shared.log.account_events import AccountLimitsChanged
from shared.log.events import Event


class NewLimits(StrictFields):
    """All limits of what an account may spend. One that is null or left out is removed."""

    model_config = ConfigDict(json_schema_extra={"example": {"per_transfer_max": 50_000, "per_day": 100_000, "per_month": None}})

    per_transfer_min: PositiveAmount | None = None
    per_transfer_max: PositiveAmount | None = None
    per_day: SpendingLimit | None = None
    per_month: SpendingLimit | None = None

    @model_validator(mode="after")
    def leaves_an_amount(self) -> "NewLimits":
        smallest, largest = self.per_transfer_min, self.per_transfer_max
        if smallest is not None and largest is not None and smallest > largest:
            code, message = "limits_crossed", "per_transfer_min must not be larger than per_transfer_max"
            raise PydanticCustomError(code, message)
        return self


class ChangeLimits(AccountCommand):
    """Changes what an account may spend, also if the account is frozen. A limit that stays keeps what it has counted.

    Rejections, in this order: not-found, account-closed.
    """

    limits: NewLimits

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        require_not_closed(account)
        before, limits = account.limits or NO_LIMITS, SpendingLimits(**self.limits.model_dump())
        if limits == before:
            return []
        spent = None
        if limits.are_counted and before.are_counted:
            counted = spent_until(before, account.spent, account.now)
            today = counted.today if limits.per_day is not None else 0
            spent = msgspec.structs.replace(
                counted, today=today, in_month=counted.in_month if limits.per_month is not None else 0
            )
        changed = AccountLimitsChanged(account_id=self.account_id, currency=account.currency, spent=spent)
        return [msgspec.structs.replace(changed, **msgspec.structs.asdict(limits))]
