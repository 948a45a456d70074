"""Ledgers: their names, settings and status. They are read from the log, so a new ledger is listed at once."""

from typing import Annotated, Any, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, AsOfPosition, Page, ResponseModel, TimestampText, page_of
from shared.errors import NotFound
from shared.identity.access import only
from shared.input_types import LedgerId
from shared.log.ledgers import Ledger, read_ledgers
from shared.timestamps import timestamp

router = query_router()


class LedgerResource(ResponseModel):
    """A ledger. One whose log says nothing about it is called by its id, and has the time zone UTC and all currencies."""

    id: str
    name: str
    status: Literal["open", "closed"]
    time_zone: Annotated[str, Field(description="A name of the IANA database.")]
    currencies: Annotated[list[str] | None, Field(description="Those in which accounts can be opened. null for all.")]
    transfer_max: Annotated[
        dict[str, int] | None,
        Field(description="The largest amount of a transfer by currency. null for no limit."),
    ]
    created_at: Annotated[TimestampText | None, Field(description="null if the log does not say.")]
    closed_at: TimestampText | None
    position: AsOfPosition


LEDGER_EXAMPLE: Final = {
    "id": "acme",
    "name": "Acme",
    "status": "closed",
    "time_zone": "Europe/Berlin",
    "currencies": ["EUR", "USD"],
    "transfer_max": {"EUR": 1_000_000},
    "created_at": MOMENT,
    "closed_at": MOMENT,
    "position": 42,
}


class LedgerParameters(PageParameters):
    pass


async def find_ledgers(
    view: CallerView, parameters: LedgerParameters, key: CursorKey | None, *, only: str | None
) -> AsOf[ListSlice]:
    """Reads one page of ledgers by their ids. With `only`, reads that one. The position is that of the caller's ledger."""
    after = "" if key is None else str(key[0])
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await read_ledgers(connection, after, parameters.limit + 1, only=only)
    page = found[: parameters.limit]
    next_key = [page[-1].ledger_id] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([_item(ledger) for ledger in page], next_key))


async def find_ledger(view: CallerView, ledger_id: str) -> AsOf[JsonObject]:
    """Reads one ledger.

    Raises:
        NotFound: there is no such ledger.
    """
    async with view.reader.postgres.connect() as connection:
        found = await read_ledgers(connection, only=ledger_id)
    if not found:
        raise NotFound("There is no such ledger.")
    return AsOf(found[0].position, _item(found[0]))


def _item(ledger: Ledger) -> dict[str, Any]:
    state = ledger.state
    return {
        "id": ledger.ledger_id,
        "name": ledger.name,
        "status": state.status,
        "time_zone": state.time_zone,
        "currencies": state.currencies,
        "transfer_max": dict(sorted(state.transfer_max.items())) if state.transfer_max else None,
        "created_at": timestamp(ledger.created_at) if ledger.created_at else None,
        "closed_at": timestamp(ledger.closed_at) if ledger.closed_at else None,
        "position": ledger.position,
    }


@router.get(
    "/ledgers",
    tags=["ledgers"],
    **documented(
        Page[LedgerResource],
        page_of(LEDGER_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=only("ops:admin", "ledger:read"),
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_ledgers(request: QueryRequest, parameters: Annotated[LedgerParameters, Query()]) -> Response:
    """List the ledgers by their ids: all of them with a key for all ledgers, and otherwise the caller's own."""
    only_own = None if request.principal.has_all_ledgers else request.ledger_id()
    key = request.cursor_key(parameters)
    return request.answer_page(await find_ledgers(request.view(), parameters, key, only=only_own), parameters)


@router.get(
    "/ledgers/{ledger_id}",
    tags=["ledgers"],
    **documented(
        LedgerResource,
        LEDGER_EXAMPLE,
        *ANY_QUERY,
        access=only("ops:admin", "ledger:read"),
        headers=[LEDGER_HEADER],
    ),
)
async def get_ledger(request: QueryRequest, ledger_id: Annotated[LedgerId, Field(examples=["main"])]) -> Response:
    """Get a ledger with its settings. Without a key for all ledgers, every ledger but the caller's own is answered as missing."""
    request.scope["state"]["named_ledger"] = ledger_id
    own = request.ledger_id()
    if ledger_id != own and not request.principal.has_all_ledgers:
        raise NotFound("There is no such ledger.")
    return request.answer_one(await find_ledger(request.view(), ledger_id))
