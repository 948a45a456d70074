"""A command that waits for its verdict, and the wait for the verdicts of several."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from command_api.writer.command_request import CommandRequest, Reply
from shared.errors import StoreUnavailable

TOO_LATE: Final = "The command was not recorded in time. Repeat it with the same Idempotency-Key: it then takes effect only once."


class AcceptedCommand(Protocol):
    """A command that a writer has accepted. `expires_at` is its deadline on the event loop's clock, in seconds."""

    request: CommandRequest
    expires_at: float

    @property
    def caller(self) -> str: ...

    def is_answered(self) -> bool:
        """True if the caller has received a reply or an error, or has left."""

    def answer(self, verdict: Reply | Exception) -> None:
        """Gives the caller the reply or the error. Does nothing if the request was answered before or its caller has left."""


class PendingCommand:
    """A request whose caller waits for a reply in this process."""

    __slots__ = ("expires_at", "reply", "request")

    def __init__(self, request: CommandRequest, expires_at: float) -> None:
        self.request = request
        self.expires_at = expires_at
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def caller(self) -> str:
        return self.request.principal

    def is_answered(self) -> bool:
        return self.reply.done()

    def answer(self, verdict: Reply | Exception) -> None:
        if self.reply.done():
            return
        if isinstance(verdict, Exception):
            self.reply.set_exception(verdict)
        else:
            self.reply.set_result(verdict)


async def replies_to(commands: Sequence[PendingCommand]) -> list[Reply]:
    """Waits for the replies to commands that have one deadline, and returns them in order.

    Raises:
        StoreUnavailable: the deadline has passed.
        Exception: the verdict on a command is an error.
    """
    deadline = asyncio.get_running_loop().call_at(commands[0].expires_at, _give_up, commands)
    try:
        return [await command.reply for command in commands]
    finally:
        deadline.cancel()
        for command in commands:
            command.reply.cancel()  # has no effect on commands that were answered


def _give_up(commands: Sequence[PendingCommand]) -> None:
    for command in commands:
        command.answer(StoreUnavailable(TOO_LATE))
