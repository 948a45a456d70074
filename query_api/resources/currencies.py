"""Currencies: the codes that accounts can have, with what a client needs to show amounts in major units."""

from typing import Annotated, Final

import orjson
from fastapi import Response
from pydantic import Field

from query_api.documentation import ANY_QUERY, LEDGER_HEADER, documented
from query_api.requests import QueryRequest, query_router
from query_api.responses import ResponseModel
from shared.identity.access import own_or
from shared.money import CURRENCIES
from shared.web.problems import JSON

router = query_router()


class CurrencyResource(ResponseModel):
    code: Annotated[str, Field(description="The code of ISO 4217.")]
    exponent: Annotated[
        int, Field(description="The number of decimal places: an amount divided by 10 to the power of this is in major units.")
    ]
    name: str


CURRENCIES_EXAMPLE: Final = [{"code": "EUR", "exponent": 2, "name": "Euro"}, {"code": "JPY", "exponent": 0, "name": "Yen"}]
_BODY: Final = orjson.dumps([currency._asdict() for _, currency in sorted(CURRENCIES.items())])


@router.get(
    "/currencies",
    tags=["accounts"],
    **documented(
        list[CurrencyResource],
        CURRENCIES_EXAMPLE,
        *ANY_QUERY,
        access=own_or("ledger:read"),
        headers=[LEDGER_HEADER],
        response_headers={},
    ),
)
async def list_currencies(request: QueryRequest) -> Response:
    """List all currencies by code, with their exponents.

    Historical currencies are among them, because accounts in them stay usable. `DAYBOOK_HISTORICAL_CURRENCIES` says in which of
    those accounts can be opened.
    """
    request.ledger_id()
    return Response(_BODY, 200, media_type=JSON)
