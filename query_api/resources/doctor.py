"""What `daybook doctor` finds, over HTTP. It is for those who run Daybook, so it needs a key for all ledgers."""

from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import Response
from pydantic import Field

from query_api.documentation import ANY_QUERY, LEDGER_HEADER, documented
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, ResponseModel, TimestampText
from shared.identity.access import only_for_all_ledgers
from shared.stores.findings import Severity
from shared.timestamps import timestamp
from shared.web.problems import JSON

router = query_router()


class FindingResource(ResponseModel):
    """Something unsafe in the settings of this process or in a store, and what to do about it."""

    name: Annotated[str, Field(description="It never changes.")]
    severity: Annotated[Severity, Field(description="`danger`: in production, a process does not start with it.")]
    what: str
    fix: str


class DoctorResponse(ResponseModel):
    items: Annotated[list[FindingResource], Field(description="The dangerous ones first. Empty if nothing was found.")]
    examined_at: TimestampText


DOCTOR_EXAMPLE: Final[dict[str, Any]] = {
    "items": [
        {
            "name": "redis-not-kept",
            "severity": "warning",
            "what": "Redis does not write every change to disk: after a crash, balances are built again and denials are lost",
            "fix": "appendonly yes",
        }
    ],
    "examined_at": MOMENT,
}


@router.get(
    "/doctor",
    tags=["access"],
    **documented(
        DoctorResponse,
        DOCTOR_EXAMPLE,
        *ANY_QUERY,
        access=only_for_all_ledgers("ops:admin"),
        headers=[LEDGER_HEADER],
        response_headers={},
    ),
)
async def get_doctor(request: QueryRequest) -> Response:
    """List what is unsafe in the settings of the query API and in the three stores. Callers of ten seconds share a report."""
    found = await request.state.doctor_reports.latest()
    body = {"items": msgspec.to_builtins(found.findings), "examined_at": timestamp(found.examined_at)}
    return Response(orjson.dumps(body), 200, media_type=JSON)
