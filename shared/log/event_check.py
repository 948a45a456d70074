"""Checks stored events: each has a form that Daybook writes, and a command could have recorded it after the events before it.

A hash chain proves only that nothing changed after the hashes were computed. Whoever writes a file, or a whole table, can compute
hashes for anything. `daybook verify` and `daybook events import` use this one check, so that neither accepts what no code of ours
could have recorded. The rules are those of the deciders: callers pass them as a `Domain`, because this room must not import the
command API. This module does no I/O.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from shared.errors import EventImpossible
from shared.log.encoding import PERSONAL_TYPES, canonical
from shared.log.events import Event, RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.log.read import StoredEvent
from shared.log.stored_replies import StoredReply
from shared.log.stream_fold import StreamFold
from shared.privacy.encryption import KeysByPerson

EVENT_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
METADATA_MEMBERS_MAX: Final = 20
METADATA_CHARACTERS_MAX: Final = 1_000
AHEAD_MAX: Final = timedelta(hours=1)
"""How far an event's time may be ahead of PostgreSQL's clock: two machines never have quite the same time."""

_METADATA_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class History(Protocol):
    """Decides the events of one log again, from the first, and so knows the states of its streams after each event."""

    def enter(self, recorded: RecordedEvent) -> None:
        """Checks that a command makes exactly this event from the states before it, and applies it to these states.

        Raises:
            EventImpossible: no command makes this event here.
        """

    def recall(self, position: int, event: MoneyEvent) -> None:
        """Takes a transfer at an earlier position that events to come reverse. It need not remember all transfers."""

    def require_reply(self, ledger_id: str, reply: StoredReply, recorded: RecordedEvent | None, keys: KeysByPerson) -> None:
        """Checks a stored reply. `recorded` is the event that was entered last, to which an accepted reply must belong.

        Raises:
            EventImpossible: no code of ours could have stored this reply.
        """

    def people_of_reply(self, reply: StoredReply) -> set[str]:
        """Returns the ids of the people whose keys `require_reply` needs."""

    def needs_reply(self, recorded: RecordedEvent, following: RecordedEvent | None) -> bool:
        """Returns True if the event must have a stored reply, because its command cannot be sent without an idempotency key.

        `following` is the next event: only the last event of a command has the reply.
        """


class Domain(NamedTuple):
    """What rooms that must not import the command API need of it: the fold of a stream id, and a new `History`."""

    fold_of: Callable[[str], StreamFold]
    new_history: Callable[[bytes | None], History]


class EventCheck:
    """Checks the events of one log, one after another from the first."""

    def __init__(self, domain: Domain, now: datetime, pepper: bytes | None) -> None:
        """Creates a check. `now` is the time by PostgreSQL's clock, `pepper` the ledger's key for hashes of e-mail addresses.

        Without the key, the hashes are not compared with the addresses.
        """
        self.history = domain.new_history(pepper)
        self._latest = now + AHEAD_MAX
        self._before = _EPOCH

    def check(self, stored: StoredEvent, recorded: RecordedEvent) -> None:
        """Checks the next event. `recorded` is the same event, decoded.

        Raises:
            EventImpossible: the event has a form that Daybook never writes, or no command could have recorded it here.
        """
        try:
            self._require_form(stored, recorded)
            self.history.enter(recorded)
        except EventImpossible as impossible:
            msg = f"position {stored.position} of the log (event {stored.event_id}, {stored.type}): {impossible.detail}"
            raise EventImpossible(msg) from None

    def _require_form(self, stored: StoredEvent, recorded: RecordedEvent) -> None:
        if not EVENT_ID.fullmatch(stored.event_id):
            raise EventImpossible("its id is not a UUID in lower case")
        if not is_stored_form(stored, recorded.event):
            raise EventImpossible("its data are not in the form that Daybook stores")
        require_metadata(recorded.metadata)
        if stored.recorded_at < self._before:
            raise EventImpossible(f"it was recorded at {stored.recorded_at}, before the event before it")
        if stored.recorded_at > self._latest:
            raise EventImpossible(f"it was recorded at {stored.recorded_at}, which is in the future")
        self._before = stored.recorded_at


def is_stored_form(stored: StoredEvent, event: Event) -> bool:
    """Returns True if `encode` would write the members that are stored. Old schema versions have other members."""
    if stored.schema_version != type(event).schema_version:
        return True
    members: dict[str, Any] = msgspec.json.decode(stored.data)
    if stored.type in PERSONAL_TYPES:
        return set(members) == set(msgspec.to_builtins(event))
    encoded: tuple[bytes, bytes] = canonical(event), canonical(members)
    return encoded[0] == encoded[1]


def require_metadata(metadata: object) -> None:
    """Checks that the metadata of an event are a few names with short texts.

    Raises:
        EventImpossible: they are not.
    """
    if not isinstance(metadata, dict) or not metadata or len(metadata) > METADATA_MEMBERS_MAX:
        raise EventImpossible("its metadata are not an object with a few members")
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name) or not (value is None or isinstance(value, str)):
            raise EventImpossible("its metadata have a member that Daybook never writes")
        if value is not None and (len(value) > METADATA_CHARACTERS_MAX or not value.isprintable()):
            raise EventImpossible(f"its metadata member {name} is too long, or has characters that cannot be printed")


def require_first_event(event: Event, stream_id: str, version: int) -> None:
    """Checks that no two transfers have one id. The versions of streams show it, so that nobody need remember all transfers.

    Raises:
        EventImpossible: the event is a transfer, and the stream of its id has an event already.
    """
    if version > 1 and isinstance(event, MoneyEvent) and stream_id == event.streams()[0]:
        raise EventImpossible(f"{stream_id} has an event already, and no two transfers have one id")
