"""Checks a whole stored log with its stored replies: every event could have been recorded, and every reply follows from the log.

The log and the replies are read in slices, in the order of the positions, so the memory that is needed does not grow with them.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import EventImpossible, UnknownEvent
from shared.log.day_contents import difference, read_day
from shared.log.day_events import DayClosed
from shared.log.event_check import Domain, EventCheck
from shared.log.events import Event, RecordedEvent
from shared.log.heads import read_head
from shared.log.money_events import MoneyEvent, TransferReversed
from shared.log.read import READ_EVENTS_MAX, StoredEvent, people_in_events, read_first, read_stored
from shared.log.stored_replies import StoredReply, read_rejections, read_replies_to
from shared.log.streams import transfer_stream
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import ADDRESSES, PersonKeys
from shared.progress import CountDone

EnterEvent = Callable[[RecordedEvent], None]


class RepliesCheck:
    """Checks the stored replies of a log while its events are checked. The first fault is kept in `fault`, and raises no error.

    So a wrong reply does not hide a wrong event.
    """

    def __init__(self, ledger_id: str, check: EventCheck) -> None:
        self.replies = 0
        self.fault = ""
        self._ledger_id = ledger_id
        self._history = check.history
        self._unanswered: RecordedEvent | None = None

    def enter(self, recorded: RecordedEvent, replies: list[StoredReply], keys: KeysByPerson) -> None:
        """Checks the replies about an event, which the event check has just entered."""
        self._require_answered(recorded)
        for reply in replies:
            self._check(reply, recorded, keys)
        answered = any(reply.principal == recorded.metadata.get("principal") for reply in replies)
        self._unanswered = None if answered else recorded

    def reject(self, reply: StoredReply, head: int) -> None:
        """Checks a reply that may be a rejection. `head` is the last position of the log now."""
        if reply.position is None:
            self._check(reply, None, {})
        elif not 1 <= reply.position <= head:
            self._note(f"{_name(reply)}: it is about the event at {reply.position}, which the log does not have")

    def close(self) -> None:
        """Checks the last event of the log. Call this after the last event was entered."""
        self._require_answered(None)

    def _require_answered(self, following: RecordedEvent | None) -> None:
        last = self._unanswered
        if last and self._history.needs_reply(last, following):
            self._note(f"stored reply about the event at {last.position}: the log needs one, and there is none")

    def _check(self, reply: StoredReply, recorded: RecordedEvent | None, keys: KeysByPerson) -> None:
        self.replies += 1
        try:
            self._history.require_reply(self._ledger_id, reply, recorded, keys)
        except EventImpossible as impossible:
            self._note(f"{_name(reply)}: {impossible.detail}")

    def _note(self, fault: str) -> None:
        self.fault = self.fault or fault


def _name(reply: StoredReply) -> str:
    """Names a reply in a message. Its key and principal may hold any characters, so they are shown in ASCII."""
    return f"stored reply {reply.key[:100]!a} of {reply.principal[:100]!a}"


async def check_history(
    connection: AsyncConnection,
    ledger_id: str,
    head: int,
    domain: Domain,
    person_keys: PersonKeys,
    enter: EnterEvent,
    count_done: CountDone,
) -> RepliesCheck:
    """Checks the events 1 to `head` and all stored replies. Calls `enter` with each event before it is checked.

    Raises:
        EventImpossible: no command could have recorded an event where it is.
        UnknownEvent: this code cannot read an event.
    """
    pepper = (await person_keys.read(connection, ledger_id, [ADDRESSES])).get(ADDRESSES)
    check = EventCheck(domain, await connection.scalar(text("SELECT clock_timestamp()")), pepper)
    replies_check = RepliesCheck(ledger_id, check)
    position = 0
    while position < head and (page := await read_stored(connection, ledger_id, position, min(READ_EVENTS_MAX, head - position))):
        replies = defaultdict(list)
        people = people_in_events(page)
        for reply in await read_replies_to(connection, ledger_id, page[0].position, page[-1].position):
            replies[reply.position].append(reply)
            people |= check.history.people_of_reply(reply)
        keys = await person_keys.read(connection, ledger_id, people)
        for transfer in await _reversed_transfers(connection, ledger_id, page):
            check.history.recall(*transfer)
        for stored in page:
            recorded = stored.decoded(keys)
            enter(recorded)
            check.check(stored, recorded)
            if isinstance(recorded.event, DayClosed):
                await _require_contents(connection, recorded, recorded.event)
            replies_check.enter(recorded, replies[stored.position], keys)
        position = page[-1].position
        count_done(len(page))
    replies_check.close()
    after = ("", "")
    while rejected := await read_rejections(connection, ledger_id, after):
        newest = (await read_head(connection, ledger_id)).position
        for reply in rejected:
            replies_check.reject(reply, newest)
        after = rejected[-1].principal, rejected[-1].key
    return replies_check


async def _require_contents(connection: AsyncConnection, recorded: RecordedEvent, closed: DayClosed) -> None:
    """Computes again what the log says of a closed day.

    Raises:
        EventImpossible: the log says something else of the day than its closing.
    """
    computed = await read_day(connection, recorded.ledger_id, closed.day, closed.time_zone, closed.up_to)
    if names := difference(closed, computed):
        msg = f"position {recorded.position} of the log (event {recorded.event_id}, DayClosed): the log makes another {names}"
        raise EventImpossible(msg)


async def _reversed_transfers(
    connection: AsyncConnection, ledger_id: str, page: list[StoredEvent]
) -> list[tuple[int, MoneyEvent]]:
    """Returns the transfers that events of this page reverse, with their positions. Leaves out those that do not exist."""
    stream_ids = set()
    for stored in page:
        if stored.type == TransferReversed.__name__ and isinstance(event := _decoded(stored), TransferReversed):
            stream_ids.add(transfer_stream(event.reverses))
    found = await read_first(connection, ledger_id, stream_ids) if stream_ids else []
    events = [(stored.position, _decoded(stored)) for stored in found]
    return [(position, event) for position, event in events if isinstance(event, MoneyEvent) and event.streams()[0] in stream_ids]


def _decoded(stored: StoredEvent) -> Event | None:
    """Returns the event, or None if this code cannot read it: the check says so when it comes to its position."""
    try:
        return stored.decoded({}).event
    except UnknownEvent:
        return None
