"""Reports: questions to the tables of SQL reporting, as JSON pages, or as a CSV or Parquet file. See `docs/stores.md`."""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from importlib import import_module
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from query_api.documentation import READ_MODEL, documented
from query_api.parameters import Integer, Parameters
from query_api.reading import AsOf, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    ADA,
    EUROS,
    MOMENT,
    SAVINGS,
    TRANSFER,
    AsOfPosition,
    MinorUnitSum,
    ResponseModel,
    TimestampText,
    TransferKind,
    as_of,
)
from query_api.statement_formats import FORMULA_SIGNS
from shared.identity.access import only
from shared.input_types import Currency, Id
from shared.reporting_errors import ParquetOff, ReportingOff
from shared.web.headers import qualities, quality_of
from shared.web.members import MinorUnitAmount
from shared.web.problems import JSON

router = query_router()

CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"
PAGE_SIZE_MAX: Final = 100
PAGE_MAX: Final = 10_000
_OFF: Final = (
    "SQL reporting is off. To turn it on, set DAYBOOK_REPORTING_URL, run `daybook migrate`, and restart: see docs/stores.md."
)
_NO_PARQUET: Final = "Parquet files are off: Daybook runs without pyarrow, the extra `parquet`. Ask for text/csv."
_USER_COLUMNS: Final = ("id", "name", "email", "status", "created_at", "currency", "accounts", "sum")
_TEXTS: Final = frozenset(("name", "email", "reference"))

Month = Annotated[str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$", examples=["2026-11"])]


class ReportParameters(Parameters):
    page: Annotated[Integer, Field(ge=1, le=PAGE_MAX, description="The number of the page, from 1 on.")] = 1
    page_size: Annotated[Integer, Field(ge=1, le=PAGE_SIZE_MAX, description="The number of items on a page.")] = 20


class ReportBody(ResponseModel):
    page: int
    page_size: int
    total: Annotated[int, Field(description="The number of items on all pages.")]
    pages: Annotated[int, Field(description="The number of pages.")]
    position: AsOfPosition


class CurrencyHolding(ResponseModel):
    currency: str
    accounts: Annotated[int, Field(description="The number of the user's accounts in this currency.")]
    sum: MinorUnitSum


class UserReportItem(ResponseModel):
    id: str
    name: Annotated[str | None, Field(description="null if the user was erased.")]
    email: Annotated[str | None, Field(description="null if the user was erased.")]
    status: Literal["active", "inactive", "erased"]
    created_at: TimestampText
    accounts: Annotated[int, Field(description="The number of all accounts of the user.")]
    sums: list[CurrencyHolding]


class UserReport(ReportBody):
    items: list[UserReportItem]


class TotalsReportItem(ResponseModel):
    owner_id: Annotated[str | None, Field(description="Only with `by=owner`.")] = None
    month: Annotated[str | None, Field(description="The month of `occurred_at`. Only with `by=month`.")] = None
    currency: str
    entries: int
    paid_in: MinorUnitSum
    paid_out: MinorUnitSum
    sum: MinorUnitSum


class TotalsReport(ReportBody):
    items: list[TotalsReportItem]


class EntryReportItem(ResponseModel):
    account_id: str
    transfer_id: str
    kind: TransferKind
    amount: Annotated[MinorUnitAmount, Field(description="Below 0 if the money left the account.")]
    balance: MinorUnitAmount
    currency: str
    counterparty_account_id: str | None
    occurred_at: TimestampText
    recorded_at: TimestampText
    month: Annotated[str, Field(description="The month of `occurred_at`.")]
    reference: str | None
    position: int


class EntryReport(ReportBody):
    items: list[EntryReportItem]


_PAGE: Final = {"page": 1, "page_size": 20, "total": 1, "pages": 1}
USER_REPORT_EXAMPLE: Final = _PAGE | {
    "items": [
        {
            "id": ADA,
            "name": "Ada",
            "email": "ada@example.com",
            "status": "active",
            "created_at": MOMENT,
            "accounts": 2,
            "sums": [{"currency": "EUR", "accounts": 2, "sum": "1250"}],
        }
    ]
}
TOTALS_REPORT_EXAMPLE: Final = _PAGE | {
    "items": [{"month": "2026-11", "currency": "EUR", "entries": 3, "paid_in": "2500", "paid_out": "1250", "sum": "1250"}]
}
ENTRY_REPORT_EXAMPLE: Final = _PAGE | {
    "items": [
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
            "month": "2026-11",
            "reference": "invoice 4711",
            "position": 42,
        }
    ]
}


class UserReportParameters(ReportParameters):
    status: Literal["active", "inactive", "erased"] | None = None
    currency: Annotated[Currency, Field(description="Only users with an account in this currency.")] | None = None
    search: (
        Annotated[
            str,
            Field(min_length=1, max_length=100, description="Only users whose name or address contains each of these words."),
        ]
        | None
    ) = None
    sort: Literal["created_at", "-created_at", "name", "-name", "accounts", "-accounts"] = "created_at"


