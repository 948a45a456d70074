"""The export of a person's data: everything that Daybook stores about a person, for that person.

No other query decrypts personal fields of events. The export is read and sent in pieces, so a large export needs no more memory
than a small one. Its content is as of its `position` or later. The metadata of events are left out, because they name the caller
of the command, who may be another person.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import orjson
from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.resources.accounts import ACCOUNT_EXAMPLE, AccountParameters, AccountResource, find_accounts
from query_api.resources.transfers import TRANSFER_EXAMPLE, TransferParameters, TransferResource, find_transfers
from query_api.resources.users import USER_EXAMPLE, UserResource, find_user
from query_api.responses import ADA, EVENT, MOMENT, AsOfPosition, FactPosition, ResponseModel, TimestampText, as_of
from shared.identity.access import own_or
from shared.input_types import Id
from shared.log.read import StoredEvent, people_in_events, read_stream
from shared.log.streams import account_stream, user_stream
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import PersonKeys
from shared.timestamps import timestamp

router = query_router()


class PersonalEvent(ResponseModel):
    """An event in the export of a person: decrypted, and without its metadata, which may name other people."""

    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    recorded_at: TimestampText


class ExportResponse(ResponseModel):
    """Everything that Daybook stores about a person. `events` are the events of the person's streams and of their accounts."""

    user: UserResource
    accounts: list[AccountResource]
    transfers: list[TransferResource]
    events: list[PersonalEvent]
    position: AsOfPosition


EXPORT_EXAMPLE: Final = {
    "user": USER_EXAMPLE,
    "accounts": [ACCOUNT_EXAMPLE],
    "transfers": [TRANSFER_EXAMPLE],
    "events": [
        {
            "position": 1,
            "event_id": EVENT,
            "type": "UserCreated",
            "schema_version": 1,
            "data": {"user_id": ADA, "name": "Ada", "email": "ada@example.com", "email_hash": "9f86d081884c7d659a2feaa0c55ad015"},
            "recorded_at": MOMENT,
        }
    ],
}


EVENTS_AT_ONCE: Final = 500


async def find_export(view: CallerView, person_keys: PersonKeys, user_id: str) -> AsOf[AsyncIterator[bytes] | None]:
    """Returns the export as pieces of JSON, or None if there is no such user that the caller may see."""
    user = await find_user(view, user_id)
    if user.data is None:
        return user.holding(None)
    accounts = [account async for account in _accounts(view, user_id)]
    return user.holding(_parts(view, person_keys, user.data, accounts, user.position))


async def _parts(
    view: CallerView, person_keys: PersonKeys, user: JsonObject, accounts: list[JsonObject], position: int
) -> AsyncIterator[bytes]:
    yield b'{"user":' + orjson.dumps(user) + b',"accounts":' + orjson.dumps(accounts)
    account_ids = [account["id"] for account in accounts]
    async for part in _array("transfers", _transfers(view, account_ids)):
        yield part
    streams = [user_stream(user["id"]), *map(account_stream, account_ids)]
    async for part in _array("events", _events(view, person_keys, streams)):
        yield part
    yield b',"position":' + orjson.dumps(position) + b"}"


async def _array(name: str, items: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    start = b',"' + name.encode() + b'":['
    async for item in items:
        yield start + orjson.dumps(item)
        start = b","
    yield b"]" if start == b"," else start + b"]"


async def _accounts(view: CallerView, user_id: str) -> AsyncIterator[JsonObject]:
    parameters = AccountParameters(owner_id=user_id, limit=100)
    key: CursorKey | None = None
    while True:
        page = (await find_accounts(view, parameters, key)).data
        for account in page.items:
            yield account
        if (key := page.next_key) is None:
            return


async def _transfers(view: CallerView, account_ids: list[str]) -> AsyncIterator[JsonObject]:
    """Yields the transfers of all accounts. A transfer between two of these accounts is yielded once, with the first one."""
    for number, account_id in enumerate(account_ids):
        earlier = set(account_ids[:number])
        parameters = TransferParameters(account_id=account_id, limit=100)
        key: CursorKey | None = None
        while True:
            page = (await find_transfers(view, parameters, key)).data
            for transfer in page.items:
                parties = {transfer["from_account_id"], transfer["to_account_id"]}
                if not earlier & {*parties, *(each["account_id"] for each in transfer["postings"] or ())}:
                    yield transfer
            if (key := page.next_key) is None:
                break


async def _events(view: CallerView, person_keys: PersonKeys, streams: list[str]) -> AsyncIterator[JsonObject]:
    """Yields the events of each stream, in the order of the log. A transfer between two of the accounts is yielded twice."""
    for stream_id in streams:
        version = 0
        while page := await _read_events(view.reader.postgres, view.ledger_id, stream_id, version, person_keys):
            stored, keys = page
            for each in stored:
                yield _event(each, keys)
            version += len(stored)


async def _read_events(
    engine: AsyncEngine, ledger_id: str, stream_id: str, version: int, person_keys: PersonKeys
) -> tuple[list[StoredEvent], KeysByPerson] | None:
    async with engine.connect() as connection:
        stored = await read_stream(connection, ledger_id, stream_id, version, EVENTS_AT_ONCE)
        return (stored, await person_keys.read(connection, ledger_id, people_in_events(stored))) if stored else None


def _event(stored: StoredEvent, keys: KeysByPerson) -> JsonObject:
    event = stored.decoded(keys).event
    return {
        "position": stored.position,
        "event_id": stored.event_id,
        "type": stored.type,
        "schema_version": event.schema_version,
        "data": msgspec.to_builtins(event),
        "recorded_at": timestamp(stored.recorded_at),
    }


@router.get(
    "/users/{user_id}/export",
    tags=["users"],
    **documented(ExportResponse, as_of(EXPORT_EXAMPLE), *READ_MODEL, access=own_or("ledger:read")),
)
async def export_user(request: QueryRequest, user_id: Id) -> Response:
    """Get everything that Daybook stores about a person: profile, accounts, transfers, and their events, decrypted."""
    return request.answer_streamed(await find_export(request.view(), request.state.person_keys, user_id), f"user-{user_id}")
