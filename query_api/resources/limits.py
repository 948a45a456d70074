"""The limits of an account: what they are now, what was spent of them, when they reset, and how they changed."""

from typing import Annotated, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented
from query_api.lists import read_list_of_texts, sort_orders
from query_api.parameters import POSITION_MAX, PageParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import EUROS, MOMENT, AsOfPosition, FactPosition, ResponseModel, TimestampText
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import BALANCES, LIMIT_HISTORY, LIMIT_NAMES, entry_id
from shared.spending_periods import reset_of
from shared.web.members import MinorUnitAmount

router = query_router()

_NEWEST_FIRST: Final = sort_orders({"position": ("_id",)})["-position"]


class SpendingLimitsResource(ResponseModel):
    """What an account may spend in one transfer, a day and a month. null is no limit."""

    per_transfer_min: MinorUnitAmount | None
    per_transfer_max: MinorUnitAmount | None
    per_day: MinorUnitAmount | None
    per_month: MinorUnitAmount | None


class CountedLimitResource(ResponseModel):
    """A limit of a day or a month of UTC, what of it was spent, and when it begins to count anew."""

    limit: MinorUnitAmount
    used: MinorUnitAmount
    resets_at: TimestampText


class LimitChangeResource(ResponseModel):
    """A change of the overdraft limit, or of what the account may spend. It has one of the two."""

    position: FactPosition
    recorded_at: TimestampText
    overdraft_limit: MinorUnitAmount | None = None
    limits: SpendingLimitsResource | None = None


class LimitsResponse(ResponseModel):
    account_id: str
    currency: str
    overdraft_limit: MinorUnitAmount
    per_transfer_min: MinorUnitAmount | None
    per_transfer_max: MinorUnitAmount | None
    per_day: CountedLimitResource | None
    per_month: CountedLimitResource | None
    history: Annotated[
        list[LimitChangeResource], Field(description="The changes, newest first. The first one opened the account.")
    ]
    next: Annotated[str | None, Field(description="The cursor of the next page of the history. null on the last page.")]
    position: AsOfPosition


LIMITS_EXAMPLE: Final = {
    "account_id": EUROS,
    "currency": "EUR",
    "overdraft_limit": 0,
    "per_transfer_min": 100,
    "per_transfer_max": 50_000,
    "per_day": {"limit": 100_000, "used": 2_500, "resets_at": "2026-11-22T00:00:00.000000Z"},
    "per_month": {"limit": 500_000, "used": 9_000, "resets_at": "2026-12-01T00:00:00.000000Z"},
    "history": [
        {
            "position": 7,
            "recorded_at": MOMENT,
            "limits": {"per_transfer_min": 100, "per_transfer_max": 50_000, "per_day": 100_000, "per_month": 500_000},
        },
        {"position": 2, "recorded_at": MOMENT, "overdraft_limit": 0},
    ],
    "next": "Ct9FmEcvrOb9gOdN8fORwFs0MV0",
    "position": 42,
}


async def find_limits(view: CallerView, account_id: str) -> AsOf[JsonObject | None]:
    """Reads the limits of an account as they are now, or returns None if there is no such account that the caller may see."""
    fields = ("owner_id", "currency", "overdraft_limit", "changed_at", "spent", *LIMIT_NAMES)
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", *fields))
    owner_id, currency, overdraft_limit, changed_at, spent, *amounts = found.data[0]
    needed = (owner_id, currency, overdraft_limit, changed_at)
    if any(each is None for each in needed) and any(each is not None for each in needed):
        await view.reader.give_up(BALANCES, view.ledger_id)
    if owner_id is None or not view.sees(owner_id):
        return found.holding(None)
    limits = dict(zip(LIMIT_NAMES, (None if each is None else int(each) for each in amounts), strict=True))
    body = {"account_id": account_id, "currency": currency, "overdraft_limit": int(overdraft_limit), **limits}
    return found.holding(body | counted(limits, spent, max(await view.now(), changed_at)))


def counted(limits: dict[str, int | None], spent: str | None, now: str) -> JsonObject:
    """Returns the limits of the day and the month of `now`, with what was spent of them."""
    day, today, in_month = (spent or f"{now[:10]} 0 0").split(" ")
    used = {
        "day": int(today) if day == now[:10] else 0,
        "month": int(in_month) if day[:7] == now[:7] else 0,
    }
    resets = reset_of(now[:10])
    asked = ((period, limits[f"per_{period}"]) for period in used)
    return {
        f"per_{period}": None if limit is None else {"limit": limit, "used": used[period], "resets_at": resets[period]}
        for period, limit in asked
    }


async def _find_history(
    view: CallerView, account_id: str, parameters: PageParameters, key: CursorKey | None
) -> AsOf[tuple[JsonObject, CursorKey | None]]:
    match = {"_id": {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, POSITION_MAX)}}
    found = await read_list_of_texts(view, LIMIT_HISTORY, match, _NEWEST_FIRST, parameters, key)
    return found.holding(({"history": found.data.items}, found.data.next_key))


@router.get(
    "/accounts/{account_id}/limits",
    tags=["accounts"],
    **documented(LimitsResponse, LIMITS_EXAMPLE, *READ_MODEL, "cursor-invalid", access=own_or("ledger:read")),
)
async def get_limits(request: QueryRequest, account_id: Id, parameters: Annotated[PageParameters, Query()]) -> Response:
    """Get the limits of an account: what they are, what was spent of them, when they reset, and their history, newest first."""
    view = request.view()
    key = request.cursor_key(parameters)
    limits = await find_limits(view, account_id)
    if limits.data is None:
        return request.answer_one(limits)
    history = await _find_history(view, account_id, parameters, key)
    page, next_key = history.data
    body = {**limits.data, **page, "next": request.sign_cursor(parameters, next_key)}
    return request.answer_one(limits.limiting(history.holding(body)))
