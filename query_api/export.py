"""Everything that is held about one person, for that person: the only question whose answer opens what is sealed.

It is read and sent piece by piece, so that its size costs no memory. What is in it is as of the position that it names, or
later. The metadata of events are left out: they tell who acted, which may be somebody else.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from query_api.parameters import AccountParameters, TransferParameters
from query_api.queries import Key, get_user, list_accounts, list_transfers
from query_api.reading import AsOf, Document, View
from shared.event_store import StoredEvent, read_stream
from shared.events import account_stream, timestamp, user_stream
from shared.person_keys import PersonKeys
from shared.personal_data import Keys

PIECE: Final = 500


async def export_user(view: View, person_keys: PersonKeys, user_id: str) -> AsOf[AsyncIterator[bytes] | None]:
    """None where there is no such user."""
    user = await get_user(view, user_id)
    if user.data is None:
        return user.holding(None)
    accounts = [account async for account in _accounts(view, user_id)]
    return user.holding(_parts(view, person_keys, user.data, accounts, user.position))


async def _parts(
    view: View, person_keys: PersonKeys, user: Document, accounts: list[Document], position: int
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


async def _accounts(view: View, user_id: str) -> AsyncIterator[Document]:
    parameters = AccountParameters(owner_id=user_id, limit=100)
    key: Key | None = None
    while True:
        page = (await list_accounts(view, parameters, key)).data
        for account in page.items:
            yield account
        if (key := page.next_key) is None:
            return


async def _transfers(view: View, account_ids: list[str]) -> AsyncIterator[Document]:
    """A transfer between two of the accounts comes once, with the first of them."""
    for number, account_id in enumerate(account_ids):
        earlier = set(account_ids[:number])
        parameters = TransferParameters(account_id=account_id, limit=100)
        key: Key | None = None
        while True:
            page = (await list_transfers(view, parameters, key)).data
            for transfer in page.items:
                if not earlier & {transfer["from_account_id"], transfer["to_account_id"]}:
                    yield transfer
            if (key := page.next_key) is None:
                break


async def _events(view: View, person_keys: PersonKeys, streams: list[str]) -> AsyncIterator[Document]:
    """In the order of the log within a stream; a transfer between two of the accounts comes with each of them."""
    for stream_id in streams:
        version = 0
        while page := await _page(view.reader.postgres, view.ledger_id, stream_id, version, person_keys):
            stored, keys = page
            for each in stored:
                yield _event(each, keys)
            version += len(stored)


async def _page(
    engine: AsyncEngine, ledger_id: str, stream_id: str, version: int, person_keys: PersonKeys
) -> tuple[list[StoredEvent], Keys] | None:
    async with engine.connect() as connection:
        stored = await read_stream(connection, ledger_id, stream_id, version, PIECE)
        return (stored, await person_keys.read_for(connection, stored)) if stored else None


def _event(stored: StoredEvent, keys: Keys) -> Document:
    event = stored.decoded(keys).event
    return {
        "position": stored.position,
        "event_id": stored.event_id,
        "type": stored.type,
        "schema_version": event.schema_version,
        "data": msgspec.to_builtins(event),
        "recorded_at": timestamp(stored.recorded_at),
    }
