"""What one transaction decides and writes.

A batch comes to its states in one of two ways. The careful one asks for answers given before and locks the log's head and the
streams while it reads them. The short one decides before its transaction, on the states that the last batch left (`View`) and on
what is committed of other streams, and lets the append say whether the log still ends there: if it does, no stream can have
changed. A key that was answered before, or an id that is taken, then breaks a unique constraint. Whatever the reason, a batch
that loses is decided again, carefully.

The answers are the same either way. Alone on its ledger, a writer spends one round trip between BEGIN and COMMIT.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from command_api import kept_answers
from command_api.command import Command, States
from command_api.fold import snapshot_place
from command_api.folds import fold_of
from shared import event_store, passwords
from shared.connections import Driver, driver_of
from shared.errors import DaybookError, IdempotencyKeyReused, NotFound, Rejection, VersionMismatch
from shared.event_store import Answer, Entry, Head, NewEvent, StreamEvent, StreamHead
from shared.events import Event, UserCreated, UserDeactivated, UserErased
from shared.ids import new_id
from shared.person_keys import PersonKeys
from shared.personal_data import Keys, people_of


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
    """Somebody else has written to the ledger since the batch was decided."""


class Stream(msgspec.Struct, frozen=True):
    """Where a stream is, and what it folds to."""

    version: int
    position: int
    state: Any


Streams = dict[str, Stream]
"""By stream id."""

ReadHeads = Callable[[set[str]], Awaitable[Mapping[str, StreamHead]]]
"""The committed heads of those of these streams that exist."""


class View:
    """What a writer knows of its ledger: the head as its last batch left it, and streams as of that head.

    Holds at most `streams_max` streams, the ones used last.
    """

    def __init__(self, streams_max: int) -> None:
        self.head: Head | None = None
        self.trusted = False
        """Nobody else wrote to the ledger when we last looked."""
        # Not a dictionary: to find the first of one, all that were deleted before it are passed by.
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        self._streams_max = streams_max

    def doubt(self) -> None:
        self.trusted = False

    def find(self, stream_ids: Iterable[str]) -> Streams:
        """Those that are known."""
        return {stream_id: stream for stream_id in stream_ids if (stream := self._streams.get(stream_id))}

    def update(self, head: Head, streams: Streams, *, alone: bool, trusted: bool) -> None:
        """Takes over what a batch left. `alone`: the head was where the batch before had left it, so older streams hold."""
        if not alone:
            self._streams.clear()
        for stream_id, stream in streams.items():
            self._streams[stream_id] = stream
            self._streams.move_to_end(stream_id)
        while len(self._streams) > self._streams_max:
            self._streams.popitem(last=False)
        self.head, self.trusted = head, trusted


class Batch:
    """`verdicts` are in the order of the requests, and true once the transaction is committed."""

    def __init__(self, ledger_id: str, requests: Sequence[Request], view: View, person_keys: PersonKeys) -> None:
        self.verdicts: list[Reply | DaybookError] = []
        self.new_events: list[NewEvent] = []
        self.complete = False
        """All is written; only the commit is left."""
        self._ledger_id = ledger_id
        self._requests = requests
        self._view = view
        self._person_keys = person_keys
        self._head = NO_HEAD
        """Where the log ends: before the decision, and then with what it adds."""
        self._entry: Entry | None = None
        self._alone = False
        self._answers: dict[Key, Answer] = {}
        self._new_answers: list[Answer] = []
        self._answered_people: dict[Key, str] = {}
        self._streams: Streams = {}
        self._states: dict[str, Any] = {}
        self._stream_events: list[StreamEvent] = []

    def update_view(self) -> None:
        """Once the batch is committed; or decided, if whoever trusts the view meanwhile is told when that comes to nothing."""
        if self._head is NO_HEAD:
            return
        created = self._created()
        streams = {stream_id: stream for stream_id, stream in self._streams.items() if stream_id not in created}
        replayed = any(isinstance(verdict, Reply) and verdict.replayed for verdict in self.verdicts)
        self._view.update(self._head, streams, alone=self._alone, trusted=self._alone and not replayed)

    def _created(self) -> set[str]:
        return {stream_id for request in self._requests for stream_id in request.command.new_streams()}

    # ── the short way ────────────────────────────────────────────────────────────────────────────────────────────────

    async def decide_ahead(self, read_heads: ReadHeads) -> bool:
        """Whether that could be done; then `append` is to follow. Where not, take the careful way with another batch."""
        head = self._view.head
        if not self._view.trusted or head is None:
            return False
        self._take({stream_id: Stream(0, 0, fold_of(stream_id).initial) for stream_id in self._created()})
        if not await self._look_up(self._named(lambda command: command.streams()), read_heads):
            return False
        if not await self._look_up(self._named(lambda command: command.further_streams(self._states)), read_heads):
            return False
        self._alone = True
        self._decide(msgspec.structs.replace(head, now=max(datetime.now(UTC), head.now)))
        # Where nothing is written, nothing confirms the view. What people are kept or forgotten with is for those who hold locks.
        if not self._writes or self._people() or any(map(_is_about_person, self._stream_events)):
            return False
        self._enter({})
        return True

    async def _look_up(self, stream_ids: set[str], read_heads: ReadHeads) -> bool:
        """In the view, and in the log as far as it takes no more than its snapshots."""
        self._take(self._view.find(stream_ids))
        unknown = stream_ids - self._streams.keys()
        heads = await read_heads(unknown) if unknown else {}
        if not all(map(_is_plain, heads.values())):
            return False
        self._take({stream_id: _stream(self._ledger_id, stream_id, heads.get(stream_id), {}) for stream_id in unknown})
        return True

    # ── the careful way ──────────────────────────────────────────────────────────────────────────────────────────────

    async def record(self, connection: AsyncConnection) -> None:
        """Decides on locked streams, and writes.

        Raises:
            LostRace: nothing was written.
        """
        keys = {request.key for request in self._requests if request.key}
        found = await event_store.find_answers(connection, self._ledger_id, keys) if keys else {}
        self._answers = await kept_answers.opened(connection, self._ledger_id, found, self._person_keys)
        named = self._named(lambda command: command.streams())
        head = await self._lock(connection, named) if named else NO_HEAD
        if further := self._named(lambda command: command.further_streams(self._states)):
            await self._lock(connection, further)
        self._alone = self._view.head is not None and self._view.head.is_same(head)
        self._decide(head)
        if self._writes:
            await self._append_carefully(connection)
        self.complete = True

    async def _lock(self, connection: AsyncConnection, stream_ids: set[str]) -> Head:
        head, heads = await event_store.lock(connection, self._ledger_id, stream_ids)
        self._take(await unfold(connection, self._ledger_id, stream_ids, heads, self._person_keys))
        return head

    def _named(self, names: Callable[[Command], Iterable[str]]) -> set[str]:
        """The streams that commands name, of those that were not answered before; without those that are taken."""
        commands = (request.command for request in self._requests if request.key not in self._answers)
        return {stream_id for command in commands for stream_id in names(command)} - self._streams.keys()

    def _take(self, streams: Streams) -> None:
        self._streams |= streams
        self._states |= {stream_id: stream.state for stream_id, stream in streams.items()}

    # ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _decide(self, head: Head) -> None:
        self._head = head
        self.verdicts = [self._verdict(request) for request in self._requests]

    @property
    def _writes(self) -> bool:
        return bool(self.new_events or self._new_answers)

    def _verdict(self, request: Request) -> Reply | DaybookError:
        key = request.key
        if key is None:
            return self._reply(request)
        if answer := self._answers.get(key):
            if answer.request_hash != request.request_hash:
                return IdempotencyKeyReused()
            return Reply(answer.status, answer.body, answer.position, replayed=True)
        reply = self._reply(request)
        answer = Answer(*key, request.request_hash, reply.status, reply.body, reply.position)
        self._answers[key] = answer
        self._new_answers.append(answer)
        if reply.position is not None and (person_id := request.command.person_id()):
            self._answered_people[key] = person_id
        return reply

    def _reply(self, request: Request) -> Reply:
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
        positions = [self._apply(event, request.metadata) for event in events]
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

    def _apply(self, event: Event, metadata: dict[str, Any]) -> int:
        """Gives the event's position."""
        self.new_events.append(NewEvent(new_id(), event, metadata))
        position = self._head.position + len(self.new_events)
        for stream_id in event.streams():
            before = self._streams[stream_id]
            stream = Stream(before.version + 1, position, fold_of(stream_id).evolve(before.state, event))
            self._streams[stream_id], self._states[stream_id] = stream, stream.state
            self._stream_events.append(StreamEvent(stream_id, stream.version, position))
        return position

    # ── append ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, keys: Keys) -> None:
        changed = sorted({stream_event.stream_id for stream_event in self._stream_events})
        self._entry = event_store.make_entry(
            self._ledger_id,
            self._head,
            self.new_events,
            self._stream_events,
            [self._stream_head(stream_id, keys) for stream_id in changed],
            [kept_answers.sealed(self._ledger_id, each, self._answered_people, keys) for each in self._new_answers],
            keys,
        )
        self._head = self._entry.head

    async def append(self, driver: Driver) -> None:
        """Raises:
        LostRace: the log does not end where the batch was decided; nothing was written.
        """
        if self._entry is None or not await event_store.append(driver, self._entry):
            raise LostRace
        self.complete = True

    async def _append_carefully(self, connection: AsyncConnection) -> None:
        people = self._people()
        created = {new.event.user_id for new in self.new_events if type(new.event) is UserCreated}
        keys = await self._person_keys.require(connection, self._ledger_id, people, created) if people else {}
        self._enter(keys)
        await self.append(await driver_of(connection))
        erased = {new.event.user_id for new in self.new_events if type(new.event) is UserErased}
        await self._person_keys.forget(connection, self._ledger_id, erased)
        deactivated = {new.event.user_id for new in self.new_events if type(new.event) is UserDeactivated}
        await passwords.forget(connection, self._ledger_id, erased | deactivated)

    def _people(self) -> set[str]:
        """All whom the batch writes something about. Money is about nobody."""
        changed = {stream_event.stream_id for stream_event in self._stream_events}
        events = (new.event for new in self.new_events)
        people = people_of(*events, *(self._streams[stream_id].state for stream_id in changed))
        return people | kept_answers.people(self._new_answers, self._answered_people)

    def _stream_head(self, stream_id: str, keys: Keys) -> StreamHead:
        fold, stream = fold_of(stream_id), self._streams[stream_id]
        snapshot = fold.write(stream.state, snapshot_place(self._ledger_id, stream_id, stream.version), keys)
        return StreamHead(stream_id, stream.version, stream.position, fold.version, snapshot)


