"""The caller: what a credential is and may do, so that a program can offer only what its user can use."""

from typing import Annotated, Any, Final

import orjson
from fastapi import Response
from pydantic import Field

from query_api.documentation import ANY_QUERY, LEDGER_HEADER, documented
from query_api.requests import QueryRequest, query_router
from query_api.responses import ResponseModel
from shared.identity.access import SCOPES, Scope, own_or
from shared.web.problems import JSON

router = query_router()


class CallerResource(ResponseModel):
    principal: Annotated[str, Field(description="The name of the caller in events. It stays the same when a key is rotated.")]
    ledger_id: Annotated[str, Field(description="The ledger that requests with this credential read.")]
    all_ledgers: Annotated[bool, Field(description="True for a key for all ledgers. `Daybook-Ledger` names the one to read.")]
    user_id: Annotated[str | None, Field(description="The user of a customer's credential. null for operators.")]
    scopes: Annotated[list[Scope], Field(description="What the credential may do, in the order of the documentation.")]


CALLER_EXAMPLE: Final[dict[str, Any]] = {
    "principal": "auditor",
    "ledger_id": "main",
    "all_ledgers": False,
    "user_id": "0198c5a0-0000-7000-8000-00000000ada0",
    "scopes": ["ledger:read", "events:read"],
}


@router.get(
    "/caller",
    tags=["access"],
    **documented(
        CallerResource, CALLER_EXAMPLE, *ANY_QUERY, access=own_or(*SCOPES), headers=[LEDGER_HEADER], response_headers={}
    ),
)
async def get_caller(request: QueryRequest) -> Response:
    """Get the caller of this request, with its scopes."""
    principal = request.principal
    caller = {
        "principal": principal.principal,
        "ledger_id": request.ledger_id(),
        "all_ledgers": principal.has_all_ledgers,
        "user_id": principal.user_id,
        "scopes": [scope for scope in SCOPES if scope in principal.scopes],
    }
    return Response(orjson.dumps(caller), 200, media_type=JSON)
