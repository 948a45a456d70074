"""Turns the requests of a batch into the rows that one transaction writes: `decide`, then `prepare`.

Neither function does I/O or reads a clock. The commands of a batch are decided one after another, each on the states that the
commands before it leave. A rejection affects only its own command. A request whose idempotency key has a stored reply gets that
reply.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from command_api.domain.ledger import decide_in
from command_api.domain.stream_folds import at_moment, fold_of, owner_of
from command_api.writer import stored_replies
from command_api.writer.command_request import CommandRequest, Outcome, Reply, ReplyKey, Verdict, results_body
from command_api.writer.ledger_view import Streams, StreamState
from shared.errors import DaybookError, IdempotencyKeyReused, NotFound, Rejection, StoreUnavailable, VersionMismatch
from shared.ids import new_id
from shared.log.append import NewEvent, PreparedAppend, StreamEvent, prepare_append
from shared.log.events import Event
from shared.log.heads import Head
from shared.log.snapshots import make_head
from shared.log.stored_replies import StoredReply
from shared.log.streams import LEDGER_STREAM
from shared.log.user_events import UserCreated, UserDeactivated, UserErased
from shared.privacy.encryption import KeysByPerson, people_of
from shared.timestamps import timestamp

NO_HEAD: Final = Head(0, b"", datetime.min.replace(tzinfo=UTC))
"""Stands for the head of the log in a batch in which every request has a stored reply: it writes nothing, so no head is read."""

_KINDS_OF_PEOPLE: Final = frozenset(("user-", "email"))
"""How the ids of the streams of users and of e-mail addresses begin."""

FIRST_PART_MISSING: Final = (
    "The first command of this request was not recorded. Repeat the request with the same Idempotency-Key."
)


class Basis(msgspec.Struct, frozen=True):
    """The data that a batch is decided on: the head of the log, streams, and stored replies.

    `alone` is True if the log ends where the previous batch of this writer left it, so no other writer has appended since.
    """

    head: Head
    streams: Streams
    replies: Mapping[ReplyKey, StoredReply]
    alone: bool
    recorded: Collection[str] = ()
    """Those of the requests' event ids that the log has: another process has recorded these commands."""


class Decided(msgspec.Struct, frozen=True):
    """A batch that was decided, with the rows to write.

    `verdicts` are in the order of the requests. They are valid only after everything else is committed.
    """

    verdicts: list[Verdict]
    basis: Basis
    streams: Streams
    """The streams after the batch."""
    events: list[NewEvent]
    stream_events: list[StreamEvent]
    replies: list[StoredReply]
    """The new replies to store. They are not encrypted yet."""
    people_of_replies: dict[ReplyKey, str]
    """The ids of the people whose personal data the replies contain, by the key of the reply."""

    @property
    def writes(self) -> bool:
        return bool(self.events or self.replies)

    def people(self) -> set[str]:
        """Returns the ids of the people whose personal data the batch writes. Money events contain no personal data."""
        changed = {stream_event.stream_id for stream_event in self.stream_events}
        events = [new.event for new in self.events]
        people = people_of(*events, *[self.streams[stream_id].state for stream_id in changed])
        return people | stored_replies.people(self.replies, self.people_of_replies)

    def users_of(self, kind: type[UserCreated | UserDeactivated | UserErased]) -> set[str]:
        """Returns the ids of the users in the batch's events of this type."""
        return {new.event.user_id for new in self.events if isinstance(new.event, kind)}

    def is_about_people(self) -> bool:
        """True if the transaction of the batch may have to read, make or delete person keys."""
        kinds = {each.stream_id[:5] for each in self.stream_events}
        return bool(self.people()) or not _KINDS_OF_PEOPLE.isdisjoint(kinds)


