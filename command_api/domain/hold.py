"""The decider for holds. A hold reserves money of an account, which is captured in whole or in parts, released, or expires.

The stream of a hold is `hold-<hold_id>`. Its events are also in the stream of the account, which so knows what is held.
A hold expires by itself: from `expires_at` on, no decision counts it. `HoldExpired` is recorded later, and changes no answer.
The time of a decision is `now` in the states, which is also the time at which its events are recorded.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, assert_never

import msgspec
from pydantic import ConfigDict, Field

from command_api.domain.account import (
    balance_after_credit,
    require_account,
    require_available,
    require_usable,
    spent_with,
)
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, PositiveAmount, StrictFields
from shared import errors
from shared.hold_errors import HoldAmountExceeded, HoldExpiryPassed, HoldNotActive, TooManyHolds
from shared.ids import new_id
from shared.input_types import Currency, Id, Moment
from shared.log.events import Event
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import HoldCaptured
from shared.log.stream_fold import StreamFold
from shared.log.streams import account_stream, hold_stream, transfer_stream
from shared.text_types import Reference

HOLDS_MAX: Final = 500
"""The most holds of an account that have not ended in the log. They are part of the account's state, which all decisions read."""

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class HoldState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a hold. Amounts are in minor units."""

    account_id: str = ""
    to_account_id: str | None = None
    currency: str = ""
    amount: int = 0
    captured: int = 0
    recorded_status: Literal["missing", "active", "captured", "released", "expired"] = "missing"
    """The status that the events say. A hold may have expired although no event says so yet: see `status`."""
    expires_at: str | None = None
    now: str = ""
    """The moment that `status` is as of: see `stream_folds.at_moment`. It is empty in a fold of events."""

    @property
    def status(self) -> str:
        is_over = self.recorded_status == "active" and self.expires_at is not None and self.now >= self.expires_at
        return "expired" if is_over else self.recorded_status

    @property
    def remaining(self) -> int:
        """The amount that is still held, in minor units. 0 if the hold has ended."""
        return self.amount - self.captured if self.status == "active" else 0


def evolve_hold(state: HoldState, event: HoldPlaced | HoldCaptured | HoldReleased | HoldExpired) -> HoldState:
    match event:
        case HoldPlaced():
            ends = event.from_account_id, event.to_account_id
            return HoldState(*ends, event.currency, event.amount, 0, "active", event.expires_at, state.now)
        case HoldCaptured():
            status: Literal["active", "captured"] = "active" if event.remaining else "captured"
            return msgspec.structs.replace(state, captured=state.captured + event.amount, recorded_status=status)
        case HoldReleased():
            return msgspec.structs.replace(state, recorded_status="released")
        case HoldExpired():
            return msgspec.structs.replace(state, recorded_status="expired")
        case _:
            assert_never(event)


HOLD_FOLD: Final = StreamFold(1, HoldState(), evolve_hold)

# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def require_hold(states: States, hold_id: str) -> HoldState:
    hold: HoldState = states[hold_stream(hold_id)]
    if hold.status == "missing":
        raise errors.NotFound("There is no such hold.", hold_id=hold_id)
    return hold


def require_active(hold: HoldState) -> None:
    if hold.status != "active":
        raise HoldNotActive(hold_status=hold.status)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class PlaceHold(Command):
    """Reserves money of an account. It counts against what is available from now on, until it is captured or the hold ends.

    Rejections, in this order: same-account, id-taken, not-found, account-closed, account-frozen, currency-mismatch,
    hold-expiry-passed, too-many-holds, insufficient-funds. Each rule checks the payer's account first.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
                "amount": 1250,
                "currency": "EUR",
                "expires_at": "2199-01-01T00:00:00Z",
            }
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    account_id: Id
    to_account_id: Annotated[Id, Field(description="Where captures go. Without it, to the outside world.")] | None = None
    amount: PositiveAmount
    currency: Currency
    expires_at: Annotated[Moment, Field(description="The hold ends by itself at this moment.")] | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None

    def streams(self) -> tuple[str, ...]:
        ends = (self.account_id, *((self.to_account_id,) if self.to_account_id else ()))
        return hold_stream(self.id), *map(account_stream, ends)

    def new_streams(self) -> tuple[str, ...]:
        return (hold_stream(self.id),)

    def decide(self, states: States) -> list[Event]:
        if self.account_id == self.to_account_id:
            raise errors.SameAccount
        hold: HoldState = states[hold_stream(self.id)]
        if hold.status != "missing":
            raise errors.IdTaken
        account = require_account(states, self.account_id)
        payees = (require_account(states, self.to_account_id),) if self.to_account_id else ()
        require_usable((account, *payees), self.currency)
        if self.expires_at is not None and self.expires_at <= hold.now:
            raise HoldExpiryPassed(now=hold.now)
        if len(account.holds) >= HOLDS_MAX:
            raise TooManyHolds(holds_max=HOLDS_MAX)
        require_available(account, self.amount)
        return [
            HoldPlaced(
                hold_id=self.id,
                from_account_id=self.account_id,
                to_account_id=self.to_account_id,
                amount=self.amount,
                currency=self.currency,
                expires_at=self.expires_at,
                reference=self.reference,
                metadata=self.metadata,
            )
        ]


