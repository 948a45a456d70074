"""The decider for schedules. A schedule transfers money at a moment, or again and again by a rule.

The stream of a schedule is `schedule-<schedule_id>`. Its state knows the next run and how many runs there were. A run is decided
by its number and recorded with the number of the run, so that it takes effect once, however often it is asked for. A run that a
rule rejects is recorded as refused, and the schedule goes on with its next run.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal, Self, assert_never

import msgspec
from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, model_validator
from pydantic_core import PydanticCustomError

from command_api.domain.account import require_account, require_usable
from command_api.domain.command import Command, States
from command_api.domain.command_fields import Metadata, PositiveAmount, StrictFields
from command_api.domain.transfer import TransferFunds
from shared import errors
from shared.ids import new_id
from shared.input_types import Currency, Id, Moment
from shared.log.event_struct import ScheduledRun
from shared.log.events import Event
from shared.log.money_events import FundsTransferred
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged, ScheduleCreated, ScheduleEvent, ScheduleRunRefused
from shared.log.stream_fold import StreamFold
from shared.log.streams import account_stream, schedule_stream, transfer_stream
from shared.schedule_errors import ScheduleNeverDue, ScheduleNotActive, ScheduleRunDue
from shared.schedule_rules import FIRST_DATE, LAST_DATE, PlannedRun, ScheduleRule, first_run, run_after
from shared.text_types import Reference

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ScheduleState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a schedule. `amount` is in minor units. `runs` counts all runs, with those that were refused."""

    owner_id: str | None = None
    from_account_id: str = ""
    to_account_id: str = ""
    amount: int = 0
    currency: str = ""
    reference: str | None = None
    metadata: dict[str, str] | None = None
    rule: ScheduleRule | None = None
    next_run: PlannedRun | None = None
    runs: int = 0
    status: Literal["missing", "active", "cancelled", "ended"] = "missing"
    now: str = ""
    """The moment of a decision: see `stream_folds.at_moment`. It is empty in a fold of events."""


def evolve_schedule(state: ScheduleState, event: ScheduleEvent | FundsTransferred) -> ScheduleState:
    match event:
        case ScheduleCreated():
            names = (
                "owner_id",
                "from_account_id",
                "to_account_id",
                "amount",
                "currency",
                "reference",
                "metadata",
                "rule",
                "next_run",
            )
            return ScheduleState(**{name: getattr(event, name) for name in names}, status="active", now=state.now)
        case ScheduleChanged():
            fields = {name: getattr(event, name) for name in ("to_account_id", "amount", "rule", "next_run")}
            return msgspec.structs.replace(state, **fields)
        case ScheduleCancelled():
            return msgspec.structs.replace(state, next_run=None, status="cancelled")
        case ScheduleRunRefused():
            return _after_run(state, event.number, event.next_run)
        case FundsTransferred():
            return _after_run(state, event.run.number, event.run.next_run) if event.run else state
        case _:
            assert_never(event)


def _after_run(state: ScheduleState, number: int, next_run: PlannedRun | None) -> ScheduleState:
    status: Literal["active", "ended"] = "active" if next_run else "ended"
    return msgspec.structs.replace(state, runs=number, next_run=next_run, status=status)


SCHEDULE_FOLD: Final = StreamFold(1, ScheduleState(), evolve_schedule)

# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wrong(code: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(code, message)


def _known_date(value: str) -> str:
    try:
        is_known = FIRST_DATE <= date.fromisoformat(value) <= LAST_DATE
    except ValueError:
        is_known = False
    if not is_known:
        raise _wrong("date_invalid", f"Must be a date such as 2026-11-30, from {FIRST_DATE} to {LAST_DATE}")
    return value


RuleDate = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$", examples=["2026-11-30"]), AfterValidator(_known_date)]


