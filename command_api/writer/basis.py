"""Reads the basis of a batch: the head of the log, the states of the streams that its commands need, and stored replies.

There are two ways to read the basis. Both lead to the same verdicts.

`read_ahead` reads before the transaction and takes no locks. It uses the streams that the previous batch left (`LedgerView`), and
reads the committed heads of other streams. The basis may be outdated by the time of the append. So the append checks that the
log still ends at the head of the basis, and writes nothing otherwise.

`read_locked` reads within the transaction. It looks for stored replies, and locks the head and the streams when it reads them. It
is used for a batch that cannot be decided ahead, and for a batch that lost a race with another writer.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from command_api.domain.command import Command, States
from command_api.domain.stream_folds import fold_of
from command_api.writer import stored_replies
from command_api.writer.batch import NO_HEAD, Basis
from command_api.writer.command_request import CommandRequest
from command_api.writer.ledger_view import LedgerView, Streams, StreamState
from shared.log.heads import StreamHead, lock_streams
from shared.log.read import find_events, people_in_events, read_stream
from shared.log.snapshots import is_readable, read_state
from shared.log.stored_replies import find_stored_replies
from shared.log.streams import LEDGER_STREAM
from shared.privacy.encryption import KeysByPerson
from shared.privacy.person_keys import PersonKeys

ReadHeads = Callable[[set[str]], Awaitable[Mapping[str, StreamHead]]]
"""Takes stream ids and returns the committed heads of those streams that exist."""


async def read_ahead(ledger_id: str, requests: Sequence[CommandRequest], view: LedgerView, read_heads: ReadHeads) -> Basis | None:
    """Reads the basis of a batch without locks.

    Returns None if locks are needed: the view is not trusted, the log has no event yet, the reply to the first part of a request
    is unknown, a snapshot has an outdated fold version, or a snapshot contains encrypted fields. A dry run needs them too: it
    appends nothing that would fail if a stream of `new_streams` exists already. So does a command that may be recorded already.
    """
    if any(request.rehearsed or request.is_repeated for request in requests):
        return None
    head, now = view.head, view.clock.now()
    if not view.trusted or head is None or now is None or head.position == 0:
        return None
    first_keys = {key for request in requests if request.part and (key := request.first_reply_key)}
    first_keys -= {request.reply_key for request in requests if request.part == 0}
    replies = view.find_first_replies(first_keys)
    if len(replies) < len(first_keys):
        return None
    commands = [command for request in requests for command in request.commands()]
    streams: Streams = {stream_id: _empty(stream_id) for stream_id in _created_streams(commands)}
    for stream_ids in (_first_streams, _further_streams):
        wanted = stream_ids(commands, streams) - streams.keys()
        streams |= view.find(wanted)
        unknown = wanted - streams.keys()
        heads = await read_heads(unknown) if unknown else {}
        if not all(map(_is_plain, heads.values())):
            return None
        streams |= {stream_id: _from_head(ledger_id, stream_id, heads.get(stream_id), {}) for stream_id in unknown}
    return Basis(msgspec.structs.replace(head, now=max(now, head.now)), streams, replies, alone=True)


async def read_locked(
    connection: AsyncConnection,
    ledger_id: str,
    requests: Sequence[CommandRequest],
    view: LedgerView,
    person_keys: PersonKeys,
) -> Basis:
    """Reads the basis of a batch under locks, which last until the transaction ends.

    Does not read streams for requests that have a stored reply.

    Raises:
        NotFound: there is no such ledger.
    """
    reply_keys = {key for request in requests for key in (request.reply_key, request.first_reply_key) if key}
    found = await find_stored_replies(connection, ledger_id, reply_keys) if reply_keys else {}
    keys = await person_keys.read(connection, ledger_id, stored_replies.people_in(found.values()))
    replies = {key: stored_replies.decrypted(ledger_id, reply, keys) for key, reply in found.items()}
    commands = [command for request in requests if request.reply_key not in replies for command in request.commands()]
    head, streams = NO_HEAD, Streams()
    for stream_ids in (_first_streams, _further_streams):
        if wanted := stream_ids(commands, streams) - streams.keys():
            locked, heads = await lock_streams(connection, ledger_id, wanted)
            streams |= await unfold(connection, ledger_id, wanted, heads, person_keys)
            head = locked if head is NO_HEAD else head
    event_ids = {request.event_id for request in requests if request.event_id}
    recorded = await find_events(connection, ledger_id, event_ids) if event_ids else set()
    return Basis(head, streams, replies, alone=view.head is not None and view.head.is_same(head), recorded=recorded)


def _created_streams(commands: Iterable[Command]) -> set[str]:
    """Returns the streams that need not be read, because commands create them and no other command depends on them.

    If a command creates a stream that exists, the append fails. But the command may be rejected and append nothing.
    """
    created, needed = set[str](), set[str]()
    for command in commands:
        new = command.new_streams()
        created.update(new)
        needed.update(stream_id for stream_id in command.streams() if stream_id not in new)
    return created - needed


def _first_streams(commands: Iterable[Command], _: Streams) -> set[str]:
    """Returns the streams that the commands name, and that of the ledger, on which every decision depends."""
    named = {stream_id for command in commands for stream_id in command.streams()}
    return named | {LEDGER_STREAM} if named else named


def _further_streams(commands: Iterable[Command], streams: Streams) -> set[str]:
    states: States = {stream_id: stream.state for stream_id, stream in streams.items()}
    return {stream_id for command in commands for stream_id in command.further_streams(states)}


# ── from a stream's head to its state ────────────────────────────────────────────────────────────────────────────────


async def unfold(
    connection: AsyncConnection,
    ledger_id: str,
    stream_ids: set[str],
    heads: Mapping[str, StreamHead],
    person_keys: PersonKeys,
) -> Streams:
    """Returns the version, position and state of each stream, from its head. A stream without a head is empty.

    Uses the snapshot in the head if its fold version is the current one, or the only event of the stream. Otherwise folds all
    events of the stream.
    """
    people = {person_id for head in heads.values() for person_id in _people_in(head)}
    keys = await person_keys.read(connection, ledger_id, people)
    streams = {stream_id: _empty(stream_id) for stream_id in stream_ids - heads.keys()}
    for stream_id, head in heads.items():
        if is_readable(fold_of(stream_id), head):
            streams[stream_id] = _from_head(ledger_id, stream_id, head, keys)
        else:
            state = await fold_stream(connection, ledger_id, stream_id, person_keys)
            streams[stream_id] = StreamState(head.version, head.position, state)
    return streams


async def fold_stream(connection: AsyncConnection, ledger_id: str, stream_id: str, person_keys: PersonKeys) -> Any:
    """Returns the state of a stream, folded from all its events. Reads the events in slices, so memory use is bounded."""
    fold = fold_of(stream_id)
    state, version = fold.initial, 0
    while page := await read_stream(connection, ledger_id, stream_id, version):
        keys = await person_keys.read(connection, ledger_id, people_in_events(page))
        for stored in page:
            state = fold.evolve(state, stored.decoded(keys).event)
        version += len(page)
    return state


def _empty(stream_id: str) -> StreamState:
    return StreamState(0, 0, fold_of(stream_id).initial)


def _from_head(ledger_id: str, stream_id: str, head: StreamHead | None, keys: KeysByPerson) -> StreamState:
    """Returns the stream as its head describes it, or an empty stream without a head. The head must be readable."""
    if head is None:
        return _empty(stream_id)
    return StreamState(head.version, head.position, read_state(fold_of(stream_id), ledger_id, head, keys))


def _is_plain(head: StreamHead) -> bool:
    """True if the state can be read from the head and contains no encrypted fields."""
    fold = fold_of(head.stream_id)
    return is_readable(fold, head) and not fold.is_personal


def _people_in(head: StreamHead) -> set[str]:
    fold = fold_of(head.stream_id)
    return fold.people(head.snapshot) if head.fold_version == fold.version else set()
