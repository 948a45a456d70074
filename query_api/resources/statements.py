"""Statements: the entries of an account in a period, between its opening and its closing balance.

A period has its first moment and not its last, so statements that follow each other meet without a gap and without an overlap,
also if entries share a moment. The closing balance is the opening balance and all lines added up.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import Query, Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from query_api.closed_days import Recording, find_late
from query_api.documentation import READ_MODEL, documented
from query_api.parameters import Axis, Parameters
from query_api.past_balances import PastMoment, find_moment, find_posted
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from query_api.requests import QueryRequest, query_router
from query_api.resources.entries import ENTRY_EXAMPLE, EntryResource
from query_api.responses import EUROS, AsOfPosition, ResponseModel, TimestampText, as_of
from query_api.statement_formats import FORMATS
from shared.errors import NotFound, ValidationFailed
from shared.identity.access import own_or
from shared.input_types import Id, Moment
from shared.read_models.shapes import BALANCES, ENTRIES, Entry, entry_id
from shared.timestamps import timestamp
from shared.web.headers import qualities, quality_of
from shared.web.members import MinorUnitAmount
from shared.web.problems import JSON, problem_response

router = query_router()

FIRST: Final = "1900-01-01T00:00:00.000000Z"
LAST: Final = "2199-12-31T23:59:59.999999Z"
LINES_MAX: Final = 10_000
"""The most lines of a statement. A longer period is refused, and never cut off."""


class StatementResponse(ResponseModel):
    account_id: str
    currency: str
    axis: Axis
    from_: Annotated[str, Field(alias="from", description="The first moment of the period.")]
    to: Annotated[TimestampText, Field(description="The end of the period, which belongs to the next statement.")]
    opening_balance: MinorUnitAmount
    lines: Annotated[
        list[EntryResource],
        Field(description="In the order of the axis. `balance` is the sum up to the line, in this order."),
    ]
    closing_balance: MinorUnitAmount
    position: AsOfPosition


STATEMENT_EXAMPLE: Final = {
    "account_id": EUROS,
    "currency": "EUR",
    "axis": "recorded_at",
    "from": "2026-11-01T00:00:00.000000Z",
    "to": "2026-12-01T00:00:00.000000Z",
    "opening_balance": 1250,
    "lines": [ENTRY_EXAMPLE],
    "closing_balance": 0,
}


class StatementParameters(Parameters):
    from_: Annotated[Moment, Field(alias="from", description="The first moment. Default: the first of all.")] = FIRST
    to: Annotated[Moment, Field(description="The end: the first moment of the next period. Default: the last of all.")] = LAST
    axis: Annotated[Axis, Field(description="The time that places an entry in a period and orders the lines.")] = "recorded_at"

    @model_validator(mode="after")
    def _forwards(self) -> "StatementParameters":
        if self.from_ > self.to:
            code, message = "period_backwards", "The period must not end before it begins"
            raise PydanticCustomError(code, message)
        return self


async def find_statement(view: CallerView, account_id: str, period: StatementParameters) -> AsOf[JsonObject | None]:
    """Reads a statement, or returns None if there is no such account that the caller may see.

    Raises:
        ValidationFailed: the period has more than `LINES_MAX` entries.
    """
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", "owner_id", "currency"))
    owner_id, currency = found.data[0]
    if owner_id is None or currency is None or not view.sees(owner_id):
        return found.holding(None)
    before, last = [await find_moment(view, _just_before(moment), period.axis) for moment in (period.from_, period.to)]
    up_to_last = view.reaching(max(last.position, view.freshness.min_position))
    opening = await find_posted(up_to_last, [account_id], before, period.axis)
    # On `recorded_at` all is known that ever will be. On `occurred_at` the lines must be those that the opening balance knows.
    known = last.position if period.axis == "recorded_at" else opening.position
    lines, total = [], opening.data[account_id]
    for entry in await _read_entries(view, account_id, period, before, last, known):
        total += entry.amount
        lines.append(msgspec.structs.asdict(entry) | {"balance": total})
    late, _ = await find_late(view.reaching(known), msgspec.convert(lines, list[Recording]))
    for line in lines:
        line["after_close"] = line["position"] in late
    return AsOf(
        known,
        {
            "account_id": account_id,
            "currency": currency,
            "axis": period.axis,
            "from": period.from_,
            "to": period.to,
            "opening_balance": opening.data[account_id],
            "lines": lines,
            "closing_balance": total,
        },
    )


def _just_before(moment: str) -> str:
    """Returns the last moment before this one: the log counts in microseconds."""
    return timestamp(datetime.fromisoformat(moment) - timedelta(microseconds=1))


async def _read_entries(
    view: CallerView, account_id: str, period: StatementParameters, before: PastMoment, last: PastMoment, known: int
) -> list[Entry]:
    if period.axis == "recorded_at":
        match: JsonObject = {"_id": {"$gt": entry_id(account_id, before.position), "$lte": entry_id(account_id, last.position)}}
        order = {"_id": 1}
    else:
        match = {"account_id": account_id, "occurred_at": {"$gte": period.from_, "$lt": period.to}, "position": {"$lte": known}}
        order = {"account_id": 1, "occurred_at": 1, "_id": 1}
    stages: list[JsonObject] = [{"$match": match}, {"$sort": order}, {"$limit": LINES_MAX + 1}, {"$project": {"item": 1}}]
    found = await view.reaching(known).documents(ENTRIES, stages, alone=True)
    if len(found.data) > LINES_MAX:
        detail = f"The period has more than {LINES_MAX} entries: ask for a shorter one"
        raise ValidationFailed(errors=[{"pointer": "query: to", "detail": detail}])
    if any("item" not in document for document in found.data):
        raise rebuilding(ENTRIES)
    return [msgspec.json.decode(document["item"], type=Entry) for document in found.data]


def _documented() -> dict[str, Any]:
    arguments = documented(StatementResponse, as_of(STATEMENT_EXAMPLE), *READ_MODEL, access=own_or("ledger:read"))
    for media_type in FORMATS:
        arguments["responses"][200]["content"][media_type] = {"schema": {"type": "string"}}
    return arguments


@router.get("/accounts/{account_id}/statement", tags=["accounts"], **_documented())
async def get_statement(request: QueryRequest, account_id: Id, parameters: Annotated[StatementParameters, Query()]) -> Response:
    """Get the statement of an account for a period, as JSON, CSV, a page to print (HTML), or camt.053 (XML).

    `Accept` chooses the form. Statements of periods that follow each other meet without a gap and without an overlap.
    """
    found = await find_statement(request.view(), account_id, parameters)
    headers = {"Daybook-Position": str(found.position), "Vary": "Accept"}
    if found.data is None:
        return problem_response(request, NotFound(), headers)
    body = found.data | {"position": found.position}
    accepted = qualities(request.headers.getlist("accept"))
    media_type = max((JSON, *FORMATS), key=lambda each: quality_of(each, accepted))
    if media_type in FORMATS:
        headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(FORMATS[media_type](body), 200, headers, f"{media_type}; charset=utf-8")
    return Response(orjson.dumps(body), 200, headers, JSON)
