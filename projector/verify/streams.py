"""Checks the streams.

Each stream must contain exactly the events that name it. Its versions must have no gaps, and its snapshot must equal the fold of
its events. The streams are read in parts while commands are being recorded. Only the current part is held in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.difference import DifferenceFound, require_equal
from projector.verify.stored_events import decode_stored
from shared.log.encoding import NO_KEYS, people_in_data
from shared.log.read import StreamMember, read_members, read_stored, read_stream_ids
from shared.log.stream_fold import StreamFold, snapshot_context
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import PersonKeys
from shared.progress import CountDone

FoldOf = Callable[[str], StreamFold]
"""Returns the stream fold for a stream id. Callers pass this function, because the projector must not import the command API."""


class StreamWalk:
    """Visits all streams, event by event, and folds each stream from its first event."""

    def __init__(self, ledger_id: str, fold_of: FoldOf) -> None:
        self.streams = 0
        self.snapshots = 0
        """The number of snapshots that were compared. A snapshot with another fold version is not compared: nothing uses it."""
        self._ledger_id = ledger_id
        self._fold_of = fold_of
        self._last: StreamMember | None = None
        self._state: Any = None

    def people(self, members: Iterable[StreamMember]) -> set[str]:
        """Returns the ids of the people whose keys are needed to visit these events."""
        found = set()
        for member in members:
            found |= people_in_data(member.type or "", member.data or "{}")
            if member.snapshot:
                found |= self._people_in_snapshot(member, member.snapshot)
        return found

    def _people_in_snapshot(self, member: StreamMember, snapshot: str) -> set[str]:
        try:
            fold = self._fold_of(member.stream_id)
        except KeyError:  # there is no such kind of stream, which `visit` reports
            return set()
        return fold.people(snapshot) if member.fold_version == fold.version else set()

    def visit(self, member: StreamMember, keys: KeysByPerson) -> None:
        """Checks the next event. Pass one stream after another, and the events of each in the order of their versions.

        Raises:
            DifferenceFound: the stream does not match its events, or its head does not match their fold.
        """
        where = f"stream {member.stream_id}, version {member.version}"
        event = decode_stored(where, member, keys, self._ledger_id)
        if member.stream_id not in event.streams():
            raise DifferenceFound(f"{where}, event at {member.position}", f"one of {event.streams()}", member.stream_id)
        fold = self._fold_of(member.stream_id)
        last = self._last
        if last is None or last.stream_id != member.stream_id:
            self.leave()
            self.streams += 1
            self._state, last = fold.initial, None
        require_equal(f"stream {member.stream_id}, next version", last.version + 1 if last else 1, member.version)
        if last and member.position <= last.position:
            raise DifferenceFound(f"{where}, position", f"more than {last.position}", member.position)
        self._state = fold.evolve(self._state, event)
        self._last = member
        if member.version == member.head_version:
            self._verify_head(fold, member, keys)

    def leave(self) -> None:
        """Checks that the last event of a stream has the version of the stream's head. Call this after the last stream."""
        if self._last is not None:
            require_equal(f"head of stream {self._last.stream_id}, version", self._last.version, self._last.head_version)

    def _verify_head(self, fold: StreamFold, member: StreamMember, keys: KeysByPerson) -> None:
        where = f"head of stream {member.stream_id}"
        require_equal(f"{where}, position", member.position, member.head_position)
        if member.fold_version != fold.version:
            return
        self.snapshots += 1
        context = snapshot_context(self._ledger_id, member.stream_id, member.version)
        try:
            stored = fold.read(member.snapshot or "", context, keys)
        except ValueError as error:
            raise DifferenceFound(f"{where}, snapshot", "one that can be read", "another") from error
        require_equal(f"{where}, snapshot", msgspec.to_builtins(self._state), msgspec.to_builtins(stored))


async def verify_streams(
    connection: AsyncConnection,
    ledger_id: str,
    head: int,
    stream_events: int | None,
    walk: StreamWalk,
    person_keys: PersonKeys,
    count_done: CountDone,
) -> None:
    """Compares every stream with the events up to `head`.

    `stream_events` is the number of rows that all streams together must have, or None if it is not known.

    Raises:
        DifferenceFound: a stream does not match the log. The error names the first such stream and version.
    """
    after, found = ("", 0), 0
    while page := await read_members(connection, ledger_id, after):
        keys = await person_keys.read(connection, ledger_id, walk.people(page))
        for member in page:
            walk.visit(member, keys)
        found += sum(member.position <= head for member in page)
        after = page[-1].stream_id, page[-1].version
        count_done(len(page))
    walk.leave()
    if stream_events is not None and found != stream_events:
        await _locate_missing_member(connection, ledger_id, head)
        raise DifferenceFound("events of all streams together", stream_events, found)
    await _verify_heads_have_events(connection, ledger_id)


async def _locate_missing_member(connection: AsyncConnection, ledger_id: str, head: int) -> None:
    """Finds an event that is missing in a stream, and raises a `DifferenceFound` that names it.

    This is slow. It runs only if the number of events in all streams is already known to be wrong.
    """
    versions: Counter[str] = Counter()
    position = 0
    while position < head and (page := await read_stored(connection, ledger_id, position)):
        for stored in page:
            for stream_id in decode_stored(f"position {stored.position}", stored, NO_KEYS.keys).streams():
                versions[stream_id] += 1
                members = await read_members(connection, ledger_id, (stream_id, versions[stream_id] - 1), 1)
                found = members[0].position if members and members[0].stream_id == stream_id else None
                require_equal(f"stream {stream_id}, version {versions[stream_id]}, position", stored.position, found)
        position = page[-1].position


async def _verify_heads_have_events(connection: AsyncConnection, ledger_id: str) -> None:
    after = ""
    while page := await read_stream_ids(connection, ledger_id, after):
        for stream_id, has_events in page:
            if not has_events:
                raise DifferenceFound(f"head of stream {stream_id}", "no head without events", "one")
        after = page[-1][0]
