"""The rules of schedules, without a server: a run takes effect once, in order, when it is due."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from command_api.domain.account import FreezeAccount, UnfreezeAccount
from command_api.domain.command import Command
from command_api.domain.ledger import decide_in
from command_api.domain.past_decisions import PastDecisions
from command_api.domain.schedule import (
    CancelSchedule,
    ChangeSchedule,
    CreateSchedule,
    NewSchedule,
    RequestedRule,
    RunSchedule,
    ScheduleChanges,
)
from command_api.domain.stream_folds import at_moment
from shared import errors
from shared.log.event_struct import ScheduledRun
from shared.log.events import Event
from shared.log.ledger_state import LedgerState
from shared.log.money_events import FundsTransferred
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged, ScheduleCreated, ScheduleRunRefused
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.timestamps import timestamp
from tests.command_api.test_deciders import (
    ADA,
    CLOSED,
    DOLLARS,
    FREE,
    FROZEN,
    ONE,
    TWO,
    FoldedStates,
    created,
    deposit,
    deposited,
    opened,
)

ID = "00000000-0000-0000-0000-0000000000d1"
RULE = {"every": "day", "time": "09:00", "time_zone": "UTC"}
DAILY = ScheduleRule("day", "09:00", "UTC")


def day(number: int) -> str:
    return f"2026-01-{number:02d}T09:00:00.000000Z"


def run_of(number: int) -> PlannedRun:
    return PlannedRun(day(number), f"2026-01-{number:02d}")


NOW = "2026-01-01T10:00:00.000000Z"


def decided(command: Command, *past: Event, now: str = NOW) -> list[Event]:
    """What the command leads to at a moment. It gets only the states of the streams that it names, as the writer does."""
    states = FoldedStates(*past)
    first = {stream_id: at_moment(states[stream_id], now) for stream_id in command.streams()}
    return command.decide(first | {each: at_moment(states[each], now) for each in command.further_streams(first)})


def create(**fields: Any) -> CreateSchedule:
    ends = {"from_account_id": ONE, "to_account_id": TWO, "amount": 10, "currency": "EUR"}
    timing = {} if "at" in fields else {"rule": RULE}
    body = {"id": ID, **timing, **fields, "transfer": ends | fields.get("transfer", {})}
    return CreateSchedule(schedule=NewSchedule.model_validate(body))


def planned(**fields: Any) -> ScheduleCreated:
    facts: dict[str, Any] = {"amount": 10, "currency": "EUR", "next_run": run_of(2), "rule": DAILY}
    return ScheduleCreated(schedule_id=ID, owner_id=ADA, from_account_id=ONE, to_account_id=TWO, **facts | fields)


def change(**fields: Any) -> ChangeSchedule:
    return ChangeSchedule(schedule_id=ID, changes=ScheduleChanges.model_validate(fields))


def run(number: int = 1) -> RunSchedule:
    return RunSchedule(id=FREE, schedule_id=ID, number=number)


def made(number: int, balance: int, **fields: Any) -> FundsTransferred:
    facts: dict[str, Any] = {
        "transfer_id": FREE,
        "amount": 10,
        "occurred_at": day(number + 1),
        "to_balance": 10 * number,
        "run": ScheduledRun(ID, number, run_of(number + 2)),
    }
    ends: dict[str, Any] = {"from_account_id": ONE, "to_account_id": TWO, "currency": "EUR"}
    return FundsTransferred(from_balance=balance, **ends, **facts | fields)


def refused(number: int, code: str, **fields: Any) -> ScheduleRunRefused:
    facts: dict[str, Any] = {"due_at": day(number + 1), "next_run": run_of(number + 2)}
    return ScheduleRunRefused(schedule_id=ID, number=number, code=code, **facts | fields)


TWO_OPEN: list[Event] = [opened(), opened(TWO)]
RICH: list[Event] = [*TWO_OPEN, deposited(15), planned()]
ENDED: list[Event] = [*TWO_OPEN, planned(), ScheduleCancelled(schedule_id=ID, runs=0)]


def test_a_run_above_the_limit_of_its_ledger_is_refused_and_the_next_one_follows() -> None:
    command, states = run(), FoldedStates(*RICH)
    first = {stream_id: at_moment(states[stream_id], day(2)) for stream_id in command.streams()}
    due = first | {stream_id: at_moment(states[stream_id], day(2)) for stream_id in command.further_streams(first)}
    limited = LedgerState(transfer_max={"EUR": 9})
    assert decide_in(limited, 4, command, due) == [refused(1, "ledger-limit-exceeded")]


@pytest.mark.parametrize(
    ("past", "command", "now", "events"),
    [
        (TWO_OPEN, create(), NOW, [planned()]),
        (TWO_OPEN, create(at=day(9)), NOW, [planned(rule=None, next_run=PlannedRun(day(9)))]),
        (
            RICH,
            change(transfer={"amount": 7}),
            NOW,
            [ScheduleChanged(schedule_id=ID, to_account_id=TWO, amount=7, next_run=run_of(2), rule=DAILY)],
        ),
        (RICH, change(rule=RULE, transfer={"to_account_id": TWO, "amount": 10}), NOW, []),
        (
            RICH,
            change(rule=RULE | {"time": "11:00"}),
            NOW,
            [
                ScheduleChanged(
                    schedule_id=ID,
                    to_account_id=TWO,
                    amount=10,
                    next_run=PlannedRun("2026-01-01T11:00:00.000000Z", "2026-01-01"),
                    rule=ScheduleRule("day", "11:00", "UTC"),
                )
            ],
        ),
        (RICH, CancelSchedule(schedule_id=ID), day(9), [ScheduleCancelled(schedule_id=ID, runs=0)]),
        (RICH, run(), day(2), [made(1, 5)]),
        (RICH, run(), day(9), [made(1, 5)]),
        (RICH, run(), "2026-01-02T08:59:59.999999Z", []),
        (RICH, run(2), day(9), []),
        ([*RICH, made(1, 5)], run(), day(9), []),
        ([*RICH, made(1, 5, transfer_id=ID)], run(2), day(9), [refused(2, "insufficient-funds")]),
        ([*RICH, FROZEN], run(), day(2), [refused(1, "account-frozen")]),
        ([*TWO_OPEN, planned(), CLOSED], run(), day(2), [refused(1, "account-closed")]),
        ([*TWO_OPEN, planned(rule=None), CLOSED], run(), day(2), [refused(1, "account-closed", next_run=None)]),
        ([*RICH, refused(1, "account-frozen", next_run=None)], run(2), day(9), []),
        (ENDED, run(), day(9), []),
    ],
)
def test_a_command_leads_to_its_events(past: list[Event], command: Command, now: str, events: list[Event]) -> None:
    assert decided(command, *past, now=now) == events


@pytest.mark.parametrize(
    ("past", "command", "code"),
    [
        (TWO_OPEN, create(transfer={"to_account_id": ONE}), "same-account"),
        ([*TWO_OPEN, planned()], create(), "id-taken"),
        ([opened()], create(), "not-found"),
        ([*TWO_OPEN, CLOSED], create(), "account-closed"),
        ([*TWO_OPEN, FROZEN], create(), "account-frozen"),
        (TWO_OPEN, create(transfer={"currency": "USD"}), "currency-mismatch"),
        (TWO_OPEN, create(rule=RULE | {"time_zone": "Europe/Atlantis"}), "time-zone-unknown"),
        (TWO_OPEN, create(at=NOW), "schedule-never-due"),
        (TWO_OPEN, create(rule=RULE | {"until": "2026-01-01"}), "schedule-never-due"),
        ([], change(), "not-found"),
        (ENDED, change(), "schedule-not-active"),
        (RICH, change(transfer={"to_account_id": ONE}), "same-account"),
        (RICH, change(transfer={"to_account_id": FREE}), "not-found"),
        ([*RICH, opened(DOLLARS, "USD")], change(transfer={"to_account_id": DOLLARS}), "currency-mismatch"),
        (RICH, change(at="2026-01-01T00:00:00Z"), "schedule-never-due"),
        ([*TWO_OPEN, planned(next_run=run_of(1))], change(at=day(9)), "schedule-run-due"),
        ([], CancelSchedule(schedule_id=ID), "not-found"),
        (ENDED, CancelSchedule(schedule_id=ID), "schedule-not-active"),
        ([], run(), "not-found"),
    ],
)
def test_a_rejection_has_its_code(past: list[Event], command: Command, code: str) -> None:
    with pytest.raises(errors.Rejection) as rejection:
        decided(command, *past)
    assert rejection.value.code == code


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "week"},
        {"every": "week", "day": 8},
        {"every": "month"},
        {"every": "month", "day": 32},
        {"every": "day", "day": 1},
        {"weekend": "before"},
        {"time": "24:00"},
        {"time": "9:00"},
        {"time_zone": "../etc/passwd"},
        {"time_zone": ""},
        {"starts_on": "2026-02-30"},
        {"until": "2200-01-01"},
        {"until": "1899-12-31"},
        {"starts_on": "2026-02-02", "until": "2026-02-01"},
        {"unknown": 1},
    ],
)
def test_a_rule_that_means_nothing_is_invalid(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RequestedRule.model_validate(RULE | fields)


def test_a_schedule_has_either_a_moment_or_a_rule() -> None:
    transfer = {"from_account_id": ONE, "to_account_id": TWO, "amount": 1, "currency": "EUR"}
    for timing in ({}, {"at": day(1), "rule": RULE}):
        with pytest.raises(ValidationError):
            NewSchedule.model_validate({"transfer": transfer, **timing})
    with pytest.raises(ValidationError):
        change(at=day(1), rule=RULE)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "again", "amount", "time", "freeze", "pay", "cancel"]), st.integers(0, 3), st.integers(1, 30)
    ),
    max_size=40,
)


@given(STEPS)
def test_no_run_is_lost_doubled_or_out_of_order(steps: list[tuple[str, int, int]]) -> None:
    """After any commands, the runs are numbered without a gap and due in order, and the log is decided again as it is."""
    states, past = FoldedStates(), PastDecisions()
    log: list[Event] = []
    minutes = 0

    def take(event: Event, now: str) -> None:
        log.append(event)
        states.take(event)
        past.decide_again(len(log), event, now)

    for first in (created(), opened(), opened(TWO)):
        take(first, NOW)
    commands: list[Command] = [create()]
    for number, (kind, days, amount) in enumerate([("create", 0, 0), *steps]):
        minutes += days * 24 * 60 + 1
        now = timestamp(datetime.fromisoformat(NOW) + timedelta(minutes=minutes))
        runs = states[f"schedule-{ID}"].runs
        new = f"{number:08d}-0000-0000-0000-000000000000"
        commands = commands if kind == "create" else _commands(kind, new, runs, amount)
        for command in commands:
            needed = {stream_id: at_moment(states[stream_id], now) for stream_id in command.streams()}
            needed |= {each: at_moment(states[each], now) for each in command.further_streams(needed)}
            try:
                events = command.decide(needed)
            except errors.Rejection:
                continue
            for event in events:
                take(event, now)
    runs_made = [found for each in log if (found := _number_and_moment(each))]
    assert [number for number, _ in runs_made] == list(range(1, states[f"schedule-{ID}"].runs + 1))
    due = [due_at for _, due_at in runs_made]
    assert due == sorted(set(due))


def _number_and_moment(event: Event) -> tuple[int, str] | None:
    match event:
        case FundsTransferred() if event.run:
            return event.run.number, event.occurred_at or ""
        case ScheduleRunRefused():
            return event.number, event.due_at
    return None


def _commands(kind: str, new: str, runs: int, amount: int) -> list[Command]:
    match kind:
        case "run":
            return [RunSchedule(id=new, schedule_id=ID, number=runs + 1)] * 2
        case "again":
            return [RunSchedule(id=new, schedule_id=ID, number=runs)]
        case "amount":
            return [change(transfer={"amount": amount})]
        case "time":
            return [change(rule=RULE | {"time": f"{amount % 24:02d}:00"})]
        case "cancel":
            return [CancelSchedule(schedule_id=ID)] if amount == 1 else []
        case "freeze":
            return [FreezeAccount(account_id=ONE) if amount % 2 else UnfreezeAccount(account_id=ONE)]
    return [deposit(amount, id=new)]