class EntryFilters(ReportParameters):
    currency: Currency | None = None
    owner_id: Annotated[Id, Field(description="Only entries of this user's accounts.")] | None = None
    account_id: Id | None = None
    kind: TransferKind | None = None
    month_gte: Month | None = Field(default=None, alias="month[gte]", description="Only this month and later ones.")
    month_lte: Month | None = Field(default=None, alias="month[lte]", description="Only this month and earlier ones.")


class TotalsParameters(EntryFilters):
    by: Annotated[
        Literal["owner", "month", "currency"], Field(description="What the sums are for. Each has a line for each currency.")
    ] = "month"


class EntryReportParameters(EntryFilters):
    sort: Literal["occurred_at", "-occurred_at", "amount", "-amount", "position", "-position"] = "position"


def _queries(request: QueryRequest) -> Any:
    """Returns the `ReportQueries` of the API.

    Raises:
        ReportingOff: there are none.
    """
    queries = request.state.reports
    if queries is None:
        raise ReportingOff(_OFF)
    return queries


async def _answer(request: QueryRequest, report: str, parameters: ReportParameters, columns: Iterable[str]) -> Response:
    """Answers with a page as JSON or, if the caller prefers that, with all rows as a file, which is sent in pieces."""
    view, queries, asked = request.view(), _queries(request), parameters.model_dump()
    accepted = qualities(request.headers.getlist("accept"))
    form = max((JSON, CSV, PARQUET), key=lambda each: quality_of(each, accepted))  # of equals, the first
    pieces = None if form == JSON else _pieces(form)
    # Read before a file too, so that an outage is a problem document and not a file that ends at once.
    page = queries.page(1, 1) if pieces else queries.page(parameters.page, parameters.page_size)
    found: AsOf[Any] = await getattr(queries, report)(view, asked, page)
    headers = {"Daybook-Position": str(found.position), "Vary": "Accept"}
    if found.stale:
        headers["Daybook-Stale"] = "true"
    if pieces:
        headers["Content-Disposition"] = f'attachment; filename="{report}.{"csv" if form == CSV else "parquet"}"'
        content = pieces(queries.rows(view, report, asked), tuple(columns))
        return StreamingResponse(content, 200, headers, f"{CSV}; charset=utf-8" if form == CSV else form)
    items, total = found.data
    told = {"page": parameters.page, "page_size": parameters.page_size, "total": total}
    body = {"items": items, **told, "pages": -(-total // parameters.page_size), "position": found.position}
    return Response(orjson.dumps(body), 200, headers, JSON)


def _pieces(form: str) -> Any:
    """Returns the function that makes the pieces of a file of rows.

    Raises:
        ParquetOff: the package for it is not installed.
    """
    if form == CSV:
        return _lines
    try:
        return import_module("query_api.parquet_files").parquet_file
    except ModuleNotFoundError as missing:
        raise ParquetOff(_NO_PARQUET) from missing


async def _lines(pieces: AsyncIterator[list[JsonObject]], columns: tuple[str, ...]) -> AsyncIterator[str]:
    yield _csv([columns])
    async for rows in pieces:
        yield _csv([_cell(name, row.get(name)) for name in columns] for row in rows)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _cell(name: str, value: Any) -> Any:
    """Returns a value for CSV. A text of a caller that a spreadsheet would run as a formula gets an apostrophe in front."""
    if value is None:
        return ""
    return f"'{value}" if name in _TEXTS and value.startswith(FORMULA_SIGNS) else value


def _documented(shape: Any, example: JsonObject) -> dict[str, Any]:
    arguments = documented(shape, as_of(example), *READ_MODEL, "reporting-off", "parquet-off", access=only("ledger:read"))
    arguments["responses"][200]["content"] |= {
        CSV: {"schema": {"type": "string"}},
        PARQUET: {"schema": {"type": "string", "format": "binary"}},
    }
    return arguments


@router.get("/reports/users", tags=["reports"], **_documented(UserReport, USER_REPORT_EXAMPLE))
async def report_users(request: QueryRequest, parameters: Annotated[UserReportParameters, Query()]) -> Response:
    """Report users with the number of their accounts and the sums of their balances.

    `Accept: text/csv` or `Accept: application/vnd.apache.parquet` answers with a file of all
    users, with a line for each user and currency.
    """
    return await _answer(request, "users", parameters, _USER_COLUMNS)


@router.get("/reports/totals", tags=["reports"], **_documented(TotalsReport, TOTALS_REPORT_EXAMPLE))
async def report_totals(request: QueryRequest, parameters: Annotated[TotalsParameters, Query()]) -> Response:
    """Report what came into accounts and left them, by currency, and by owner or month.

    `Accept: text/csv` or `Accept: application/vnd.apache.parquet` answers with a file of all
    lines.
    """
    return await _answer(request, "totals", parameters, TotalsReportItem.model_fields)


@router.get("/reports/entries", tags=["reports"], **_documented(EntryReport, ENTRY_REPORT_EXAMPLE))
async def report_entries(request: QueryRequest, parameters: Annotated[EntryReportParameters, Query()]) -> Response:
    """Report entries of all accounts.

    `Accept: text/csv` or `Accept: application/vnd.apache.parquet` answers with a file of all
    entries.
    """
    return await _answer(request, "entries", parameters, EntryReportItem.model_fields)
