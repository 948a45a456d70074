"""Full-text search over transfers and users, in the search store. See `docs/stores.md`."""

from typing import Annotated, Any, Final, Literal

from fastapi import Query, Response
from pydantic import Field, model_validator

from query_api.documentation import PAGE_HEADERS, READ_MODEL, documented
from query_api.parameters import PageParameters
from query_api.reading import AsOf, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import (
    ADA,
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
from shared.input_types import Currency, Id
from shared.search_errors import SearchOff
from shared.web.members import MinorUnitAmount

router = query_router()

_OFF: Final = "Search is off. To turn it on, set DAYBOOK_SEARCH_URL and restart: see docs/stores.md."
_COUNTERPARTY: Final = "The name of the account's owner. null for customers, for the outside world, and of an erased person."

Highlights = Annotated[
    dict[str, list[str]],
    Field(description="By member, its text as HTML, with `<em>` around the words that were found. All else is escaped."),
]


class FoundTransfer(ResponseModel):
    type: Literal["transfer"]
    id: str
    kind: TransferKind
    from_account_id: TransferParty
    from_name: Annotated[str | None, Field(description=_COUNTERPARTY)]
    to_account_id: TransferParty
    to_name: Annotated[str | None, Field(description=_COUNTERPARTY)]
    amount: MinorUnitAmount
    currency: str
    occurred_at: TimestampText
    recorded_at: TimestampText
    reference: str | None
    metadata: dict[str, str] | None
    position: FactPosition
    highlights: Highlights


class FoundUser(ResponseModel):
    type: Literal["user"]
    id: str
    name: Annotated[str | None, Field(description="null if the user was erased.")]
    email: Annotated[str | None, Field(description="null if the user was erased.")]
    status: Literal["active", "inactive", "erased"]
    metadata: dict[str, str] | None
    recorded_at: TimestampText
    position: Annotated[int, Field(description="The position of the event that changed the user last.")]
    highlights: Highlights


class FacetValue(ResponseModel):
    value: str
    count: Annotated[int, Field(description="How many transfers on all pages have this value.")]


class Facets(ResponseModel):
    currency: list[FacetValue]
    kind: list[FacetValue]
    month: Annotated[list[FacetValue], Field(description="The month of `occurred_at`, the newest first.")]


class SearchPage(Page[FoundTransfer | FoundUser]):
    facets: Facets


_TRANSFER_FOUND: Final = {
    "type": "transfer",
    "id": TRANSFER,
    "kind": "transfer",
    "from_account_id": EUROS,
    "from_name": "Ada",
    "to_account_id": SAVINGS,
    "to_name": "Bob",
    "amount": 1250,
    "currency": "EUR",
    "occurred_at": MOMENT,
    "recorded_at": MOMENT,
    "reference": "rent November",
    "metadata": {"order": "1042"},
    "position": 5,
    "highlights": {"reference": ["<em>rent</em> November"]},
}
_USER_FOUND: Final = {
    "type": "user",
    "id": ADA,
    "name": "Ada",
    "email": "ada@example.com",
    "status": "active",
    "metadata": {"purpose": "rent"},
    "recorded_at": MOMENT,
    "position": 1,
    "highlights": {"metadata": ["<em>rent</em>"]},
}
SEARCH_EXAMPLE: Final[JsonObject] = page_of(_TRANSFER_FOUND) | {
    "items": [_TRANSFER_FOUND, _USER_FOUND],
    "facets": {
        "currency": [{"value": "EUR", "count": 21}],
        "kind": [{"value": "transfer", "count": 21}],
        "month": [{"value": "2026-11", "count": 21}],
    },
}


class SearchParameters(PageParameters):
    q: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                description="Words, all of which must be in the reference, in a value of the metadata, in a name or in an "
                "address, or be the name of an owner of one of the accounts. Words that are nearly so are found too, after the "
                "others. Without it, everything is found.",
                examples=["rent ada"],
            ),
        ]
        | None
    ) = None
    type: Literal["transfer", "user"] | None = None
    currency: Currency | None = None
    kind: TransferKind | None = None
    month: (
        Annotated[
            str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$", description="The month of `occurred_at`.", examples=["2026-11"])
        ]
        | None
    ) = None
    account_id: Annotated[Id, Field(description="Only transfers from or to this account.")] | None = None
    sort: Annotated[
        Literal["relevance", "recorded_at", "-recorded_at"],
        Field(description="By default `relevance`, and without `q` `-recorded_at`."),
    ] = "relevance"

    @model_validator(mode="before")
    @classmethod
    def _in_an_order(cls, given: dict[str, Any]) -> dict[str, Any]:
        return given if "q" in given or "sort" in given else given | {"sort": "-recorded_at"}


def _queries(request: QueryRequest) -> Any:
    """Returns the `SearchQueries` of the API.

    Raises:
        SearchOff: there are none.
    """
    if request.state.search is None:
        raise SearchOff(_OFF)
    return request.state.search


@router.get(
    "/search",
    tags=["search"],
    **documented(
        SearchPage,
        SEARCH_EXAMPLE,
        *READ_MODEL,
        "cursor-invalid",
        "search-off",
        access=own_or("ledger:read"),
        response_headers=PAGE_HEADERS,
    ),
)
async def search(request: QueryRequest, parameters: Annotated[SearchParameters, Query()]) -> Response:
    """Search transfers and users by words.

    A customer finds their own transfers, without exchanges and those with postings, and themselves. The words of a customer are
    not compared with the names of others.
    """
    view, key = request.view(), request.cursor_key(parameters)
    found: AsOf[Any] = await _queries(request).find(view, parameters.model_dump(), parameters.limit, key)
    return request.answer_page(found.holding(found.data.page), parameters, beside={"facets": found.data.facets})
