"""The trial balance: all balances of a currency, of its accounts and of the outside world, which add up to 0.

Both sums are counted from the events, each from its own side. So a lost entry shows as another sum than 0.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.documentation import READ_MODEL, documented
from query_api.parameters import AtParameters, Axis
from query_api.past_balances import find_moment, find_sums
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import AsOfPosition, MinorUnitSum, ResponseModel, TimestampText, as_of
from shared.identity.access import only
from shared.input_types import Currency
from shared.read_models.shapes import STATISTICS

router = query_router()


class CurrencyTrialBalance(ResponseModel):
    currency: str
    accounts: Annotated[MinorUnitSum, Field(description="The sum of the balances of all accounts, as a text of digits.")]
    outside: Annotated[MinorUnitSum, Field(description="The balance of the outside world, counted on its own, likewise.")]
    sum: Annotated[MinorUnitSum, Field(description="`accounts` + `outside`. It is 0 if no entry was lost.")]


class TrialBalanceResponse(ResponseModel):
    currencies: list[CurrencyTrialBalance]
    position: AsOfPosition


TRIAL_BALANCE_EXAMPLE: Final = {"currencies": [{"currency": "EUR", "accounts": "1250", "outside": "-1250", "sum": "0"}]}


class PastTrialBalanceResponse(TrialBalanceResponse):
    axis: Axis
    moment: Annotated[TimestampText, Field(description="The moment. With a position as `at`, when its event was recorded.")]


class TrialBalanceParameters(AtParameters):
    currency: Annotated[Currency, Field(description="Only this currency.")] | None = None


async def find_past_trial_balance(view: CallerView, currency: str | None, at: int | str, axis: Axis) -> AsOf[JsonObject]:
    past = await find_moment(view, at, axis)
    if currency is None:
        found = await view.reaching(past.position).values(STATISTICS, ("HGETALL", "sums"))
        currencies = sorted(_sums(found.data[0]))
    else:
        currencies = [currency]
    sums = await find_sums(view, currencies, past, axis)
    lines = [_line(each, *sums.data[each]) for each in currencies]
    return sums.holding({"currencies": lines, "axis": axis, "moment": past.moment})


async def find_trial_balance(view: CallerView, currency: str | None) -> AsOf[JsonObject]:
    found = await view.values(STATISTICS, ("HGETALL", "sums"), ("HGETALL", "outside"))
    accounts, outside = map(_sums, found.data)
    currencies = sorted(set(accounts) | set(outside)) if currency is None else [currency]
    return found.holding({"currencies": [_line(each, accounts.get(each, 0), outside.get(each, 0)) for each in currencies]})


def _line(currency: str, accounts: int, outside: int) -> JsonObject:
    return {"currency": currency, "accounts": str(accounts), "outside": str(outside), "sum": str(accounts + outside)}


def _sums(flat: Sequence[str]) -> dict[str, int]:
    return {currency: int(total) for currency, total in zip(flat[::2], flat[1::2], strict=True)}


@router.get(
    "/trial-balance",
    tags=["statistics"],
    **documented(
        TrialBalanceResponse | PastTrialBalanceResponse, as_of(TRIAL_BALANCE_EXAMPLE), *READ_MODEL, access=only("ledger:read")
    ),
)
async def get_trial_balance(request: QueryRequest, parameters: Annotated[TrialBalanceParameters, Query()]) -> Response:
    """Add up all balances of each currency: those of the accounts, and that of the outside world. Together they are 0.

    With `at`, they are those of a past moment or position. A moment that has not come yet is answered with all that is recorded.
    """
    if parameters.at is not None:
        found = await find_past_trial_balance(request.view(), parameters.currency, parameters.at, parameters.axis)
        return request.answer_one(found)
    return request.answer_one(await find_trial_balance(request.view(), parameters.currency))
