"""Audit records: what was done to credentials and limits, by whom, from where and when."""

from typing import Annotated, Any, Final

import orjson
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
from shared.identity.audit_records import Act, AuditRecord, read_before
from shared.timestamps import timestamp

router = query_router()

LATEST_POSITION: Final = 2**63 - 1


class AuditCallerMember(ResponseModel):
    """The caller of an act. A member is null if it is unknown or does not exist."""

    principal: Annotated[str | None, Field(description="null for a denied login and for a reset token.")]
    key_id: str | None
    network: Annotated[str | None, Field(description="A /24, or a /48 for IPv6; null for a command line.")]
    request_id: str | None


class AuditRecordResource(ResponseModel):
    """An audit record. It holds no secret, no name and no e-mail address."""

    audit_position: Annotated[int, Field(description="The place in the chain of the ledger's audit records.")]
    act: Act
    data: Annotated[dict[str, Any], Field(description="What the act was about: ids, scopes and seconds. It depends on the act.")]
    caller: AuditCallerMember
    recorded_at: TimestampText
    hash: Annotated[str, Field(description="The SHA-256 of the previous record's hash and this record, in hexadecimal.")]


AUDIT_RECORD_EXAMPLE: Final = {
    "audit_position": 7,
    "act": "reset-token-issued",
    "data": {
        "user_id": "0198c5a0-0000-7000-8000-00000000ada0",
        "origin_key_id": "k3vq7m2xnp",
        "scopes": ["users:write", "transfers:write", "ledger:read"],
    },
    "caller": {
        "principal": "help-desk",
        "key_id": "k3vq7m2xnp",
        "network": "192.0.2.0/24",
        "request_id": "0198c5a0-0000-7000-8000-0000000000f1",
    },
    "recorded_at": MOMENT,
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class AuditRecordParameters(PageParameters):
    pass


async def find_audit_records(view: CallerView, parameters: AuditRecordParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of audit records, newest first."""
    before: Any = LATEST_POSITION if key is None else key[0]
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await read_before(connection, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].position] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([_item(record) for record in page], next_key))


def _item(record: AuditRecord) -> dict[str, Any]:
    return {
        "audit_position": record.position,
        "act": record.act,
        "data": orjson.loads(record.data),
        "caller": orjson.loads(record.metadata),
        "recorded_at": timestamp(record.recorded_at),
        "hash": record.hash.hex(),
    }


@router.get(
    "/audit-records",
    tags=["audit"],
    **documented(
        Page[AuditRecordResource],
        page_of(AUDIT_RECORD_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=only("events:read"),
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_audit_records(request: QueryRequest, parameters: Annotated[AuditRecordParameters, Query()]) -> Response:
    """List audit records, newest first: acts on passwords, sessions, keys and limits. These acts are not in the log.

    The records are kept for ever. `daybook verify` checks that none was changed.
    """
    key = request.cursor_key(parameters)
    return request.answer_page(await find_audit_records(request.view(), parameters, key), parameters)
