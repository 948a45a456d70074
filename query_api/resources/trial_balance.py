"""The trial balance: all balances of a currency, of its accounts and of the outside world, which add up to 0.

Both sums are counted from the events, each from its own side. So a lost entry shows as another sum than 0.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.documentation import READ_MODEL, documented
from query_api.parameters import Parameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import AsOfPosition, MinorUnitSum, ResponseModel, as_of
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


class TrialBalanceParameters(Parameters):
    currency: Annotated[Currency, Field(description="Only this currency.")] | None = None


async def find_trial_balance(view: CallerView, currency: str | None) -> AsOf[JsonObject]:
    found = await view.values(STATISTICS, ("HGETALL", "sums"), ("HGETALL", "outside"))
    accounts, outside = map(_sums, found.data)
    currencies = sorted(set(accounts) | set(outside)) if currency is None else [currency]
    lines = [(each, accounts.get(each, 0), outside.get(each, 0)) for each in currencies]
    return found.holding(
        {
            "currencies": [
                {"currency": each, "accounts": str(inside), "outside": str(beyond), "sum": str(inside + beyond)}
                for each, inside, beyond in lines
            ]
        }
    )


def _sums(flat: Sequence[str]) -> dict[str, int]:
    return {currency: int(total) for currency, total in zip(flat[::2], flat[1::2], strict=True)}


@router.get(
    "/trial-balance",
    tags=["statistics"],
    **documented(TrialBalanceResponse, as_of(TRIAL_BALANCE_EXAMPLE), *READ_MODEL, access=only("ledger:read")),
)
async def get_trial_balance(request: QueryRequest, parameters: Annotated[TrialBalanceParameters, Query()]) -> Response:
    """Add up all balances of each currency: those of the accounts, and that of the outside world. Together they are 0."""
    return request.answer_one(await find_trial_balance(request.view(), parameters.currency))
