"""The worker and the command API die between any two steps of a run. No run is lost, doubled or out of order.

They die at each step that has a name, and at random moments. `make prove` kills them more often at random.
"""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.due_runs import make_due_runs
from command_api.writer.ledger_writer import CommandHandler
from dev.daybook_processes import start_processes
from projector.projections.registry import PROJECTIONS_BY_NAME
from shared.log.schedule_events import ScheduleCreated
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from tests.harness import log
from tests.harness.await_points import Moment, Point
from tests.harness.log import Book
from tests.harness.mortal_schedulers import keep_scheduling
from tests.harness.mortal_workers import Fate
from tests.harness.nursery import Nursery, meanwhile, nursery
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.running import Stack

pytestmark = pytest.mark.services

DAYS = 2_000
AMOUNT = 3
BALANCE = 10_000
"""Enough for all runs."""

RUNS = text("""
    SELECT coalesce(data->>'number', data->'run'->>'number')::int, coalesce(data->>'due_at', data->>'occurred_at') FROM events
    WHERE type = 'ScheduleRunRefused' OR (type = 'FundsTransferred' AND data->'run' IS NOT NULL) ORDER BY position
""")


async def runs(engine: AsyncEngine) -> list[tuple[int, str]]:
    async with engine.connect() as connection:
        return [(number, due_at) for number, due_at in (await connection.execute(RUNS)).all()]