def decide(requests: Sequence[CommandRequest], basis: Basis) -> Decided:
    """Decides the requests in order. Returns a verdict for each request, and the rows that the batch writes."""
    deciding = _Deciding(basis)
    verdicts = [deciding.verdict(request) for request in requests]
    return Decided(
        verdicts,
        basis,
        deciding.streams,
        deciding.events,
        deciding.stream_events,
        deciding.replies,
        deciding.people_of_replies,
    )


def prepare(ledger_id: str, decided: Decided, keys: KeysByPerson) -> PreparedAppend:
    """Returns the batch in the form that `append_prepared` takes. `keys` must have the keys of `decided.people()`."""
    changed = sorted({stream_event.stream_id for stream_event in decided.stream_events})
    return prepare_append(
        ledger_id,
        decided.basis.head,
        decided.events,
        decided.stream_events,
        [
            make_head(fold_of(stream_id), ledger_id, stream_id, stream.version, stream.position, stream.state, keys)
            for stream_id in changed
            for stream in [decided.streams[stream_id]]
        ],
        [stored_replies.encrypted(ledger_id, reply, decided.people_of_replies, keys) for reply in decided.replies],
        keys,
    )


class _Deciding:
    """The streams, events and replies that `decide` collects while it works through a batch."""

    def __init__(self, basis: Basis) -> None:
        self.streams: Streams = dict(basis.streams)
        self.events: list[NewEvent] = []
        self.stream_events: list[StreamEvent] = []
        self.replies: list[StoredReply] = []
        self.people_of_replies: dict[ReplyKey, str] = {}
        self._head = basis.head
        self._recorded = basis.recorded
        self._replies_by_key = dict(basis.replies)
        self._now = timestamp(basis.head.now)
        # What commands are decided on. `streams` has the states that are stored: the fold of the events, as of no moment.
        self._states: dict[str, Any] = {
            stream_id: at_moment(stream.state, self._now) for stream_id, stream in basis.streams.items()
        }

    def verdict(self, request: CommandRequest) -> Verdict:
        if request.rehearsed:
            return self._rehearse(request.rehearsed)
        key = request.reply_key
        if key and (earlier := self._replies_by_key.get(key)):
            if earlier.request_hash != request.request_hash:
                return IdempotencyKeyReused()
            return Reply(earlier.status, earlier.body, earlier.position, replayed=True)
        if request.part and (error := self._error_of_first_part(request)):
            return error
        try:
            if request.together:
                reply = self._reply_together(request.together)
            else:
                outcome = self._outcome(request)
                reply = Reply(*request.reply_format.accepted(outcome), position=outcome.position)
        except Rejection as rejection:
            # A rejection is stored as a reply too. The same key gets it again, even if the command would succeed later.
            reply = Reply(*request.reply_format.rejected(rejection), position=None)
        if key:
            stored = StoredReply(*key, request.request_hash, reply.status, reply.body, reply.position)
            self._replies_by_key[key] = stored
            self.replies.append(stored)
            if reply.position is not None and (person_id := request.command.person_id()):
                self.people_of_replies[key] = person_id
        return reply

    def _reply_together(self, requests: Sequence[CommandRequest]) -> Reply:
        """Decides requests that are all recorded or none, on copies, and takes the copies over if none is rejected.

        Raises:
            Rejection: one of them is rejected. The member `index` is its place, counted from 0.
        """
        attempt, answers, position = self._copied(), [], 0
        for index, request in enumerate(requests):
            try:
                outcome = attempt._outcome(request)  # noqa: SLF001 # a copy of this object
            except Rejection as rejection:
                rejection.extra["index"] = index
                raise
            answers.append(request.reply_format.accepted(outcome))
            position = max(position, outcome.position)
        self.streams, self._states = attempt.streams, attempt._states  # noqa: SLF001 # as above
        self.events, self.stream_events = attempt.events, attempt.stream_events
        return Reply(200, results_body(answers), position)

    def _copied(self) -> "_Deciding":
        """Returns a copy to decide on, whose events and states do not become those of the batch."""
        copied = copy.copy(self)
        copied.streams, copied._states = dict(self.streams), dict(self._states)  # noqa: SLF001 # a copy of this object
        copied.events, copied.stream_events = [*self.events], [*self.stream_events]
        return copied

    def _rehearse(self, requests: Sequence[CommandRequest]) -> Verdict:
        """Decides the requests of a dry run on copies, so that nothing is recorded. Positions are those that events would get."""
        rehearsal = self._copied()
        rehearsal.replies = []
        verdicts = [rehearsal.verdict(request) for request in requests]
        replies = [verdict for verdict in verdicts if isinstance(verdict, Reply)]
        return Reply(200, b"", None, rehearsed=[msgspec.structs.replace(reply, position=None) for reply in replies])

    def _error_of_first_part(self, request: CommandRequest) -> DaybookError | None:
        """Returns the error of a later part if its idempotency key does not belong to its request.

        The reply to the first part has the key itself, so no other request can take the key from then on. Without that reply,
        the first part was not recorded, and this part must not be recorded either.
        """
        first = self._replies_by_key.get(request.first_reply_key or ("", ""))
        if first is None:
            return StoreUnavailable(FIRST_PART_MISSING)
        return None if first.request_hash == request.request_hash else IdempotencyKeyReused()

    def _outcome(self, request: CommandRequest) -> Outcome:
        stream_ids = request.command.streams()
        further = request.command.further_streams(self._states)
        self._require_owned(request)
        # A command that another process has recorded is answered as if it were sent again and changed nothing.
        events = [] if request.event_id in self._recorded else self._decide(request, stream_ids[0])
        ids = [request.event_id or new_id(), *(new_id() for _ in events[1:])]
        positions = [self._apply(event, event_id, request.metadata) for event, event_id in zip(events, ids, strict=False)]
        first = self.streams[stream_ids[0]]
        return Outcome(
            events=events,
            positions=positions,
            states={stream_id: self._states[stream_id] for stream_id in (*stream_ids, *further)},
            version=first.version,
            position=positions[-1] if positions else first.position,
            recorded_at=self._head.now,
            customer=request.customer,
        )

    def _decide(self, request: CommandRequest, first_stream: str) -> list[Event]:
        """Returns the events of the command.

        Raises:
            Rejection: a rule rejects the command, or its first stream has another version than expected.
        """
        recorded = self._head.position + len(self.events)
        events = decide_in(self._states[LEDGER_STREAM], recorded, request.command, self._states)
        expected, version = request.expected_versions, self.streams[first_stream].version
        if expected is not None and version not in expected:
            raise VersionMismatch(current_version=version)
        return events

    def _require_owned(self, request: CommandRequest) -> None:
        """Checks that the customer owns the command's `owned_streams`. Does nothing if the caller is not a customer.

        Raises:
            Rejection: the customer does not own one of the streams. It is the same rejection as if that stream were empty, so the
                customer cannot learn that the stream exists.
        """
        if request.customer is None:
            return
        owned = request.command.owned_streams()
        foreign = [stream_id for stream_id in owned if owner_of(stream_id, self._states[stream_id]) != request.customer]
        if foreign:
            request.command.decide(self._states | {stream_id: fold_of(stream_id).initial for stream_id in foreign})
            raise NotFound

    def _apply(self, event: Event, event_id: str, metadata: dict[str, Any]) -> int:
        """Adds an event to the batch and applies it to its streams. Returns the position of the event."""
        self.events.append(NewEvent(event_id, event, metadata))
        position = self._head.position + len(self.events)
        for stream_id in event.streams():
            before = self.streams[stream_id]
            stream = StreamState(before.version + 1, position, fold_of(stream_id).evolve(before.state, event))
            self.streams[stream_id], self._states[stream_id] = stream, at_moment(stream.state, self._now)
            self.stream_events.append(StreamEvent(stream_id, stream.version, position))
        return position
