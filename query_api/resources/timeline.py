"""The timeline of an account: its entries by month, newest first, from the timeline store. See `docs/stores.md`."""

from typing import Annotated, Any, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.documentation import PAGE_HEADERS, READ_MODEL, documented
from query_api.parameters import PageParameters
from query_api.reading import AsOf, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    EUROS,
    MOMENT,
    SAVINGS,
    TRANSFER,
    FactPosition,
    Page,
    ResponseModel,
    TimestampText,
    TransferKind,
    TransferParty,
    page_of,
)
from shared.identity.access import own_or
from shared.input_types import Id
from shared.timeline_errors import TimelineOff
from shared.web.members import MinorUnitAmount

router = query_router()

_OFF: Final = "The timeline is off. To turn it on, set DAYBOOK_TIMELINE_URL and restart: see docs/stores.md."


class TimelineEntry(ResponseModel):
    """An entry of an account. `amount` is negative if money left the account. `balance` is the balance after the transfer."""

    account_id: str
    transfer_id: str
    kind: TransferKind
    amount: MinorUnitAmount
    balance: MinorUnitAmount
    currency: str
    counterparty_account_id: TransferParty
    occurred_at: TimestampText
    recorded_at: TimestampText
    reference: str | None
    position: FactPosition


class ClosingBalance(ResponseModel):
    """The balance after the last entry that was recorded on a day, in UTC."""

    day: Annotated[str, Field(examples=["2026-11-30"])]
    balance: MinorUnitAmount
    currency: str


class TimelinePage(Page[TimelineEntry]):
    closing_balances: Annotated[list[ClosingBalance], Field(description="Of the days of these entries, newest first.")]


TIMELINE_EXAMPLE: Final[JsonObject] = page_of(
    {
        "account_id": EUROS,
        "transfer_id": TRANSFER,
        "kind": "transfer",
        "amount": -1250,
        "balance": 0,
        "currency": "EUR",
        "counterparty_account_id": SAVINGS,
        "occurred_at": MOMENT,
        "recorded_at": MOMENT,
        "reference": "rent",
        "position": 5,
    }
) | {"closing_balances": [{"day": MOMENT[:10], "balance": 0, "currency": "EUR"}]}


class TimelineParameters(PageParameters):
    month: (
        Annotated[
            str,
            Field(
                pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
                description="Only entries that were recorded in this month, in UTC.",
                examples=["2026-11"],
            ),
        ]
        | None
    ) = None


def _queries(request: QueryRequest) -> Any:
    """Returns the `TimelineQueries` of the API.

    Raises:
        TimelineOff: there are none.
    """
    if request.state.timeline is None:
        raise TimelineOff(_OFF)
    return request.state.timeline


@router.get(
    "/accounts/{account_id}/timeline",
    tags=["accounts"],
    **documented(
        TimelinePage,
        TIMELINE_EXAMPLE,
        *READ_MODEL,
        "cursor-invalid",
        "timeline-off",
        access=own_or("ledger:read"),
        response_headers=PAGE_HEADERS,
    ),
)
async def get_timeline(request: QueryRequest, account_id: Id, parameters: Annotated[TimelineParameters, Query()]) -> Response:
    """Get the entries of an account, newest first, with the closing balances of their days.

    A page may have fewer entries than `limit`, also none, while `next` leads to more.
    """
    view, key = request.view(), request.cursor_key(parameters)
    found: AsOf[Any] = await _queries(request).find(view, account_id, parameters.month, parameters.limit, key)
    if found.data is None:
        return request.answer_page(found)
    return request.answer_page(
        found.holding(found.data.page), parameters, beside={"closing_balances": found.data.closing_balances}
    )
