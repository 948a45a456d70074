"""Makes the message of each event: a CloudEvent (https://cloudevents.io, version 1.0) in structured mode, as JSON.

In structured mode, the body alone is the whole event. So all brokers carry the same bytes, and a bridge between two of them, or a
file of messages, loses nothing. The same event always has the same body, unless its person was erased in between.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.publishing.broker import PublishedMessage
from shared.errors import LogDamaged, UnknownEvent
from shared.log.encoding import NO_KEYS, PERSONAL_TYPES, canonical
from shared.log.read import StoredEvent, people_in_events
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.timestamps import timestamp

SPEC_VERSION: Final = "1.0"


class Messages(NamedTuple):
    """The messages of a slice of the log. `unreadable` says why the event after the last message has none, or is None."""

    messages: list[PublishedMessage]
    unreadable: str | None = None


class CloudEvents:
    """Makes messages as the settings say: with encrypted personal fields, or with plain ones."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.publish_prefix
        self._keys = PersonKeys(settings) if settings.publish_personal_data else None

    async def messages(self, connection: AsyncConnection, after: int, events: Sequence[StoredEvent]) -> Messages:
        """Returns the messages of these events, which must follow the position `after` in the log."""
        if not events:
            return Messages([], _missing(after + 1))
        keys: KeysByPerson = NO_KEYS.keys
        if self._keys is not None:
            keys = await self._keys.read(connection, events[0].ledger_id, people_in_events(events))
        made: list[PublishedMessage] = []
        for position, event in enumerate(events, after + 1):
            if event.position != position:
                return Messages(made, _missing(position))
            try:
                made.append(PublishedMessage(position, self._body(event, keys)))
            except (UnknownEvent, LogDamaged) as unreadable:
                return Messages(made, unreadable.detail)
        return Messages(made)

    def _body(self, event: StoredEvent, keys: KeysByPerson) -> bytes:
        decoded = event.decoded(keys).event
        if self._keys is not None and event.type in PERSONAL_TYPES:
            plain = canonical(decoded).decode()
            event = msgspec.structs.replace(event, data=plain, schema_version=type(decoded).schema_version)
        return orjson.dumps(
            {
                "specversion": SPEC_VERSION,
                "id": str(event.position),
                "source": f"/{self._prefix}/ledgers/{event.ledger_id}",
                "type": event.type,
                "subject": decoded.streams()[0],
                "time": timestamp(event.recorded_at),
                "datacontenttype": "application/json",
                "data": event.members(),
            }
        )


def _missing(position: int) -> str:
    return f"position {position} is missing from the log: `daybook verify` says more"
