"""The decider for reversals. A reversal moves money of a transfer back to where it came from, all of it or a part.

Deposits, withdrawals and captures are transfers too, and so is a reversal, but a reversal cannot be reversed. Its event is in the
streams of both transfers. The stream of the reversed one knows what has moved back, so no more than its amount ever does.
"""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from command_api.domain.account import balance_after_credit, balance_after_debit, require_account, require_usable
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, PositiveAmount, StrictFields
from command_api.domain.transfer import TransferState
from shared.errors import IdTaken, NotFound
from shared.ids import new_id
from shared.input_types import Id, Moment
from shared.log.events import Event
from shared.log.money_events import TransferReversed
from shared.log.streams import account_stream, transfer_stream
from shared.reversal_errors import ReversalAmountExceeded, TooManyReversals, TransferAlreadyReversed, TransferNotReversible
from shared.text_types import Reference

REVERSALS_MAX: Final = 100
"""The most parts in which a transfer can be reversed. An answer about the transfer names all of them."""


class Reversal(StrictFields):
    """The body of a request that reverses a transfer. The id is that of the reversal. Without `amount`, all that remains."""

    model_config = ConfigDict(json_schema_extra={"example": {"amount": 500, "reference": "refund of order 1042"}})

    id: Annotated[Id, Field(default_factory=new_id)]
    amount: PositiveAmount | None = None
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


class ReverseTransfer(Command):
    """Moves money of a transfer back. `If-Match` is compared with the version of the transfer's stream, which is 1 at first.

    Rejections, in this order: id-taken, not-found, transfer-not-reversible, account-closed, account-frozen,
    transfer-already-reversed, too-many-reversals, reversal-amount-exceeded, insufficient-funds, balance-out-of-range. Each rule
    checks the account first that gives the money back. That account can be overdrawn as far as its overdraft limit allows.
    """

    transfer_id: Id
    reversal: Reversal

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), transfer_stream(self.reversal.id)

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.reversal.id),)

    def further_streams(self, states: States) -> tuple[str, ...]:
        transfer: TransferState = states[transfer_stream(self.transfer_id)]
        return tuple(account_stream(each) for each in (transfer.to_account_id, transfer.from_account_id) if each)

    def decide(self, states: States) -> list[Event]:
        if states[transfer_stream(self.reversal.id)].recorded:
            raise IdTaken
        transfer: TransferState = states[transfer_stream(self.transfer_id)]
        if not transfer.recorded:
            raise NotFound("There is no such transfer.", transfer_id=self.transfer_id)
        if not transfer.is_reversible:
            raise TransferNotReversible
        payer, payee = (
            require_account(states, each) if each else None for each in (transfer.to_account_id, transfer.from_account_id)
        )
        require_usable([account for account in (payer, payee) if account], transfer.currency)
        amount = self._amount(transfer)
        return [
            TransferReversed(
                reverses=self.transfer_id,
                from_account_id=transfer.to_account_id,
                to_account_id=transfer.from_account_id,
                amount=amount,
                currency=transfer.currency,
                from_balance=balance_after_debit(payer, amount) if payer else None,
                to_balance=balance_after_credit(payee, amount) if payee else None,
                reversed=transfer.reversed + amount,
                remaining=transfer.remaining - amount,
                **self._copied(),
            )
        ]

    def _amount(self, transfer: TransferState) -> int:
        """Returns the amount that moves back, in minor units."""
        if not transfer.remaining:
            raise TransferAlreadyReversed(reversed=transfer.reversed)
        if transfer.reversals >= REVERSALS_MAX:
            raise TooManyReversals(reversals_max=REVERSALS_MAX)
        amount = self.reversal.amount or transfer.remaining
        if amount > transfer.remaining:
            raise ReversalAmountExceeded(remaining=transfer.remaining, required=amount)
        return amount

    def _copied(self) -> dict[str, Any]:
        """Returns the fields that the event copies unchanged from the request."""
        reversal = self.reversal
        return {
            "transfer_id": reversal.id,
            "occurred_at": reversal.occurred_at,
            "reference": reversal.reference,
            "metadata": reversal.metadata,
        }
