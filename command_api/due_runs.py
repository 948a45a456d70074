"""Makes the runs of schedules that are due. The worker finds them and publishes them: see `projector.due`.

The rule decides by PostgreSQL's clock and by the number of the run, so a message can be wrong, late or twice, and several command
APIs can hear it: no run is made twice or before its moment. Missed runs are caught up in the order in which they were due, also
across the schedules of a message. If the writer has too much to do, or this process dies between two runs, the worker publishes
the next run again.
"""

from functools import partial
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis

from command_api.domain.schedule import RunSchedule, ScheduleState
from command_api.worker_messages import hear
from command_api.writer.command_request import CommandRequest, Outcome, Reply
from command_api.writer.ledger_writer import CommandHandler
from shared.errors import DaybookError, Rejection
from shared.ids import new_id
from shared.ledger_errors import LedgerIsClosed
from shared.log.streams import schedule_stream
from shared.logs import kind_of
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp

log = structlog.get_logger()

PRINCIPAL: Final = "process:command-api"


class _NextRun(msgspec.Struct, frozen=True):
    """A reply format for a run: the next run of its schedule, if that is due too. It must not raise, as in `expired_holds`."""

    schedule_id: str

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        schedule: ScheduleState = outcome.states[schedule_stream(self.schedule_id)]
        if schedule.next_run is None or schedule.next_run.due_at > timestamp(outcome.recorded_at):
            return 200, b""
        return 200, msgspec.json.encode(DueRun(schedule.next_run.due_at, self.schedule_id, schedule.runs + 1))

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        if not isinstance(rejection, LedgerIsClosed):
            log.warning("a run of a schedule cannot be made", error=kind_of(rejection))
        return 409, b""


async def make_due_runs(redis: "Redis", handler: CommandHandler) -> None:
    """Listens to the worker and makes the runs that it finds, for ever. While Redis does not answer, none is made."""
    await hear(redis, DUE_RUNS_CHANNEL, partial(_make, handler))


async def _make(handler: CommandHandler, message: str) -> None:
    """Makes the runs of one message and all that follow them, those that were due first at the beginning."""
    try:
        due = msgspec.json.decode(message, type=DueRuns)
        runs = sorted(due.runs)
        while runs:
            first = [run for run in runs if run.due_at == runs[0].due_at]
            replies: list[Reply] = await handler.handle(due.ledger_id, [_request(run) for run in first])
            following = [msgspec.json.decode(reply.body, type=DueRun) for reply in replies if reply.body]
            runs = sorted([*following, *runs[len(first) :]])
    except (*POSTGRES_AND_REDIS_ERRORS, DaybookError, ValueError) as error:
        log.warning("runs of schedules are made later", error=kind_of(error))


def _request(run: DueRun) -> CommandRequest:
    metadata = {
        "command": RunSchedule.__name__,
        "request_id": new_id(),
        "principal": PRINCIPAL,
        "key_id": None,
        "network": None,
    }
    command = RunSchedule(id=new_id(), schedule_id=run.schedule_id, number=run.number)
    return CommandRequest(command=command, reply_format=_NextRun(run.schedule_id), metadata=metadata, principal=PRINCIPAL)
