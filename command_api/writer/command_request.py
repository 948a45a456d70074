"""The types that the writer takes and returns: a command with the details of its request, and the reply to it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from command_api.domain.command import Command, States
from shared.errors import DaybookError, Rejection
from shared.log.events import Event

ReplyKey = tuple[str, str]
"""The key of a stored reply: (principal, idempotency key)."""


class Outcome(msgspec.Struct, frozen=True):
    """The result of a command that was not rejected: its events, their positions, and the states of its streams after them.

    `version` is the version of the command's first stream. `position` is the position of the command's last event. If the command
    changed nothing, it is the position of the last event in its first stream.
    """

    events: list[Event]
    positions: list[int]
    states: States
    version: int
    position: int
    recorded_at: datetime
    customer: str | None = None
    """The id of the customer who sent the command and may see only their own states. None if the caller may see all states."""


class ReplyFormat(Protocol):
    """Turns the outcome or the rejection of a command into a reply: the HTTP status and the body."""

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]: ...

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]: ...


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A command with the details of its request: caller, idempotency key, expected version, and metadata for its events."""

    command: Command
    reply_format: ReplyFormat
    metadata: dict[str, Any]
    principal: str = ""
    customer: str | None = None
    """The id of the customer who must own the command's `owned_streams`. None if the caller is not a customer."""
    idempotency_key: str | None = None
    part: int | None = None
    """The place of the command in its request, from 0, if the request has several commands that are decided independently."""
    request_hash: bytes = b""
    expected_versions: Sequence[int] | None = None
    """The first stream must have one of these versions. None if the caller requires none."""
    rehearsed: Sequence["CommandRequest"] = ()
    """For a dry run, the requests to decide without recording them, each on the states that those before it leave."""

    event_id: str | None = None
    """The id for the command's first event, if another process is to record the command and it has no idempotency key."""
    is_repeated: bool = False
    """True if another process may have recorded the command. It is then decided under locks, where its stored reply or its first
    event is looked for."""

    together: Sequence["CommandRequest"] = ()
    """For commands that are all recorded or none, the requests to decide, each on the states that those before it leave."""

    def commands(self) -> list[Command]:
        """Returns the commands whose streams the decision needs: those of other requests inside, or else the command itself."""
        inside = self.rehearsed or self.together
        return [command for request in inside for command in request.commands()] if inside else [self.command]

    @property
    def creates_ledger(self) -> bool:
        return any(command.creates_ledger for command in self.commands())

    @property
    def reply_key(self) -> ReplyKey | None:
        """The key of the command's own reply. Later parts of a request add a character that no caller can send, and a number."""
        if self.idempotency_key is None:
            return None
        return self.principal, f"{self.idempotency_key}\x1f{self.part}" if self.part else self.idempotency_key

    @property
    def first_reply_key(self) -> ReplyKey | None:
        """The key of the reply to the first part, if this is a later part. That reply shows whose the idempotency key is."""
        return (self.principal, self.idempotency_key) if self.part and self.idempotency_key else None


class AcceptedCommand(Protocol):
    """A command that a writer has accepted. `expires_at` is its deadline on the event loop's clock, in seconds."""

    request: CommandRequest
    expires_at: float

    @property
    def caller(self) -> str: ...

    def is_answered(self) -> bool:
        """True if the caller has received a reply or an error, or has left."""

    def answer(self, verdict: "Reply | Exception") -> None:
        """Gives the caller the reply or the error. Does nothing if the request was answered before or its caller has left."""


class Reply(msgspec.Struct, frozen=True):
    """The reply to a command. `replayed` is True if it is a stored reply to an earlier request with the same key.

    `rehearsed` has the replies of a dry run, which has no other reply.
    """

    status: int
    body: bytes
    position: int | None
    replayed: bool = False
    rehearsed: Sequence["Reply"] = ()


Verdict = Reply | DaybookError
"""A reply, or the error that the command gets instead of one."""


def results_body(answers: Iterable[tuple[int, bytes]]) -> bytes:
    """Returns the body of one answer to several commands, from the status and the body of each."""
    return b'{"results":[%b]}' % b",".join(b'{"status":%d,"body":%b}' % answer for answer in answers)
