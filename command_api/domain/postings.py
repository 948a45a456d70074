"""The decider for transfers with postings: money moves between many accounts at once, or not at all.

A payroll, or a price that is split with a fee, is one fact with one event. The stream is that of a transfer.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from command_api.domain.account import (
    balance_after_credit,
    balance_after_debit,
    require_account,
    require_currency,
    require_open,
    spent_with,
)
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, SignedAmount, StrictFields
from shared.errors import IdTaken, PostingsUnbalanced, SameAccount
from shared.ids import new_id
from shared.input_types import Currency, Id, Moment
from shared.log.events import Event
from shared.log.money_events import FundsMoved, Leg
from shared.log.streams import account_stream, transfer_stream
from shared.text_types import Reference

POSTINGS_MAX: Final = 100


class RequestedPosting(StrictFields):
    """One posting of a request: what it adds to an account, or takes from it if `amount` is below 0."""

    account_id: Annotated[Id | None, Field(description="null for the outside world.")]
    amount: SignedAmount
    currency: Currency


def _at_least_two(postings: tuple[RequestedPosting, ...]) -> tuple[RequestedPosting, ...]:
    """Checks the number of postings. `min_length` would also complain about it if one of two postings is wrong."""
    if len(postings) < 2:  # noqa: PLR2004 # a balance needs two sides
        code, message = "too_short", "Must have at least 2 items"
        raise PydanticCustomError(code, message)
    return postings


def legs_of(postings: Sequence[RequestedPosting], states: States) -> tuple[Leg, ...]:
    """Returns what the postings change at each account, of which each has one posting.

    Rejections, in this order: not-found, account-closed, account-frozen, currency-mismatch, amount-outside-limits,
    limit-exceeded, insufficient-funds, balance-out-of-range. Each rule checks the accounts in the order of the postings.
    """
    accounts = {each.account_id: require_account(states, each.account_id) for each in postings if each.account_id}
    require_open(accounts.values())
    for posting in postings:
        if posting.account_id:
            require_currency(accounts[posting.account_id], posting.currency)
    given = {each.account_id: -each.amount for each in postings if each.account_id and each.amount < 0}
    taken = {each.account_id: each.amount for each in postings if each.account_id and each.amount >= 0}
    spent = {account_id: spent_with(accounts[account_id], amount) for account_id, amount in given.items()}
    balances = {account_id: balance_after_debit(accounts[account_id], amount) for account_id, amount in given.items()}
    balances |= {account_id: balance_after_credit(accounts[account_id], amount) for account_id, amount in taken.items()}
    return tuple(
        Leg(each.account_id, each.currency, each.amount, balances.get(each.account_id or ""), spent.get(each.account_id or ""))
        for each in postings
    )


class MoveFunds(Command):
    """Moves money between many accounts, in one or several currencies. In each, the postings add up to zero.

    Rejections, in this order: same-account (an account or the outside world has two postings in one currency),
    postings-unbalanced, id-taken, not-found, account-closed, account-frozen, currency-mismatch, amount-outside-limits,
    limit-exceeded, insufficient-funds, balance-out-of-range. Each rule checks the accounts in the order of the postings.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "postings": [
                    {"account_id": "0198c5a0-0000-7000-8000-0000000000e1", "amount": -1250, "currency": "EUR"},
                    {"account_id": "0198c5a0-0000-7000-8000-0000000000e2", "amount": 1200, "currency": "EUR"},
                    {"account_id": None, "amount": 50, "currency": "EUR"},
                ],
                "reference": "order 1042, less the fee",
            }
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    postings: Annotated[
        tuple[RequestedPosting, ...],
        Field(max_length=POSTINGS_MAX, strict=False, json_schema_extra={"minItems": 2}),
        AfterValidator(_at_least_two),
    ]
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None

    def streams(self) -> tuple[str, ...]:
        return *(account_stream(each) for each in self._account_ids()), transfer_stream(self.id)

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.id),)

    def _account_ids(self) -> list[str]:
        return [posting.account_id for posting in self.postings if posting.account_id]

    def decide(self, states: States) -> list[Event]:
        self._require_balanced()
        if states[transfer_stream(self.id)].recorded:
            raise IdTaken
        legs = legs_of(self.postings, states)
        said = {"occurred_at": self.occurred_at, "reference": self.reference}
        return [FundsMoved(transfer_id=self.id, legs=legs, metadata=self.metadata, **said)]

    def _require_balanced(self) -> None:
        if len({(posting.account_id, posting.currency) for posting in self.postings}) < len(self.postings):
            msg = "An account, and the outside world, can have only one posting in a currency."
            raise SameAccount(msg)
        sums = Counter[str]()
        for posting in self.postings:
            sums[posting.currency] += posting.amount
        for currency, total in sums.items():
            if total:
                raise PostingsUnbalanced(currency=currency)