class HoldCommand(Command):
    """The base of the commands on an existing hold. `If-Match` is compared with the version of the hold."""

    hold_id: Id

    def streams(self) -> tuple[str, ...]:
        return (hold_stream(self.hold_id),)

    def further_streams(self, states: States) -> tuple[str, ...]:
        hold: HoldState = states[hold_stream(self.hold_id)]
        return tuple(account_stream(each) for each in (hold.account_id, hold.to_account_id) if each)


class HoldCapture(StrictFields):
    """The body of a request that captures a hold. The id is that of the transfer. Without `amount`, all that remains moves."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"amount": 500, "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2", "reference": "order 1042"}
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    amount: PositiveAmount | None = None
    to_account_id: Annotated[Id, Field(description="Instead of the account that the hold names.")] | None = None
    final: Annotated[bool, Field(description="Releases what the capture leaves.")] = False
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


class CaptureHold(HoldCommand):
    """Moves held money to the account that the capture or the hold names, or to the outside world if neither names one.

    Rejections, in this order: id-taken, not-found (the hold), same-account, not-found (the payee), account-closed,
    account-frozen, currency-mismatch, hold-not-active, hold-amount-exceeded, amount-outside-limits, limit-exceeded,
    balance-out-of-range. Each rule checks the payer's account first. A capture is spending, and placing the hold is not.
    """

    capture: HoldCapture

    def streams(self) -> tuple[str, ...]:
        payee = self.capture.to_account_id
        return hold_stream(self.hold_id), transfer_stream(self.capture.id), *((account_stream(payee),) if payee else ())

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.capture.id),)

    def decide(self, states: States) -> list[Event]:
        if states[transfer_stream(self.capture.id)].recorded:
            raise errors.IdTaken
        hold = require_hold(states, self.hold_id)
        payee_id = self.capture.to_account_id or hold.to_account_id
        if payee_id == hold.account_id:
            raise errors.SameAccount
        payer = require_account(states, hold.account_id)
        payees = (require_account(states, payee_id),) if payee_id else ()
        require_usable((payer, *payees), hold.currency)
        require_active(hold)
        amount = self.capture.amount or hold.remaining
        if amount > hold.remaining:
            raise HoldAmountExceeded(remaining=hold.remaining, required=amount)
        left = hold.remaining - amount
        spent = spent_with(payer, amount)
        to_balances = [balance_after_credit(payee, amount) for payee in payees]
        return [
            HoldCaptured(
                hold_id=self.hold_id,
                from_account_id=hold.account_id,
                to_account_id=payee_id,
                amount=amount,
                currency=hold.currency,
                from_balance=payer.posted - amount,  # the money is held, so the account has it
                to_balance=to_balances[0] if to_balances else None,
                remaining=0 if self.capture.final else left,
                released=left if self.capture.final else 0,
                expires_at=hold.expires_at,
                spent=spent,
                **self._copied(),
            )
        ]

    def _copied(self) -> dict[str, Any]:
        """Returns the fields that the event copies unchanged from the request."""
        capture = self.capture
        return {
            "transfer_id": capture.id,
            "occurred_at": capture.occurred_at,
            "reference": capture.reference,
            "metadata": capture.metadata,
        }


class ReleaseHold(HoldCommand):
    """Ends a hold. What it holds can be spent again, also if the account is frozen. Rejections: not-found, hold-not-active."""

    def decide(self, states: States) -> list[Event]:
        hold = require_hold(states, self.hold_id)
        require_active(hold)
        ended = {"hold_id": self.hold_id, "from_account_id": hold.account_id, "currency": hold.currency}
        return [HoldReleased(amount=hold.remaining, **ended)]


class ExpireHold(HoldCommand):
    """Records that a hold has expired. Changes nothing if the hold has ended before or is not over yet. Rejections: not-found."""

    suits_closed_ledgers: ClassVar[bool] = True

    def decide(self, states: States) -> list[Event]:
        hold = require_hold(states, self.hold_id)
        if hold.recorded_status != "active" or hold.status == "active":
            return []
        ended = {"hold_id": self.hold_id, "from_account_id": hold.account_id, "currency": hold.currency}
        return [HoldExpired(amount=hold.amount - hold.captured, **ended)]
