"""Runs a command that an operator gives on the command line. It runs in this process, without HTTP, through the same writer."""

from contextlib import AsyncExitStack

from command_api.domain.command import Command
from command_api.writer.command_request import CommandRequest, Outcome
from command_api.writer.ledger_writer import CommandHandler
from command_api.writer.wake_up import Waker
from shared.errors import Rejection
from shared.ids import new_id
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis


class _NoReply:
    """A reply format for commands without an HTTP caller: the reply is empty, and a rejection is raised."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 200, b""

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        raise rejection


async def run_operator_command(settings: Settings, ledger_id: str, command: Command, operator: str) -> None:
    """Runs the command and records its events. `operator` is the operator's login name; the principal is `operator:<operator>`.

    Raises:
        Rejection: a rule rejected the command.
        Unavailable: PostgreSQL did not answer. You can run the command again.
    """
    metadata = {
        "command": type(command).__name__,
        "request_id": new_id(),
        "principal": f"operator:{operator}",
        "key_id": None,
        "network": None,
    }
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_postgres(settings, "daybook_command"))
        waker = Waker(await stack.enter_async_context(open_redis(settings)), settings.wake_timeout_ms)
        stack.push_async_callback(waker.close)
        handler = CommandHandler(engine, settings, waker.wake)
        stack.push_async_callback(handler.close)
        await handler.handle(ledger_id, [CommandRequest(command=command, reply_format=_NoReply(), metadata=metadata)])
