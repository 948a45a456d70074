"""Records the expiry of holds. The worker finds them and publishes their ids: see `projector.due`.

The rule decides by PostgreSQL's clock, so a message can be wrong, late or twice, and no hold ends before its moment. If the
writer has too much to do, nothing is recorded, and the worker publishes the holds again.
"""

from functools import partial
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis

from command_api.domain.hold import ExpireHold
from command_api.worker_messages import hear
from command_api.writer.command_request import CommandRequest, Outcome
from command_api.writer.ledger_writer import CommandHandler
from shared.errors import DaybookError, Rejection
from shared.ids import new_id
from shared.logs import kind_of
from shared.read_models.channels import DUE_HOLDS_CHANNEL, DueHolds
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

log = structlog.get_logger()

PRINCIPAL: Final = "process:command-api"


class _UnheardReply:
    """A reply format for commands that nobody waits for. It must not raise: a batch also has the commands of others."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 200, b""

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        log.warning("an expired hold cannot be recorded", error=kind_of(rejection))
        return 409, b""


async def record_expired_holds(redis: "Redis", handler: CommandHandler) -> None:
    """Listens to the worker and records the expiries that it finds, for ever. While Redis does not answer, none is recorded."""
    await hear(redis, DUE_HOLDS_CHANNEL, partial(_record, handler))


async def _record(handler: CommandHandler, message: str) -> None:
    """Records the expiries of one message, each in a command of its own."""
    try:
        due = msgspec.json.decode(message, type=DueHolds)
        await handler.handle(due.ledger_id, [_request(hold_id) for hold_id in due.hold_ids])
    except (*POSTGRES_AND_REDIS_ERRORS, DaybookError, ValueError) as error:
        log.warning("expired holds are recorded later", error=kind_of(error))


def _request(hold_id: str) -> CommandRequest:
    metadata = {
        "command": ExpireHold.__name__,
        "request_id": new_id(),
        "principal": PRINCIPAL,
        "key_id": None,
        "network": None,
    }
    return CommandRequest(
        command=ExpireHold(hold_id=hold_id), reply_format=_UnheardReply(), metadata=metadata, principal=PRINCIPAL
    )