class RequestedRule(StrictFields):
    """The rule by which a schedule runs. A day that a month does not have is the month's last day."""

    every: Literal["day", "week", "month"]
    day: Annotated[int, Field(ge=1, le=31, description="1 (Monday) to 7 of a week, or 1 to 31 of a month.")] | None = None
    time: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["09:00"], description="Local time.")]
    time_zone: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$",
            max_length=64,
            examples=["Europe/Berlin"],
            description="A name of the IANA time zone database.",
        ),
    ]
    weekend: Annotated[
        Literal["same", "before", "after"],
        Field(
            description="Of months only: whether a run on a Saturday or Sunday moves to the Friday before or the Monday after."
        ),
    ] = "same"
    starts_on: Annotated[RuleDate, Field(description="The first date that a run can have.")] | None = None
    until: Annotated[RuleDate, Field(description="The last date that a run can have, before it moves off a weekend.")] | None = (
        None
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        days = {"day": 0, "week": 7, "month": 31}[self.every]
        if (self.day is None) != (days == 0) or (self.day or 0) > days:
            raise _wrong("rule_day", "A rule of a week needs a day from 1 to 7, of a month from 1 to 31, and of a day none")
        if self.weekend != "same" and self.every != "month":
            raise _wrong("rule_weekend", "Only a rule of a month can move runs off a weekend")
        if self.starts_on and self.until and self.until < self.starts_on:
            raise _wrong("rule_until", "Must not end before it starts")
        return self

    def rule(self) -> ScheduleRule:
        return ScheduleRule(**self.model_dump())


class Timing(StrictFields):
    """When a schedule runs: once at a moment, or by a rule."""

    at: Annotated[Moment, Field(description="The moment of a single run. Either this or `rule`.")] | None = None
    rule: RequestedRule | None = None

    @property
    def has_timing(self) -> bool:
        return self.at is not None or self.rule is not None

    def first_run(self, now: str, recorded: PlannedRun | None) -> PlannedRun:
        """Returns the first run after a moment.

        Raises:
            ScheduleNeverDue: there is none.
            TimeZoneUnknown: this machine has no data of the time zone.
        """
        if self.rule:
            run = first_run(self.rule.rule(), now, recorded)
        else:
            run = PlannedRun(self.at) if self.at and self.at > now else None
        if run is None:
            raise ScheduleNeverDue(now=now)
        return run


class PlannedTransfer(StrictFields):
    """The transfer that each run makes."""

    from_account_id: Id
    to_account_id: Id
    amount: PositiveAmount
    currency: Currency
    reference: Reference | None = None
    metadata: Metadata | None = None


class NewSchedule(Timing):
    """The body of a request that creates a schedule."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "transfer": {
                    "from_account_id": "0198c5a0-0000-7000-8000-0000000000e1",
                    "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2",
                    "amount": 1250,
                    "currency": "EUR",
                    "reference": "rent",
                },
                "rule": {"every": "day", "time": "09:00", "time_zone": "Europe/Berlin", "until": "2199-06-30"},
            }
        }
    )

    id: Annotated[Id, Field(default_factory=new_id)]
    transfer: PlannedTransfer

    @model_validator(mode="after")
    def _is_once_or_by_a_rule(self) -> Self:
        if (self.at is None) == (self.rule is None):
            raise _wrong("schedule_timing", "Must have either at or rule")
        return self


class TransferChanges(StrictFields):
    """What changes of the transfer that each run makes. What is left out stays."""

    to_account_id: Id | None = None
    amount: PositiveAmount | None = None


class ScheduleChanges(Timing):
    """The body of a request that changes a schedule. What is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"transfer": {"amount": 1300, "to_account_id": "0198c5a0-0000-7000-8000-0000000000e2"}}}
    )

    transfer: TransferChanges = TransferChanges()

    @model_validator(mode="after")
    def _is_not_once_and_by_a_rule(self) -> Self:
        if self.at is not None and self.rule is not None:
            raise _wrong("schedule_timing", "Must not have both at and rule")
        return self


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


class CreateSchedule(Command):
    """Plans transfers. What the payer has available is looked at when they are due.

    Rejections, in this order: same-account, id-taken, not-found, account-closed, account-frozen, currency-mismatch,
    time-zone-unknown, schedule-never-due. Each rule checks the payer's account first.
    """

    schedule: NewSchedule
    recorded: InstanceOf[PlannedRun] | None = None
    """The first run as it was planned, if the schedule is decided again: see `shared.schedule_rules`."""

    def streams(self) -> tuple[str, ...]:
        ends = self.schedule.transfer.from_account_id, self.schedule.transfer.to_account_id
        return schedule_stream(self.schedule.id), *map(account_stream, ends)

    def new_streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule.id),)

    def owned_streams(self) -> tuple[str, ...]:
        """Returns only the payer's account, because customers may pay into the accounts of others."""
        return (account_stream(self.schedule.transfer.from_account_id),)

    def decide(self, states: States) -> list[Event]:
        wanted = self.schedule.transfer
        if wanted.from_account_id == wanted.to_account_id:
            raise errors.SameAccount
        schedule: ScheduleState = states[schedule_stream(self.schedule.id)]
        if schedule.status != "missing":
            raise errors.IdTaken
        payer, payee = require_account(states, wanted.from_account_id), require_account(states, wanted.to_account_id)
        require_usable((payer, payee), wanted.currency)
        return [
            ScheduleCreated(
                schedule_id=self.schedule.id,
                owner_id=payer.owner_id,
                next_run=self.schedule.first_run(schedule.now, self.recorded),
                rule=self.schedule.rule.rule() if self.schedule.rule else None,
                **wanted.model_dump(),
            )
        ]


class ScheduleCommand(Command):
    """The base of the commands on an existing schedule. `If-Match` is compared with the version of the schedule."""

    schedule_id: Id

    def streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)

    def owned_streams(self) -> tuple[str, ...]:
        return (schedule_stream(self.schedule_id),)

    def require_schedule(self, states: States) -> ScheduleState:
        schedule: ScheduleState = states[schedule_stream(self.schedule_id)]
        if schedule.status == "missing":
            raise errors.NotFound("There is no such schedule.", schedule_id=self.schedule_id)
        return schedule

    def require_active(self, states: States) -> tuple[ScheduleState, PlannedRun]:
        schedule = self.require_schedule(states)
        if schedule.next_run is None:
            raise ScheduleNotActive(schedule_status=schedule.status)
        return schedule, schedule.next_run


