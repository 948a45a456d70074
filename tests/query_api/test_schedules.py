"""Schedules and their runs as the query API answers them, on real stores with the real projector."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from projector.due import SCHEDULED_RUNS, tell_due
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged, ScheduleRunRefused
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

RULE = ScheduleRule("day", "09:00", "UTC")


def run_of(day: int) -> PlannedRun:
    return PlannedRun(f"2026-01-{day:02d}T09:00:00.000000Z", f"2026-01-{day:02d}")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


async def test_a_schedule_shows_its_next_run_and_all_its_runs_also_those_that_were_refused(api: Questions) -> None:
    book = Book()
    payer, payee, other = (book.open_account(book.new_id()) for _ in range(3))
    daily = msgspec.structs.replace(book.plan(payer, payee.account_id, 10), rule=RULE, next_run=run_of(1))
    once = book.plan(other, payee.account_id, 3)
    refused = ScheduleRunRefused(
        schedule_id=daily.schedule_id, number=2, due_at=run_of(2).due_at, code="account-frozen", next_run=run_of(3)
    )
    made = book.run(daily, 1, run_of(1).due_at, run_of(2))
    await api.record([payer, payee, other, book.deposit(payer.account_id, 20), daily, once, made, refused])
    found = await api.get(f"/v1/schedules/{daily.schedule_id}")
    assert (found["status"], found["next_run_at"], found["version"]) == ("active", run_of(3).due_at, 3)
    assert (found["run_count"], found["refused_count"]) == (2, 1)
    assert found["transfer"]["amount"] == 10
    assert found["rule"] == {
        "every": "day",
        "day": None,
        "time": "09:00",
        "time_zone": "UTC",
        "weekend": "same",
        "starts_on": None,
        "until": None,
    }
    assert [(run["number"], run["due_at"], run["transfer_id"], run["refused"]) for run in found["runs"]] == [
        (2, run_of(2).due_at, None, "account-frozen"),
        (1, run_of(1).due_at, made.transfer_id, None),
    ]
    transfers = (await api.get("/v1/transfers"))["items"]
    assert [each["schedule_id"] for each in transfers] == [daily.schedule_id, None]
    first = await api.get(f"/v1/schedules/{daily.schedule_id}", {"limit": 1})
    second = await api.get(f"/v1/schedules/{daily.schedule_id}", {"limit": 1, "cursor": first["next"]})
    assert [run["number"] for run in first["runs"] + second["runs"]] == [2, 1]

    changed = ScheduleChanged(
        schedule_id=once.schedule_id, to_account_id=payer.account_id, amount=4, next_run=PlannedRun("2198-01-01T00:00:00.000000Z")
    )
    await api.record([changed, ScheduleCancelled(schedule_id=daily.schedule_id, runs=2)])

    async def schedules(**parameters: Any) -> list[str]:
        return [each["id"] for each in (await api.get("/v1/schedules", parameters))["items"]]

    assert await schedules(status="active") == await schedules(account_id=other.account_id) == [once.schedule_id]
    assert await schedules(status="cancelled") == await schedules(counterparty=payee.account_id) == [daily.schedule_id]
    assert await schedules(counterparty=payer.account_id) == [once.schedule_id]
    assert await schedules(sort="created_at") == [daily.schedule_id, once.schedule_id]
    seen = await api.get(f"/v1/schedules/{once.schedule_id}")
    assert (seen["rule"], seen["next_run_at"], seen["transfer"]["amount"]) == (None, "2198-01-01T00:00:00.000000Z", 4)


async def test_the_worker_tells_the_next_run_of_each_schedule_that_is_due(api: Questions) -> None:
    """The runs come in the order in which they were due. A schedule that is not due, was cancelled or has ended is not named."""
    book = Book()
    payer, payee = (book.open_account(book.new_id()) for _ in range(2))
    planned = [
        msgspec.structs.replace(book.plan(payer, payee.account_id, 10), rule=RULE, next_run=run_of(day)) for day in (3, 2, 1)
    ]
    later = book.plan(payer, payee.account_id, 10)
    made = book.run(planned[0], 1, run_of(3).due_at, run_of(4))
    over = book.run(planned[1], 1, run_of(2).due_at)
    await api.record([payer, payee, book.deposit(payer.account_id, 20), *planned, later, made, over])
    await api.get("/v1/schedules")
    async with api.stores.redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(DUE_RUNS_CHANNEL)
        assert await tell_due(api.stores, SCHEDULED_RUNS) == 2
        message = None
        while message is None:
            message = await channel.get_message(timeout=120)
    first, second = DueRun(run_of(1).due_at, planned[2].schedule_id, 1), DueRun(run_of(4).due_at, planned[0].schedule_id, 2)
    assert msgspec.json.decode(message["data"], type=DueRuns) == DueRuns("main", [first, second])
    await api.record([ScheduleCancelled(schedule_id=each.schedule_id, runs=0) for each in (planned[0], planned[2])])
    await api.get("/v1/schedules")
    assert await tell_due(api.stores, SCHEDULED_RUNS) == 0