@pytest.mark.proof(2, 40)
async def test_no_run_is_lost_doubled_or_out_of_order_when_processes_die(stack: Stack, repetitions: int) -> None:
    """A daily schedule has missed years of runs. While they are caught up, both processes die again and again."""
    book = Book(7)
    today = datetime.now(UTC).date()
    first = today - timedelta(days=DAYS - 1)
    owner = book.create_user()
    payer, payee = (book.open_account(owner.user_id) for _ in range(2))
    rule = ScheduleRule("day", "00:00", "UTC", until=today.isoformat())
    run = PlannedRun(f"{first}T00:00:00.000000Z", first.isoformat())
    planned = msgspec.structs.replace(book.plan(payer, payee.account_id, AMOUNT), rule=rule, next_run=run)
    async with open_postgres(stack.settings, "daybook_command") as engine, open_redis(stack.settings) as redis:
        await log.append(engine, [owner, payer, payee, book.deposit(payer.account_id, BALANCE), planned])
        for _ in range(repetitions):
            made = len(await runs(engine))
            due = DueRun(f"{first + timedelta(days=made)}T00:00:00.000000Z", planned.schedule_id, made + 1)
            await redis.publish(DUE_RUNS_CHANNEL, msgspec.json.encode(DueRuns("main", [due, due])))
            await asyncio.sleep(random.SystemRandom().uniform(0, 0.5))
            await asyncio.gather(stack.command.kill(), stack.worker.kill())
            await start_processes(stack.command, stack.worker)
        assert len(await runs(engine)) < DAYS, "the processes died too late"
        while len(await runs(engine)) < DAYS:
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        found = await runs(engine)
        assert [number for number, _ in found] == list(range(1, DAYS + 1))
        assert [due_at[:10] for _, due_at in found] == [(first + timedelta(days=day)).isoformat() for day in range(DAYS)]
        async with engine.connect() as connection:
            moved = await connection.scalar(text("SELECT sum((data->>'amount')::int) FROM events WHERE data->'run' IS NOT NULL"))
            assert moved == AMOUNT * min(DAYS, BALANCE // AMOUNT)


# ── each step of one run ─────────────────────────────────────────────────────────────────────────────────────────────


class Step(NamedTuple):
    """A place on the way of a run. `asleep`: the process has asked and has no answer yet. `awake`: it has only just got it.

    A driver may ask several times at one place, for example to prepare a statement: `nth` says which time is meant.
    """

    name: str
    point: Point
    moment: Moment
    nth: int = 1


STEPS: Final = (
    Step("the ledgers are asked for", Point("DueTeller.tell", 2), "asleep"),
    Step("the due runs are asked for", Point("_first", 1), "asleep"),
    Step("the due runs are read", Point("_first", 1), "awake"),
    Step("the run is sent to the command API", Point("DueTeller.tell", 4), "asleep", 2),
    Step("Redis has taken the run", Point("DueTeller.tell", 4), "awake", 2),
    Step("the command API has heard of the run", Point("_make", 1), "asleep"),
    Step("the transaction begins", Point("BatchTransaction._decide_and_append", 2), "asleep"),
    Step("the run is decided", Point("BatchTransaction._decide_and_append", 6), "asleep"),
    Step("the run is sent to PostgreSQL", Point("BatchTransaction._decide_and_append", 6), "asleep", 2),
    Step("PostgreSQL has the run", Point("BatchTransaction._decide_and_append", 6), "awake", 2),
    Step("COMMIT is sent", Point("BatchTransaction._decide_on_locks", 2), "asleep"),
    Step("the run is recorded", Point("LedgerWriter._run", 3), "awake"),
    Step("the run is answered", Point("LedgerWriter.replies_to", 1), "awake"),
)
RECORDED: Final = STEPS[-3:]
"""After these steps, the run is recorded although its process has died."""

LIFE_SECONDS: Final = 30.0
"""A process that does not come to its step ends after this time."""

RUNS_OF_EACH = text("""
    SELECT coalesce(data->>'schedule_id', data->'run'->>'schedule_id') FROM events
    WHERE type IN ('ScheduleRunRefused', 'FundsTransferred')
""")


async def runs_of_each(engine: AsyncEngine) -> Counter[str]:
    """Returns how many runs each schedule has. A transfer that is no run counts as one of the schedule None."""
    async with engine.connect() as connection:
        return Counter((await connection.execute(RUNS_OF_EACH)).scalars())


async def has_run(engine: AsyncEngine, planned: ScheduleCreated) -> bool:
    return planned.schedule_id in await runs_of_each(engine)


async def die_at(schedulers: Nursery, step: Step) -> None:
    before = len(schedulers.notes())
    pid = await schedulers.start(Fate(*step.point, moment=step.moment, nth=step.nth, life=LIFE_SECONDS))

    async def has_ended() -> bool:
        return not schedulers.is_alive(pid)

    await eventually(has_ended)
    assert step.point in schedulers.notes()[before:], f"no process came to the step «{step.name}»"


def due(planned: ScheduleCreated) -> DueRun:
    return DueRun(planned.next_run.due_at, planned.schedule_id, 1)


def weekly(planned: ScheduleCreated, hour: int) -> ScheduleCreated:
    """Returns the schedule with a run that was due yesterday at this hour, and the next one in six days."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    rule = ScheduleRule("week", f"{hour:02d}:00", "UTC", day.isoweekday())
    return msgspec.structs.replace(planned, rule=rule, next_run=PlannedRun(f"{day}T{rule.time}:00.000000Z", day.isoformat()))


@pytest.mark.slow
async def test_a_run_is_made_once_whatever_step_its_process_dies_at(settings: Settings, tmp_path: Path) -> None:
    """At each step of its own run, a process is killed and another one goes on. At the end, every run is asked for twice more."""
    book = Book(8)
    owner = book.create_user()
    payer, payee = (book.open_account(owner.user_id) for _ in range(2))
    *plans, last = [weekly(book.plan(payer, payee.account_id, AMOUNT), hour) for hour in range(len(STEPS) + 1)]
    quick = settings.model_copy(update={"projector_look_ms": 50})
    async with open_ledger(quick) as ledger, ledger.followed(PROJECTIONS_BY_NAME["schedules"]):
        await ledger.append([owner, payer, payee, book.deposit(payer.account_id, BALANCE)])
        handler = CommandHandler(ledger.writer, settings, lambda _: None)
        with nursery(tmp_path, settings, "tests.harness.mortal_schedulers") as schedulers:
            for step, planned in zip(STEPS, plans, strict=True):
                await ledger.append([planned])
                await die_at(schedulers, step)
                if step in RECORDED:
                    await eventually(partial(has_run, ledger.writer, planned), about=step.name)
                else:
                    assert not await has_run(ledger.writer, planned), step.name
                async with meanwhile(keep_scheduling(ledger.stores, handler)):
                    await eventually(partial(has_run, ledger.writer, planned), about=step.name)
        await ledger.append([last])
        await _ask_again(ledger, handler, plans, last)
        await handler.close()
        assert await runs_of_each(ledger.writer) == Counter(planned.schedule_id for planned in [*plans, last])


async def _ask_again(ledger: Ledger, handler: CommandHandler, plans: list[ScheduleCreated], last: ScheduleCreated) -> None:
    """Asks for the runs twice, and waits for the run of the last schedule, which is made after all others."""
    message = msgspec.json.encode(DueRuns("main", [*map(due, plans), *map(due, plans), due(last)]))
    async with meanwhile(make_due_runs(ledger.stores.redis, handler)):
        await eventually(partial(ledger.stores.redis.publish, DUE_RUNS_CHANNEL, message))
        await eventually(partial(has_run, ledger.writer, last))
