"""API keys of a ledger: what each may do, when it was used, and when it ends. Their secrets are stored nowhere."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

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
from shared.identity.access import Scope, only
from shared.identity.api_keys import ApiKey, KeyStatus, read_keys
from shared.timestamps import timestamp

router = query_router()

AFTER_ALL_KEYS: Final = (datetime(9999, 12, 31, tzinfo=UTC), "")


class KeyResource(ResponseModel):
    """An API key. Nothing of its secret is shown."""

    id: Annotated[str, Field(description="The part of the key between its underscores. Denials and events name it too.")]
    principal: Annotated[str, Field(description="The name of the key's holder, who is the caller in events.")]
    user_id: Annotated[str | None, Field(description="The user of a customer's key.")]
    scopes: list[Scope]
    status: Annotated[KeyStatus, Field(description="As the clock of PostgreSQL says.")]
    created_at: TimestampText
    expires_at: TimestampText | None
    last_used_at: Annotated[TimestampText | None, Field(description="Exact to a minute. null if it was never used.")]
    revoked_at: TimestampText | None
    origin_key_id: Annotated[str | None, Field(description="The key with which this one was made over HTTP. It ends with that.")]


KEY_EXAMPLE: Final = {
    "id": "k3vq7m2xnp",
    "principal": "customer-17",
    "user_id": "0198c5a0-0000-7000-8000-00000000ada0",
    "scopes": ["transfers:write", "ledger:read"],
    "status": "revoked",
    "created_at": MOMENT,
    "expires_at": "2027-02-19T09:30:00.000000Z",
    "last_used_at": MOMENT,
    "revoked_at": MOMENT,
    "origin_key_id": "h4wz2c6ykq",
}


class KeyParameters(PageParameters):
    pass


async def find_keys(view: CallerView, parameters: KeyParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of keys, newest first."""
    position = await view.reader.require_ledger(view.ledger_id)
    before = AFTER_ALL_KEYS if key is None else (datetime.fromisoformat(key[0]), str(key[1]))
    async with view.reader.postgres.connect() as connection:
        found = await read_keys(connection, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    last = page[-1][0] if len(found) > parameters.limit else None
    next_key = [timestamp(last.created_at), last.key_id] if last else None
    return AsOf(position, ListSlice([_item(*each) for each in page], next_key))


def _item(key: ApiKey, status: KeyStatus) -> dict[str, Any]:
    moments = {name: moment and timestamp(moment) for name, moment in msgspec.structs.asdict(key).items() if name.endswith("_at")}
    named = {"id": key.key_id, "principal": key.principal, "user_id": key.user_id, "scopes": key.scopes}
    return {**named, "status": status, **moments, "origin_key_id": key.origin_key_id}


@router.get(
    "/keys",
    tags=["access"],
    **documented(
        Page[KeyResource],
        page_of(KEY_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=only("ops:admin"),
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_keys(request: QueryRequest, parameters: Annotated[KeyParameters, Query()]) -> Response:
    """List the API keys of this ledger, newest first, also those that have ended. Keys for all ledgers are not among them.

    `daybook keys` makes, rotates and revokes keys. `POST /v1/keys/{id}/rotate` and `/revoke` of the command API do that too.
    """
    return request.answer_page(await find_keys(request.view(), parameters, request.cursor_key(parameters)), parameters)