async def unfold(
    connection: AsyncConnection,
    ledger_id: str,
    stream_ids: set[str],
    heads: Mapping[str, StreamHead],
    person_keys: PersonKeys,
) -> Streams:
    """The streams that have these heads; those that have none are empty."""
    people = {person_id for head in heads.values() for person_id in _people_in(head)}
    keys = await person_keys.read(connection, ledger_id, people)
    streams = {stream_id: _stream(ledger_id, stream_id, None, keys) for stream_id in stream_ids - heads.keys()}
    for stream_id, head in heads.items():
        if head.fold_version == fold_of(stream_id).version:
            streams[stream_id] = _stream(ledger_id, stream_id, head, keys)
        else:
            state = await fold_stream(connection, ledger_id, stream_id, person_keys)
            streams[stream_id] = Stream(head.version, head.position, state)
    return streams


def _stream(ledger_id: str, stream_id: str, head: StreamHead | None, keys: Keys) -> Stream:
    """From the snapshot, which is one of the present fold."""
    fold = fold_of(stream_id)
    if head is None:
        return Stream(0, 0, fold.initial)
    state = fold.read(head.snapshot, snapshot_place(ledger_id, stream_id, head.version), keys)
    return Stream(head.version, head.position, state)


def _is_plain(head: StreamHead) -> bool:
    """Whether its snapshot can be read without keys and is one of the present fold."""
    fold = fold_of(head.stream_id)
    return head.fold_version == fold.version and not fold.is_personal


def _is_about_person(stream_event: StreamEvent) -> bool:
    return stream_event.stream_id.startswith(("user-", "email-"))


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
