"""Schedules over HTTP: what is answered, and runs that take effect once, with several command APIs and after a standstill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.log.account_events import AccountOpened
from shared.log.heads import read_head
from shared.log.schedule_events import ScheduleCreated
from shared.privacy.person_keys import PersonKeys
from shared.read_models.channels import DUE_RUNS_CHANNEL, DueRun, DueRuns
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from tests.harness import log
from tests.harness.clients import Commands, command_api, created
from tests.harness.log import Book

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings, is_patient=True) as api:
        yield api


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def plan(api: Commands, payer: str, payee: str, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"idempotency_key": key} if key else {}
    transfer = {"from_account_id": payer, "to_account_id": payee, "amount": 10, "currency": "EUR", "reference": "rent"}
    return await api.post("/v1/schedules", {"transfer": transfer, **fields}, **headers)


async def runs(engine: AsyncEngine) -> list[tuple[str, str]]:
    """The moment and the outcome of each run, in the order of the log."""
    sql = """
        SELECT coalesce(data->>'due_at', data->>'occurred_at'), coalesce(data->>'code', 'moved') FROM events
        WHERE type = 'ScheduleRunRefused' OR (type = 'FundsTransferred' AND data->'run' IS NOT NULL) ORDER BY position
    """
    async with engine.connect() as connection:
        return [(due_at, outcome) for due_at, outcome in (await connection.execute(text(sql))).all()]


async def fault_of_log(settings: Settings) -> str:
    """Decides the whole log again, with all stored replies. Returns what is wrong with them, or nothing."""
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, "main")).position
        _, replies = await verify_events(connection, "main", head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


DAILY = {"every": "month", "day": 31, "time": "09:00", "time_zone": "Europe/Berlin"}


async def test_a_schedule_is_created_changed_and_cancelled(api: Commands, settings: Settings) -> None:
    payer, payee, other = await api.account(balance=100), await api.account(), await api.account()
    made = await plan(api, payer, payee, "plan", rule=DAILY | {"starts_on": "2198-02-01"})
    schedule_id, body = created(made), made.json()
    assert made.headers["location"].endswith(f"/v1/schedules/{schedule_id}")
    assert (made.headers["etag"], body["status"], body["run_count"]) == ('"v1"', "active", 0)
    assert body["next_run_at"] == "2198-02-28T08:00:00.000000Z"
    assert body["rule"] == DAILY | {"starts_on": "2198-02-01", "until": None, "weekend": "same"}
    assert (await plan(api, payer, payee, "plan", rule=DAILY | {"starts_on": "2198-02-01"})).content == made.content
    assert code(await plan(api, payer, payee, "plan", rule=DAILY)) == "idempotency-key-reused"
    missing = await api.client.post("/v1/schedules", json={"transfer": body["transfer"], "rule": DAILY})
    assert code(missing) == "idempotency-key-required"

    path = f"/v1/schedules/{schedule_id}"
    changed = await api.client.patch(path, json={"transfer": {"amount": 7, "to_account_id": other}, "at": "2199-01-01T00:00:00Z"})
    assert (changed.status_code, changed.json()["transfer"]["amount"], changed.json()["rule"]) == (200, 7, None)
    assert changed.json()["next_run_at"] == "2199-01-01T00:00:00.000000Z"
    same = await api.client.patch(path, json={"transfer": {"amount": 7}}, headers={"idempotency-key": "without effect"})
    assert same.json() == changed.json()
    stale = await api.client.patch(path, json={"transfer": {"amount": 8}}, headers={"if-match": '"v1"'})
    assert (stale.status_code, code(stale)) == (412, "stream-version-mismatch")
    cancelled = (await api.post(f"{path}/cancel")).json()
    assert (cancelled["status"], cancelled["next_run_at"], cancelled["version"]) == ("cancelled", None, 3)
    again = (await api.post(f"{path}/cancel")).json()
    assert (again["code"], again["schedule_status"]) == ("schedule-not-active", "cancelled")
    assert await fault_of_log(settings) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "validation-failed"),
        ({"at": "2199-01-01T00:00:00Z", "rule": DAILY}, "validation-failed"),
        ({"at": "2020-01-01T00:00:00Z"}, "schedule-never-due"),
        ({"at": "tomorrow"}, "validation-failed"),
        ({"rule": DAILY | {"day": 0}}, "validation-failed"),
        ({"rule": DAILY | {"day": True}}, "validation-failed"),
        ({"rule": DAILY | {"every": "year"}}, "validation-failed"),
        ({"rule": DAILY | {"until": "2020-01-01"}}, "schedule-never-due"),
        ({"rule": DAILY | {"time_zone": "Europe/Atlantis"}}, "time-zone-unknown"),
        ({"rule": DAILY | {"time_zone": "../../etc/passwd"}}, "validation-failed"),
    ],
)
async def test_a_schedule_that_means_nothing_is_refused_and_nothing_is_written(
    api: Commands, engine: AsyncEngine, fields: dict[str, Any], expected: str
) -> None:
    payer, payee = await api.account(), await api.account()
    answer = await plan(api, payer, payee, **fields)
    assert (answer.status_code, code(answer)) == (422, expected)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM events WHERE type LIKE 'Schedule%'")) == 0


async def record_past(settings: Settings, payer: str, payee: str, amount: int, first: int) -> ScheduleCreated:
    """Records a daily schedule whose first run was due some days ago, as after a standstill."""
    today = datetime.now(UTC).date()
    day = today - timedelta(days=first)
    rule = ScheduleRule("day", "00:00", "UTC", until=today.isoformat())
    planned = Book(first).plan(AccountOpened(account_id=payer, owner_id=payee, currency="EUR", overdraft_limit=0), payee, amount)
    run = PlannedRun(f"{day}T00:00:00.000000Z", day.isoformat())
    planned = msgspec.structs.replace(planned, rule=rule, next_run=run)
    async with open_postgres(settings, "daybook_command") as writer:
        await log.append(writer, [planned])
    return planned


async def tell(settings: Settings, *due: DueRun) -> None:
    async with open_redis(settings) as redis:
        await redis.publish(DUE_RUNS_CHANNEL, msgspec.json.encode(DueRuns("main", list(due))))


async def test_missed_runs_are_caught_up_in_order_once_by_several_command_apis(settings: Settings, engine: AsyncEngine) -> None:
    """Every message is heard by three command APIs, and comes twice. A run that is refused does not stop those after it."""
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(command_api(settings, is_patient=True)) for _ in range(3)]
        payer, payee = await apis[0].account(balance=65), await apis[0].account()
        planned = [await record_past(settings, payer, payee, 10, days) for days in (4, 6)]
        due = [DueRun(each.next_run.due_at, each.schedule_id, 1) for each in planned]
        while len(await runs(engine)) < 12:
            await tell(settings, *due, *reversed(due))
            await asyncio.sleep(0.5)
        await tell(settings, *due)
        await asyncio.sleep(0.5)
    found = await runs(engine)
    assert len(found) == 12
    for schedule, count in zip(planned, (5, 7), strict=True):
        async with engine.connect() as connection:
            sql = "SELECT count(*) FROM stream_events WHERE stream_id = :id"
            assert await connection.scalar(text(sql), {"id": f"schedule-{schedule.schedule_id}"}) == count + 1
    assert [outcome for _, outcome in found] == ["moved"] * 6 + ["insufficient-funds"] * 6


async def test_one_command_api_makes_the_runs_of_all_schedules_in_the_order_of_their_moments(
    api: Commands, settings: Settings, engine: AsyncEngine
) -> None:
    payer, payee = await api.account(balance=1_000), await api.account()
    planned = [await record_past(settings, payer, payee, 10, days) for days in (3, 5, 4)]
    due = [DueRun(each.next_run.due_at, each.schedule_id, 1) for each in planned]
    while len(await runs(engine)) < 15:
        if not await runs(engine):
            await tell(settings, *due)
        await asyncio.sleep(0.5)
    moments = [due_at for due_at, _ in await runs(engine)]
    assert moments == sorted(moments)


@pytest.mark.slow
async def test_a_run_is_not_made_before_its_moment_and_then_moves_money_at_that_moment(
    api: Commands, settings: Settings, engine: AsyncEngine
) -> None:
    payer, payee = await api.account(balance=100), await api.account()
    for seconds in (4, 10, 30):
        made = await plan(api, payer, payee, at=soon(seconds))
        if made.status_code == 201:
            break
    schedule_id, due_at = created(made), made.json()["next_run_at"]
    await tell(settings, DueRun(due_at, schedule_id, 1), DueRun(due_at, payer, 1))
    assert await runs(engine) == []
    while not await runs(engine):
        await tell(settings, DueRun(due_at, schedule_id, 1), DueRun(due_at, schedule_id, 2))
        await asyncio.sleep(0.2)
    assert await runs(engine) == [(due_at, "moved")]
    seen = (await api.post(f"/v1/accounts/{payee}/unfreeze")).json()["balance"]
    assert seen["posted"] == 10
    assert (await api.post(f"/v1/schedules/{schedule_id}/cancel")).json()["schedule_status"] == "ended"
    assert await fault_of_log(settings) == ""


async def test_a_cancelled_schedule_makes_no_missed_run(api: Commands, settings: Settings, engine: AsyncEngine) -> None:
    payer, payee = await api.account(balance=100), await api.account()
    planned = await record_past(settings, payer, payee, 10, 3)
    path = f"/v1/schedules/{planned.schedule_id}"
    assert code(await api.client.patch(path, json={"at": "2199-01-01T00:00:00Z"})) == "schedule-run-due"
    assert (await api.post(f"{path}/cancel")).json()["status"] == "cancelled"
    await tell(settings, DueRun(planned.next_run.due_at, planned.schedule_id, 1))
    await asyncio.sleep(0.5)
    assert await runs(engine) == []
