"""Denials: attempts without a valid credential or permission, or above a rate limit. Their path is `/v1/refusals`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, Page, ResponseModel, TimestampText, page_of
from shared.identity.access import only
from shared.identity.denials import Denial, read_denials
from shared.timestamps import timestamp

router = query_router()

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DenialResource(ResponseModel):
    """A denied attempt. A member with an empty text is unknown.

    In a path, `*` hides a part that may be a name or a secret. If the caller is not known, it hides every variable part. If the
    whole path is `*`, the attempts came too often to be listed one by one, and `count` says how many there were.
    """

    refused_at: TimestampText
    code: str
    api: Literal["commands", "queries"]
    method: str
    path: str
    address: str
    principal: str
    key_id: Annotated[str, Field(description="The key id in the credential, even if the credential is not valid.")]
    ledger_id: str
    request_id: Annotated[str, Field(description="The request id of the first of these attempts.")]
    count: Annotated[
        int, Field(description="How many times the attempt was made within one second, or within minutes if `path` is `*`.")
    ]


DENIAL_EXAMPLE: Final = {
    "refused_at": MOMENT,
    "code": "forbidden",
    "api": "commands",
    "method": "POST",
    "path": "/v1/deposits",
    "address": "192.0.2.7",
    "principal": "ada",
    "key_id": "k3vq7m2xnp",
    "ledger_id": "main",
    "request_id": "0198c5a0-0000-7000-8000-0000000000f1",
    "count": 1,
}


class DenialParameters(PageParameters):
    pass


async def find_denials(view: CallerView, parameters: DenialParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of denials, newest first."""
    before = None if key is None else (str(key[0]), int(key[1]))
    position = await view.reader.require_ledger(view.ledger_id)
    found = await read_denials(view.reader.redis, view.reader.settings, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].entry_id, page[-1].stream] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([_item(denial) for denial in page], next_key))


def _item(denial: Denial) -> dict[str, Any]:
    return {
        "refused_at": timestamp(_EPOCH + timedelta(milliseconds=denial.milliseconds)),
        **msgspec.structs.asdict(denial.attempt),
        "request_id": denial.request_id,
        "count": denial.count,
    }


@router.get(
    "/refusals",
    tags=["audit"],
    **documented(
        Page[DenialResource],
        page_of(DENIAL_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=only("events:read", "ops:admin"),
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_refusals(request: QueryRequest, parameters: Annotated[DenialParameters, Query()]) -> Response:
    """List denials on this ledger, newest first.

    Equal attempts within a second are one item. Attempts of a source that makes too many are merged into one item. Daybook keeps
    denials for `DAYBOOK_REFUSALS_DAYS` days: at most `DAYBOOK_REFUSALS_MAX` of callers that it knows, and as many of others.
    """
    return request.answer_page(await find_denials(request.view(), parameters, request.cursor_key(parameters)), parameters)
