"""Statistics: the numbers of users, accounts and transfers, and the sums of balances by currency."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.documentation import READ_MODEL, documented
from query_api.parameters import LIMIT_MAX, Integer, Parameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import EUROS, SAVINGS, AsOfPosition, MinorUnitSum, ResponseModel, as_of
from shared.identity.access import only
from shared.input_types import Currency
from shared.read_models.shapes import STATISTICS
from shared.web.members import MinorUnitAmount

router = query_router()


class AccountsByStatus(ResponseModel):
    open: int
    frozen: int
    closed: int


class UsersByStatus(ResponseModel):
    active: int
    inactive: int
    erased: int


class CurrencyStatistics(ResponseModel):
    currency: str
    accounts: AccountsByStatus
    posted: Annotated[MinorUnitSum, Field(description="The sum of all balances, in minor units, as a text of digits.")]
    outside: Annotated[
        MinorUnitSum,
        Field(
            description="The balance of the outside world, counted on its own. If no entry was lost, `posted` + `outside` is 0."
        ),
    ]


class DayStatistics(ResponseModel):
    day: Annotated[str, Field(description="The day of `occurred_at`, in UTC.")]
    transfers: Annotated[int, Field(description="The number of transfers, including deposits and withdrawals.")]
    amounts: Annotated[
        dict[str, MinorUnitSum], Field(description="The sum of the amounts by currency, in minor units, as texts of digits.")
    ]


class BusyAccount(ResponseModel):
    account_id: str
    transfers: int


class RankedAccount(ResponseModel):
    account_id: str
    posted: MinorUnitAmount


class StatisticsResponse(ResponseModel):
    users: UsersByStatus
    currencies: list[CurrencyStatistics]
    days: Annotated[list[DayStatistics], Field(description="The latest days on which money moved, newest first.")]
    busiest: Annotated[list[BusyAccount], Field(description="The accounts with the most transfers.")]
    ranking: Annotated[list[RankedAccount] | None, Field(description="The richest accounts. null without `currency`.")]
    position: AsOfPosition


STATISTICS_EXAMPLE: Final = {
    "users": {"active": 1, "inactive": 0, "erased": 0},
    "currencies": [{"currency": "EUR", "accounts": {"open": 2, "frozen": 0, "closed": 0}, "posted": "1250", "outside": "-1250"}],
    "days": [{"day": "2026-11-21", "transfers": 2, "amounts": {"EUR": "2500"}}],
    "busiest": [{"account_id": EUROS, "transfers": 2}],
    "ranking": [{"account_id": SAVINGS, "posted": 1250}, {"account_id": EUROS, "posted": 0}],
}


DAYS_DEFAULT: Final = 30


class StatisticsParameters(Parameters):
    currency: Annotated[Currency, Field(description="Rank the accounts of this currency by balance.")] | None = None
    days: Annotated[Integer, Field(ge=1, le=366, description="How many of the latest days with transfers to return.")] = (
        DAYS_DEFAULT
    )
    top: Annotated[Integer, Field(ge=1, le=LIMIT_MAX, description="How many of the busiest and richest accounts to return.")] = 10


async def find_statistics(view: CallerView, parameters: StatisticsParameters) -> AsOf[JsonObject]:
    hashes = [("HGETALL", name) for name in ("users", "accounts", "sums", "outside", "transfers", "volumes")]
    ranked = ["busiest", f"ranking:{parameters.currency}"] if parameters.currency else ["busiest"]
    rankings = [("ZREVRANGE", name, "0", str(parameters.top - 1), "WITHSCORES") for name in ranked]
    found = await view.values(STATISTICS, *hashes, *rankings)
    users, accounts, sums, outside, transfers, volumes = map(_numbers, found.data[:6])
    busiest, *ranking = map(_ranked, found.data[6:])
    statistics = {
        "users": {status: users.get(status, 0) for status in ("active", "inactive", "erased")},
        "currencies": _by_currency(accounts, sums, outside),
        "days": _by_day(transfers, volumes, parameters.days),
        "busiest": [{"account_id": account_id, "transfers": number} for account_id, number in busiest],
        "ranking": [{"account_id": account_id, "posted": posted} for account_id, posted in ranking[0]] if ranking else None,
    }
    return found.holding(statistics)


def _numbers(flat: Sequence[str]) -> dict[str, int]:
    return {name: int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


def _ranked(flat: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the members of a ranking with their scores. Redis stores scores as floats, which are exact up to 2^53 − 1."""
    return [(member, int(float(score))) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def _by_currency(accounts: Mapping[str, int], sums: Mapping[str, int], outside: Mapping[str, int]) -> list[JsonObject]:
    """Returns the statistics of each currency. `outside` has the balances of the outside world."""
    currencies = sorted({name.partition(":")[0] for name in accounts} | set(sums))
    return [
        {
            "currency": currency,
            "accounts": {status: accounts.get(f"{currency}:{status}", 0) for status in ("open", "frozen", "closed")},
            "posted": str(sums.get(currency, 0)),
            "outside": str(outside.get(currency, 0)),
        }
        for currency in currencies
    ]


def _by_day(transfers: Mapping[str, int], volumes: Mapping[str, int], days: int) -> list[JsonObject]:
    """Returns the statistics of the latest days on which money moved, newest first."""
    latest = sorted(transfers, reverse=True)[:days]
    moved: dict[str, dict[str, str]] = {day: {} for day in latest}
    for name, amount in sorted(volumes.items()):
        day, _, currency = name.partition(":")
        if day in moved:
            moved[day][currency] = str(amount)
    return [{"day": day, "transfers": transfers[day], "amounts": moved[day]} for day in latest]


@router.get(
    "/stats",
    tags=["statistics"],
    **documented(StatisticsResponse, as_of(STATISTICS_EXAMPLE), *READ_MODEL, access=only("ledger:read")),
)
async def get_stats(request: QueryRequest, parameters: Annotated[StatisticsParameters, Query()]) -> Response:
    """Get the numbers of users, accounts and transfers, and the sum of the balances of each currency."""
    return request.answer_one(await find_statistics(request.view(), parameters))
