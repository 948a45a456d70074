"""All events that Daybook records. Each event is a class in one of the modules `*_events.py`, and a member of a union there.

To add an event, write its class and add it to the union at the end of the same module. Then add an example to
`tests/shared/golden/events.json`. Nothing else lists events: the type check reports every place that must handle the new one.

The names of the classes and of their fields are the storage format, so never rename one. To change the fields, raise
`schema_version` and add an upcaster to `shared.log.encoding`. One happening is one event, even if it concerns several streams: a
transfer is one `FundsTransferred`, which belongs to the streams of both accounts and of the transfer. Mark every field that
identifies a person as `Personal`; the field is then stored encrypted (see `shared.privacy.encryption`).

This module does no I/O, reads no clock and makes no ids.
"""

from datetime import datetime
from typing import Any, Final, get_args

import msgspec

from shared.log.account_events import AccountEvent
from shared.log.day_events import DayEvent
from shared.log.ledger_events import LedgerEvent
from shared.log.projection_events import ProjectionEvent
from shared.log.schedule_events import ScheduleEvent
from shared.log.user_events import UserEvent

Event = UserEvent | AccountEvent | ProjectionEvent | LedgerEvent | DayEvent | ScheduleEvent

EVENT_TYPES: Final[dict[str, type[Event]]] = {event_type.__name__: event_type for event_type in get_args(Event)}
"""Every event class, by the type name that is stored with its events."""


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event at its place in a ledger's log.

    `metadata` says who caused the event and how. `hash` covers the event and the hash of the previous event.
    """

    ledger_id: str
    position: int
    event_id: str
    event: Event
    metadata: dict[str, Any]
    recorded_at: datetime
    hash: bytes
