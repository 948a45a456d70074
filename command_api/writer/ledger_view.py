"""A writer's memory of its ledger between batches: the head of the log and recently used streams."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from command_api.writer.command_request import ReplyKey
from shared.log.heads import Head
from shared.log.stored_replies import StoredReply
from shared.stores.database_clock import DatabaseClock

FIRST_REPLIES_MAX: Final = 1_000


class StreamState(msgspec.Struct, frozen=True):
    """The version of a stream, the position of its last event, and the state that its events add up to."""

    version: int
    position: int
    state: Any


Streams = dict[str, StreamState]
"""Stream states by stream id."""


class LedgerView:
    """The head of the log after the last batch, and the states of streams as of that head.

    The view keeps the `streams_max` streams that were used last. It may be ahead of the committed log by one batch, which was
    decided but is not committed yet. If that batch fails, the caller must call `doubt`.
    """

    def __init__(self, streams_max: int, clock: DatabaseClock) -> None:
        self.clock = clock
        self.head: Head | None = None
        self.trusted = False
        """True if no other writer had appended to the ledger at the last check, so batches may be decided on this view."""
        # Not a plain dict: to find its oldest key, a dict steps over every key that was deleted before.
        self._streams: OrderedDict[str, StreamState] = OrderedDict()
        self._streams_max = streams_max
        self._first_replies: OrderedDict[ReplyKey, StoredReply] = OrderedDict()

    def doubt(self) -> None:
        self.trusted = False
        self._first_replies.clear()

    def find(self, stream_ids: Iterable[str]) -> Streams:
        """Returns those of the streams that the view holds."""
        return {stream_id: stream for stream_id in stream_ids if (stream := self._streams.get(stream_id))}

    def find_first_replies(self, reply_keys: Iterable[ReplyKey]) -> dict[ReplyKey, StoredReply]:
        """Returns those of the replies that the view holds. Later parts of a request are decided on the reply to its first."""
        return {key: reply for key in reply_keys if (reply := self._first_replies.get(key))}

    def remember_first_replies(self, replies: Iterable[StoredReply]) -> None:
        """Keeps the replies to the first parts of requests, the newest `FIRST_REPLIES_MAX` of them."""
        for reply in replies:
            self._first_replies[reply.principal, reply.key] = reply
        while len(self._first_replies) > FIRST_REPLIES_MAX:
            self._first_replies.popitem(last=False)

    def update(self, head: Head, streams: Streams, dropped: Iterable[str], *, alone: bool, trusted: bool) -> None:
        """Sets the view to the head and the streams that a batch leaves, without those that are `dropped`.

        `alone` is True if no other writer appended between the previous batch and this one. The streams that the view already
        holds are then still correct. Otherwise they are dropped.
        """
        if not alone:
            self._streams.clear()
        for stream_id, stream in streams.items():
            self._streams[stream_id] = stream
            self._streams.move_to_end(stream_id)
        for stream_id in dropped:  # a command may have looked for it before it existed
            self._streams.pop(stream_id, None)
        while len(self._streams) > self._streams_max:
            self._streams.popitem(last=False)
        self.head, self.trusted = head, trusted
