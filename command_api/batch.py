"""What one transaction decides and writes.

A batch comes to its states in one of two ways. The careful one asks for answers given before and locks the streams and the
log's head while it reads them. The short one takes the states that the last batch left (`View`) and lets the append say whether
anybody else has moved the head since: if nobody has, no stream can have changed. A key that was answered before, or an id
that is taken, then breaks a unique constraint. Whatever the reason, a batch that loses is decided again, carefully.

The answers are the same either way. Alone on its ledger, a writer spends one round trip between BEGIN and COMMIT.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from command_api import kept_answers
from command_api.command import Command, States
from command_api.fold import snapshot_place
from command_api.folds import fold_of
from shared import event_store, passwords
from shared.errors import DaybookError, IdempotencyKeyReused, LogDamaged, NotFound, Rejection, VersionMismatch
from shared.event_store import Answer, Head, NewEvent, StreamEvent, StreamHead
from shared.events import Event, UserCreated, UserDeactivated, UserErased
from shared.ids import new_id
from shared.person_keys import PersonKeys
from shared.sealing import Keys, people_of


def _owner(stream_id: str, state: Any) -> str | None:
    """Whose stream it is; None where it is nobody's."""
    kind, _, stream_key = stream_id.partition("-")
    return {"user": stream_key, "account": getattr(state, "owner_id", None)}.get(kind)


class Outcome(msgspec.Struct, frozen=True):
    """What a command came to: its events and their positions.

    `version` is that of its first stream. `position` is that of the last event, or of that stream where nothing was left to do.
    """

    events: list[Event]
    positions: list[int]
    states: States
    version: int
    position: int
    recorded_at: datetime
    customer: str | None = None
    """The user who may be told of these states only what is theirs; None for those who may see everything."""


