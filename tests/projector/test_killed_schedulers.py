"""The worker and the command API die between any two steps of a run. No run is lost, doubled or out of order.

`make prove` kills them more often.
"""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.daybook_processes import start_processes
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from tests.harness import log
from tests.harness.log import Book
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
