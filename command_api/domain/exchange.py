"""The decider for exchanges: money of one currency becomes money of another, at a rate that the command states.

Money never changes its currency. The house takes what the payer gives, with an account in that currency, and gives what the payee
gets, from an account in the other. Rounding to whole minor units leaves a remainder, which belongs to an account of its own. Its
state carries the part that is less than a minor unit, exactly, until remainders make a whole one. The stream is that of a
transfer.
"""

from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from command_api.domain.account import AccountState
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, PositiveAmount
from command_api.domain.exchange_rates import Rate, decimal_text, exchanged
from command_api.domain.postings import RequestedPosting, legs_of
from shared.errors import IdTaken, SameAccount
from shared.ids import new_id
from shared.input_types import Currency, Id, Moment
from shared.log.events import Event
from shared.log.money_events import FundsExchanged
from shared.log.streams import account_stream, transfer_stream
from shared.money import AMOUNT_MAX
from shared.text_types import Reference


def _other_currency(to_currency: str, fields: ValidationInfo) -> str:
    if to_currency == fields.data.get("from_currency"):
        code, message = "same_currency", "Must be another currency than `from_currency`"
        raise PydanticCustomError(code, message)
    return to_currency


def _gives_an_amount(from_amount: int, fields: ValidationInfo) -> int:
    """Checks that what the payee gets is an amount, if all fields that say so are valid."""
    if {"from_currency", "to_currency", "rate"} <= fields.data.keys():
        worth = exchanged(from_amount, fields.data["from_currency"], fields.data["to_currency"], fields.data["rate"])
        if not 1 <= round(worth) <= AMOUNT_MAX:
            code, message = "exchange_out_of_range", "At this rate it gives 0, or more than 2^53 - 1 minor units"
            raise PydanticCustomError(code, message)
    return from_amount


class ExchangeFunds(Command):
    """Changes money of one account into money of another account in another currency, through two accounts of the house.

    The payee gets `from_amount` times `rate`, rounded half to even to whole minor units. All five accounts are different.

    Rejections, in this order: same-account, id-taken, not-found, account-closed, account-frozen, currency-mismatch,
    amount-outside-limits, limit-exceeded, insufficient-funds, balance-out-of-range. Each rule checks the accounts in this order:
    the payer, the house's account that takes, the house's account that gives, the payee, the remainder account.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                "to_account_id": "0198c5a0-0000-7000-8000-0000000000d1",
                "house_from_account_id": "0198c5a0-0000-7000-8000-0000000000e8",
                "house_to_account_id": "0198c5a0-0000-7000-8000-0000000000d8",
                "remainder_account_id": "0198c5a0-0000-7000-8000-0000000000d9",
                "from_currency": "EUR",
                "to_currency": "USD",
                "rate": "1.0834",
                "from_amount": 1251,
            }
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    from_account_id: Id
    to_account_id: Id
    house_from_account_id: Annotated[Id, Field(description="The house's account in `from_currency`, which takes the money.")]
    house_to_account_id: Annotated[Id, Field(description="The house's account in `to_currency`, which gives the money.")]
    remainder_account_id: Annotated[Id, Field(description="An account in `to_currency` for what rounding leaves.")]
    from_currency: Currency
    to_currency: Annotated[Currency, AfterValidator(_other_currency)]
    rate: Rate
    from_amount: Annotated[PositiveAmount, AfterValidator(_gives_an_amount)]
    occurred_at: Moment | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None

    def streams(self) -> tuple[str, ...]:
        return *(account_stream(each) for each in self._account_ids()), transfer_stream(self.id)

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.id),)

    def _account_ids(self) -> tuple[str, ...]:
        house = self.house_from_account_id, self.house_to_account_id
        return self.from_account_id, *house, self.to_account_id, self.remainder_account_id

    def decide(self, states: States) -> list[Event]:
        if len({*self._account_ids()}) < len(self._account_ids()):
            msg = "The five accounts of an exchange must be different."
            raise SameAccount(msg)
        if states[transfer_stream(self.id)].recorded:
            raise IdTaken
        remainder_account: AccountState = states[account_stream(self.remainder_account_id)]
        worth = exchanged(self.from_amount, self.from_currency, self.to_currency, self.rate)
        to_amount = round(worth)  # half to even
        carried = Fraction(remainder_account.carried or 0) + worth - to_amount
        whole = int(carried)  # towards zero: the account carries less than one minor unit
        *four, of_remainder = self._postings(to_amount, whole)
        legs = legs_of((*four, of_remainder), states)
        return [
            FundsExchanged(
                transfer_id=self.id,
                legs=legs if whole else legs[:-1],
                rate=self.rate,
                remainder_account_id=self.remainder_account_id,
                remainder=decimal_text(worth - to_amount),
                carried=decimal_text(carried - whole),
                occurred_at=self.occurred_at,
                reference=self.reference,
                metadata=self.metadata,
            )
        ]

    def _postings(self, to_amount: int, whole: int) -> list[RequestedPosting]:
        """Returns what each account gives or gets. The house gives 0 if the remainder account gives all that the payee gets."""
        amounts = (
            (-self.from_amount, self.from_currency),
            (self.from_amount, self.from_currency),
            (-to_amount - whole, self.to_currency),
            (to_amount, self.to_currency),
            (whole, self.to_currency),
        )
        return [
            RequestedPosting.model_construct(account_id=account_id, amount=amount, currency=currency)
            for account_id, (amount, currency) in zip(self._account_ids(), amounts, strict=True)
        ]
