"""Records the skips that operators asked for over HTTP, after the worker has found the event among the dead letters.

The worker may not write to the log, so it publishes the operation: see `projector.operation_worker`. The message only names it.
The row that the caller's request wrote has the reason and the caller of the skip. Several command APIs can hear a message, and
it can come twice: the second skip of an event records nothing.
"""

from functools import partial

import msgspec
import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.domain.projection import SkipProjectionEvent
from command_api.worker_messages import hear
from command_api.writer.command_request import CommandRequest, Outcome
from command_api.writer.ledger_writer import CommandHandler
from shared.errors import DaybookError, Rejection
from shared.logs import kind_of
from shared.read_models import operations
from shared.read_models.channels import SKIPS_CHANNEL, RequestedSkip
from shared.read_models.operations import ReadModelOperation
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

log = structlog.get_logger()


class _SkipReply:
    """A reply format for skips, whose caller watches the operation. It must not raise, as in `expired_holds`."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 200, b""

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        log.warning("a skip cannot be recorded", error=kind_of(rejection))
        return 409, b""


async def record_requested_skips(redis: "Redis", engine: AsyncEngine, handler: CommandHandler) -> None:
    """Listens to the worker and records the skips that it names, for ever. While Redis does not answer, none is recorded."""
    await hear(redis, SKIPS_CHANNEL, partial(_record, engine, handler))


async def _record(engine: AsyncEngine, handler: CommandHandler, message: str) -> None:
    try:
        named = msgspec.json.decode(message, type=RequestedSkip)
        async with engine.connect() as connection:
            operation = await operations.find(connection, named.ledger_id, named.operation_id)
        if operation and operation.kind == "skip" and operation.status == "running" and operation.event_position:
            await handler.handle(operation.ledger_id, [_request(operation, operation.event_position)])
    except (*POSTGRES_AND_REDIS_ERRORS, DaybookError, ValueError) as error:
        log.warning("a skip is recorded later", error=kind_of(error))


def _request(operation: ReadModelOperation, position: int) -> CommandRequest:
    metadata = {
        "command": SkipProjectionEvent.__name__,
        "request_id": operation.id,
        "principal": operation.principal,
        "key_id": None,
        "network": None,
    }
    command = SkipProjectionEvent(projection=operation.read_model, position=position, reason=operation.reason)
    return CommandRequest(command=command, reply_format=_SkipReply(), metadata=metadata, principal=operation.principal)
