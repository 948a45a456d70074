"""The verifications of a ledger that operators asked for: how far each is, and what it found."""

from typing import Annotated, Any, Final

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, AsOfPosition, Page, ResponseModel, TimestampText, as_of, page_of
from shared.identity.access import only
from shared.input_types import Id
from shared.proof import verifications
from shared.proof.verifications import LedgerVerdict, VerificationStatus

router = query_router()

VERIFIERS: Final = only("ops:admin")
AFTER_EVERY_ID: Final = "~"


class CheckResource(ResponseModel):
    """The outcome of one check."""

    name: str
    verdict: LedgerVerdict
    text: Annotated[str, Field(description="What was compared, or where the first difference is.")]


class VerificationResource(ResponseModel):
    """A verification of a ledger."""

    id: str
    reason: str
    requested_by: Annotated[str, Field(description="The principal of the caller.")]
    status: Annotated[VerificationStatus, Field(description="`waiting`: no worker has begun. It may verify another ledger.")]
    step: Annotated[str | None, Field(description="What is being checked.")]
    events_done: Annotated[int, Field(description="How many of `events_total` events this step has read.")]
    events_total: int
    verdict: Annotated[LedgerVerdict | None, Field(description="The worst of all checks. null until it is done.")]
    checks: Annotated[list[CheckResource], Field(description="Those that have ended, in order.")]
    outcome: Annotated[str | None, Field(description="Why it failed, as a sentence.")]
    requested_at: TimestampText
    changed_at: TimestampText


class VerificationResponse(VerificationResource):
    position: AsOfPosition


VERIFICATION_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0198c5a0-0000-7000-8000-0000000000f1",
    "reason": "monthly check",
    "requested_by": "operator",
    "status": "failed",
    "step": "events",
    "events_done": 20_000,
    "events_total": 42_000,
    "verdict": "ok",
    "checks": [{"name": "log", "verdict": "ok", "text": "42000 events, dense and unchanged"}],
    "outcome": "the command ended with 1: the worker's log has what it said",
    "requested_at": MOMENT,
    "changed_at": MOMENT,
}

VerificationId = Annotated[Id, Field(examples=["0198c5a0-0000-7000-8000-0000000000f1"])]


class VerificationParameters(PageParameters):
    pass


async def find_verifications(view: CallerView, parameters: VerificationParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of verifications, newest first."""
    position = await view.reader.require_ledger(view.ledger_id)
    before = AFTER_EVERY_ID if key is None else str(key[0])
    async with view.reader.postgres.connect() as connection:
        found = await verifications.read(connection, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].id] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([each.members() for each in page], next_key))


async def find_verification(view: CallerView, verification_id: str) -> AsOf[Any]:
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await verifications.find(connection, view.ledger_id, verification_id)
    return AsOf(position, found.members() if found else None)


@router.get(
    "/verifications",
    tags=["log"],
    **documented(
        Page[VerificationResource],
        page_of(VERIFICATION_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=VERIFIERS,
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_verifications(request: QueryRequest, parameters: Annotated[VerificationParameters, Query()]) -> Response:
    """List the verifications of the last 90 days that were asked for over HTTP, newest first."""
    return request.answer_page(await find_verifications(request.view(), parameters, request.cursor_key(parameters)), parameters)


@router.get(
    "/verifications/{verification_id}",
    tags=["log"],
    **documented(VerificationResponse, as_of(VERIFICATION_EXAMPLE), *ANY_QUERY, access=VERIFIERS, headers=[LEDGER_HEADER]),
)
async def get_verification(request: QueryRequest, verification_id: VerificationId) -> Response:
    """Get a verification: how far it is, and what each check found."""
    return request.answer_one(await find_verification(request.view(), verification_id), changes_with_time=True)