class ChangeSchedule(ScheduleCommand):
    """Changes all runs that are not recorded yet. A run that is due must be recorded before the moment or the rule changes.

    Rejections, in this order: not-found (the schedule), schedule-not-active, same-account, not-found (the payee), account-closed,
    account-frozen, currency-mismatch, schedule-run-due, time-zone-unknown, schedule-never-due.
    """

    changes: ScheduleChanges
    recorded: InstanceOf[PlannedRun] | None = None
    """The next run as it was planned, if the change is decided again: see `shared.schedule_rules`."""

    def streams(self) -> tuple[str, ...]:
        payee = self.changes.transfer.to_account_id
        return schedule_stream(self.schedule_id), *((account_stream(payee),) if payee else ())

    def decide(self, states: States) -> list[Event]:
        schedule, next_run = self.require_active(states)
        changed = self.changes.transfer
        if changed.to_account_id and changed.to_account_id != schedule.to_account_id:
            if changed.to_account_id == schedule.from_account_id:
                raise errors.SameAccount
            require_usable((require_account(states, changed.to_account_id),), schedule.currency)
        rule = self.changes.rule.rule() if self.changes.rule else None if self.changes.at else schedule.rule
        if rule != schedule.rule or (self.changes.at and self.changes.at != next_run.due_at):
            if next_run.due_at <= schedule.now:
                raise ScheduleRunDue(due_at=next_run.due_at)
            next_run = self.changes.first_run(schedule.now, self.recorded)
        after: dict[str, Any] = {
            "to_account_id": changed.to_account_id or schedule.to_account_id,
            "amount": changed.amount or schedule.amount,
            "rule": rule,
            "next_run": next_run,
        }
        if all(getattr(schedule, name) == value for name, value in after.items()):
            return []
        return [ScheduleChanged(schedule_id=self.schedule_id, **after)]


class CancelSchedule(ScheduleCommand):
    """Ends a schedule, also if a run is due that is not recorded yet. Rejections: not-found, schedule-not-active."""

    def decide(self, states: States) -> list[Event]:
        schedule, _ = self.require_active(states)
        return [ScheduleCancelled(schedule_id=self.schedule_id, runs=schedule.runs)]


class RunSchedule(ScheduleCommand):
    """Makes one run of a schedule, if it is the next one and is due. Otherwise it changes nothing.

    The run is a transfer, with the rules of one, at the moment when it was due. If a rule rejects it, that is recorded instead.
    Rejections: not-found (the schedule), time-zone-unknown.
    """

    id: Annotated[Id, Field(default_factory=new_id)]
    number: int
    recorded: InstanceOf[PlannedRun] | None = None
    """The run after it as it was planned, if this run is decided again: see `shared.schedule_rules`."""

    def streams(self) -> tuple[str, ...]:
        return schedule_stream(self.schedule_id), transfer_stream(self.id)

    def new_streams(self) -> tuple[str, ...]:
        return (transfer_stream(self.id),)

    def further_streams(self, states: States) -> tuple[str, ...]:
        schedule: ScheduleState = states[schedule_stream(self.schedule_id)]
        return tuple(account_stream(each) for each in (schedule.from_account_id, schedule.to_account_id) if each)

    def decide(self, states: States) -> list[Event]:
        schedule = self.require_schedule(states)
        run = schedule.next_run
        if run is None or self.number != schedule.runs + 1 or schedule.now < run.due_at:
            return []
        try:
            [made] = self._transfer(schedule, run).decide(states)
        except errors.Rejection as rejection:
            return self.rejected(states, rejection)
        return [msgspec.structs.replace(made, run=ScheduledRun(self.schedule_id, self.number, self._following(schedule, run)))]

    def rejected(self, states: States, rejection: errors.Rejection) -> list[Event]:
        schedule = self.require_schedule(states)
        run = schedule.next_run
        if run is None:
            raise rejection
        following = self._following(schedule, run)
        refused: dict[str, Any] = {"schedule_id": self.schedule_id, "number": self.number, "due_at": run.due_at}
        return [ScheduleRunRefused(code=rejection.code, next_run=following, **refused)]

    def _following(self, schedule: ScheduleState, run: PlannedRun) -> PlannedRun | None:
        return run_after(schedule.rule, run, self.recorded) if schedule.rule else None

    def _transfer(self, schedule: ScheduleState, run: PlannedRun) -> TransferFunds:
        return TransferFunds(
            id=self.id,
            from_account_id=schedule.from_account_id,
            to_account_id=schedule.to_account_id,
            amount=schedule.amount,
            currency=schedule.currency,
            occurred_at=run.due_at,
            reference=schedule.reference,
            metadata=schedule.metadata,
        )