class Replies(Protocol):
    """How the caller wants to be answered. Each gives a status and a body."""

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]: ...

    def refused(self, rejection: Rejection) -> tuple[int, bytes]: ...


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A command with everything that its caller said about it."""

    command: Command
    replies: Replies
    metadata: dict[str, Any]
    principal: str = ""
    customer: str | None = None
    """The user whose own the command's `owned_streams` must be; None where anybody's will do."""
    idempotency_key: str | None = None
    request_hash: bytes = b""
    expected_version: int | None = None

    @property
    def key(self) -> "Key | None":
        return None if self.idempotency_key is None else (self.principal, self.idempotency_key)


Key = tuple[str, str]


class Reply(msgspec.Struct, frozen=True):
    """`replayed`: this is what the first request with the same key was answered."""

    status: int
    body: bytes
    position: int | None
    replayed: bool = False


NO_HEAD: Final = Head(0, b"", datetime.min.replace(tzinfo=UTC))
"""Before the ledger was read, and for good where all requests were answered before."""


class LostRace(Exception):
    """Somebody else has written to the ledger since the view of it."""


class Stream(msgspec.Struct, frozen=True):
    """Where a stream is, and what it folds to."""

    version: int
    position: int
    state: Any


class View:
    """What a writer knows of its ledger: the head as its last batch left it, and streams as of that head.

    Holds at most `streams_max` streams, the ones used last.
    """

    def __init__(self, streams_max: int) -> None:
        self.head: Head | None = None
        self.trusted = False
        """Nobody else wrote to the ledger when we last looked."""
        self._streams: dict[str, Stream] = {}
        self._streams_max = streams_max

    def doubt(self) -> None:
        self.trusted = False

    def find(self, stream_ids: Iterable[str]) -> dict[str, Stream] | None:
        """These streams, or None unless all are known."""
        found = {stream_id: self._streams.get(stream_id) for stream_id in stream_ids}
        return None if None in found.values() else found  # type: ignore[return-value]

    def update(self, head: Head, streams: dict[str, Stream], *, alone: bool, trusted: bool) -> None:
        """Takes over what a batch left. `alone`: the head was where the batch before had left it, so older streams hold."""
        if not alone:
            self._streams.clear()
        for stream_id, stream in streams.items():
            self._streams.pop(stream_id, None)
            self._streams[stream_id] = stream
        while len(self._streams) > self._streams_max:
            del self._streams[next(iter(self._streams))]
        self.head, self.trusted = head, trusted


class Batch:
    """`verdicts` are in the order of the requests, and true once the transaction is committed."""

    def __init__(self, ledger_id: str, requests: list[Request], view: View, person_keys: PersonKeys) -> None:
        self.verdicts: list[Reply | DaybookError] = []
        self.new_events: list[NewEvent] = []
        self.complete = False
        """All is written; only the commit is left."""
        self._ledger_id = ledger_id
        self._requests = requests
        self._view = view
        self._person_keys = person_keys
        self._head = NO_HEAD
        self._alone = self._short = False
        self._answers: dict[Key, Answer] = {}
        self._new_answers: list[Answer] = []
        self._answered_people: dict[Key, str] = {}
        self._streams: dict[str, Stream] = {}
        self._states: dict[str, Any] = {}
        self._stream_events: list[StreamEvent] = []

    async def record(self, connection: AsyncConnection) -> None:
        """Decides and writes.

        Raises:
            LostRace: the short way was wrong; nothing was written.
        """
        self._short = short = self._take_view()
        if not short:
            await self._read(connection)
        self.verdicts = [self._verdict(request) for request in self._requests]
        if self.new_events or self._new_answers:
            await self._append(connection)
        elif short:
            raise LostRace  # nothing is appended, so nothing has confirmed the view
        self.complete = True

    def update_view(self) -> None:
        """Once the batch is committed."""
        if self._head is NO_HEAD:
            return
        created = {stream_id for request in self._requests for stream_id in request.command.new_streams()}
        streams = {stream_id: stream for stream_id, stream in self._streams.items() if stream_id not in created}
        replayed = any(isinstance(verdict, Reply) and verdict.replayed for verdict in self.verdicts)
        self._view.update(self._head, streams, alone=self._alone, trusted=self._alone and not replayed)

    # ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_view(self) -> bool:
        """The short way, where it is open: the view is trusted and has every stream that does not come into being here."""
        if not self._view.trusted or self._view.head is None:
            return False
        commands = [request.command for request in self._requests]
        new = {stream_id for command in commands for stream_id in command.new_streams()}
        known = self._view.find({stream_id for command in commands for stream_id in command.streams()} - new)
        if known is None:
            return False
        self._take(known | {stream_id: Stream(0, 0, fold_of(stream_id).initial) for stream_id in new})
        further = self._view.find({stream_id for command in commands for stream_id in command.further_streams(self._states)})
        if further is None:
            return False
        self._take(further)
        now = max(datetime.now(UTC), self._view.head.now)
        self._head, self._alone = msgspec.structs.replace(self._view.head, now=now), True
        return True

    def _take(self, streams: dict[str, Stream]) -> None:
        self._streams |= streams
        self._states |= {stream_id: stream.state for stream_id, stream in streams.items()}

    async def _read(self, connection: AsyncConnection) -> None:
        """The careful way."""
        keys = {request.key for request in self._requests if request.key}
        found = await event_store.find_answers(connection, self._ledger_id, keys) if keys else {}
        self._answers = await kept_answers.opened(connection, self._ledger_id, found, self._person_keys)
        commands = [request.command for request in self._requests if request.key not in self._answers]
        if not commands:
            return
        self._head = await self._lock(connection, {stream_id for command in commands for stream_id in command.streams()})
        further = {stream_id for command in commands for stream_id in command.further_streams(self._states)}
        if further - self._states.keys():
            await self._lock(connection, further - self._states.keys())
        self._alone = self._view.head is not None and self._head.position == self._view.head.position

    async def _lock(self, connection: AsyncConnection, stream_ids: set[str]) -> Head:
        head, heads = await event_store.lock(connection, self._ledger_id, stream_ids)
        people = {person_id for head in heads.values() for person_id in _people_in(head)}
        keys = await self._person_keys.read(connection, self._ledger_id, people)
        for stream_id in stream_ids:
            self._take({stream_id: await self._stream(connection, stream_id, heads.get(stream_id), keys)})
        return head

    async def _stream(self, connection: AsyncConnection, stream_id: str, head: StreamHead | None, keys: Keys) -> Stream:
        fold = fold_of(stream_id)
        if head is None:
            return Stream(0, 0, fold.initial)
        if head.fold_version != fold.version:
            state = await fold_stream(connection, self._ledger_id, stream_id, self._person_keys)
        else:
            state = fold.read(head.snapshot, snapshot_place(self._ledger_id, stream_id, head.version), keys)
        return Stream(head.version, head.position, state)

    # ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _verdict(self, request: Request) -> Reply | DaybookError:
        key = request.key
        if key is None:
            return self._decide(request)
        if answer := self._answers.get(key):
            if answer.request_hash != request.request_hash:
                return IdempotencyKeyReused()
            return Reply(answer.status, answer.body, answer.position, replayed=True)
        reply = self._decide(request)
        answer = Answer(*key, request.request_hash, reply.status, reply.body, reply.position)
        self._answers[key] = answer
        self._new_answers.append(answer)
        if reply.position is not None and (person_id := request.command.person_id()):
            self._answered_people[key] = person_id
        return reply

    def _decide(self, request: Request) -> Reply:
        """A refusal is an answer too: under its key it stays the answer, whatever the account holds by then."""
        try:
            outcome = self._outcome(request)
        except Rejection as rejection:
            return Reply(*request.replies.refused(rejection), position=None)
        return Reply(*request.replies.accepted(outcome), position=outcome.position)

    def _outcome(self, request: Request) -> Outcome:
        stream_ids = request.command.streams()
        self._require_owned(request)
        events = request.command.decide(self._states)
        if request.expected_version not in {None, self._streams[stream_ids[0]].version}:
            raise VersionMismatch(current_version=self._streams[stream_ids[0]].version)
        positions = [self._apply(event, request.metadata, self._head) for event in events]
        return Outcome(
            events=events,
            positions=positions,
            states={stream_id: self._states[stream_id] for stream_id in stream_ids},
            version=self._streams[stream_ids[0]].version,
            position=positions[-1] if positions else self._streams[stream_ids[0]].position,
            recorded_at=self._head.now,
            customer=request.customer,
        )

    def _require_owned(self, request: Request) -> None:
        """To a customer, what is not theirs is missing: the refusal is the very one that an empty stream would get.

        Raises:
            Rejection: something is not theirs.
        """
        if request.customer is None:
            return
        owned = request.command.owned_streams()
        foreign = [stream_id for stream_id in owned if _owner(stream_id, self._states[stream_id]) != request.customer]
        if foreign:
            request.command.decide(self._states | {stream_id: fold_of(stream_id).initial for stream_id in foreign})
            raise NotFound

    def _apply(self, event: Event, metadata: dict[str, Any], head: Head) -> int:
        """Gives the event's position."""
        self.new_events.append(NewEvent(new_id(), event, metadata))
        position = head.position + len(self.new_events)
        for stream_id in event.streams():
            before = self._streams[stream_id]
            stream = Stream(before.version + 1, position, fold_of(stream_id).evolve(before.state, event))
            self._streams[stream_id], self._states[stream_id] = stream, stream.state
            self._stream_events.append(StreamEvent(stream_id, stream.version, position))
        return position

    # ── append ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _append(self, connection: AsyncConnection) -> None:
        changed = sorted({stream_event.stream_id for stream_event in self._stream_events})
        keys = await self._keys(connection, changed)
        new_head = await event_store.append(
            connection,
            self._ledger_id,
            self._head,
            self.new_events,
            self._stream_events,
            [self._stream_head(stream_id, keys) for stream_id in changed],
            [kept_answers.sealed(self._ledger_id, each, self._answered_people, keys) for each in self._new_answers],
            keys,
        )
        if new_head is None:
            raise LostRace
        self._head = new_head
        erased = {new.event.user_id for new in self.new_events if type(new.event) is UserErased}
        await self._person_keys.forget(connection, self._ledger_id, erased)
        deactivated = {new.event.user_id for new in self.new_events if type(new.event) is UserDeactivated}
        await passwords.forget(connection, self._ledger_id, erased | deactivated)

    async def _keys(self, connection: AsyncConnection, changed: list[str]) -> Keys:
        """Of all people whom the batch writes something about; money is about nobody, and costs no round trip here."""
        events = [new.event for new in self.new_events]
        people = people_of(*events, *(self._streams[stream_id].state for stream_id in changed))
        people |= kept_answers.people(self._new_answers, self._answered_people)
        if not people:
            return {}
        created = {event.user_id for event in events if type(event) is UserCreated}
        try:
            return await self._person_keys.require(connection, self._ledger_id, people, created)
        except LogDamaged:
            if self._short:  # somebody whom we still know has been erased meanwhile
                raise LostRace from None
            raise

    def _stream_head(self, stream_id: str, keys: Keys) -> StreamHead:
        fold, stream = fold_of(stream_id), self._streams[stream_id]
        snapshot = fold.write(stream.state, snapshot_place(self._ledger_id, stream_id, stream.version), keys)
        return StreamHead(stream_id, stream.version, stream.position, fold.version, snapshot)


def _people_in(head: StreamHead) -> set[str]:
    fold = fold_of(head.stream_id)
    return fold.people(head.snapshot) if head.fold_version == fold.version else set()


async def fold_stream(connection: AsyncConnection, ledger_id: str, stream_id: str, person_keys: PersonKeys) -> Any:
    """The state of a stream from its events, however many there are."""
    fold = fold_of(stream_id)
    state, version = fold.initial, 0
    while page := await event_store.read_stream(connection, ledger_id, stream_id, version):
        keys = await person_keys.read_for(connection, page)
        for stored in page:
            state = fold.evolve(state, stored.decoded(keys).event)
        version += len(page)
    return state
