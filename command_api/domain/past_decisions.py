"""Decides the events of a log again: makes from each event the command that it came from, and lets the decider decide it.

So no rule is written twice. An event is right if its command, decided on the states before it, makes exactly this event. The
fields of the event are thereby checked like those of a request. This module does no I/O.

The states of all users, addresses, accounts, holds and schedules are kept, but not those of transfers: their ids would need too
much memory. The callers see in the versions of a transfer's stream that no other transfer has its id. They show the transfers
that were reversed, with `recall`, and the states of these are kept.
"""

import re
from collections import Counter
from typing import Any, Final, assert_never

import msgspec
from pydantic import ValidationError

from command_api.domain import (
    account,
    account_limits,
    account_metadata,
    day,
    exchange,
    hold,
    ledger,
    postings,
    projection,
    reversal,
    schedule,
    transfer,
    user,
)
from command_api.domain.command import Command
from command_api.domain.stream_folds import at_moment, fold_of
from shared.errors import EventImpossible, Rejection
from shared.ids import new_id
from shared.log import (
    account_events,
    day_events,
    hold_events,
    ledger_events,
    money_events,
    projection_events,
    schedule_events,
    user_events,
)
from shared.log.event_struct import ScheduledRun
from shared.log.events import Event
from shared.log.streams import LEDGER_STREAM, transfer_stream
from shared.privacy.encryption import ERASED
from shared.schedule_rules import PlannedRun, ScheduleRule

_NOT_KEPT: Final = "transfer-"
_LEGS_OF_EXCHANGE: Final = 4
"""The fifth is that of the remainder account."""
_EMAIL_HASH: Final = re.compile(r"[0-9a-f]{32}")


class _KeptStates(dict[str, Any]):
    """The states of streams. A stream without events has the initial state of its fold."""

    def __missing__(self, stream_id: str) -> Any:
        return fold_of(stream_id).initial


class PastDecisions:
    """Decides the events of one log again, in order. `states` are the states of the streams after the last of them."""

    def __init__(self, pepper: bytes | None = None) -> None:
        """Begins before the first event. Without `pepper`, hashes of e-mail addresses are not compared with the addresses."""
        self._pepper = pepper
        self.states: dict[str, Any] = _KeptStates()
        self.versions: Counter[str] = Counter()
        """The version of each stream whose state is kept."""
        self._recalled: dict[str, tuple[int, Event]] = {}

    def recall(self, position: int, event: money_events.MoneyEvent) -> None:
        """Takes a transfer that events to come reverse. They are decided as if there were none if it stands after them."""
        stream_id = transfer_stream(event.transfer_id)
        if stream_id not in self.states:
            self._recalled[stream_id] = position, event

    def decide_again(self, position: int, event: Event, recorded_at: str) -> Command:
        """Checks that a command makes exactly this event at this moment, applies the event, and returns the command.

        An event is recorded at the moment that it was decided at.

        Raises:
            EventImpossible: the command of the event is not valid, is rejected, or makes another event.
        """
        nameless = _without_names(position, event)
        try:
            if nameless is not event:
                _require_personal_form(event, self._pepper)
            command = command_of(nameless)
            self._remember_reversed(position, command)
            states = self.states_of(command, recorded_at)
            decided = ledger.decide_in(self.states[LEDGER_STREAM], position - 1, command, states)
        except ValidationError as invalid:
            raise EventImpossible(_faults(invalid)) from None
        except Rejection as rejection:
            raise EventImpossible(f"its command would be rejected here: {rejection.code}") from None
        if decided != [nameless]:
            raise EventImpossible(_first_difference(decided, nameless))
        if isinstance(event, projection_events.ProjectionEventSkipped) and event.position >= position:
            raise EventImpossible(f"it skips the event at {event.position}, which did not exist yet")
        if isinstance(event, day_events.DayClosed) and event.up_to >= position:
            raise EventImpossible(f"it counts the events up to {event.up_to}, which did not exist yet")
        for stream_id in nameless.streams():
            if stream_id.startswith(_NOT_KEPT) and stream_id not in self.states:
                continue
            self.states[stream_id] = fold_of(stream_id).evolve(self.states[stream_id], nameless)
            self.versions[stream_id] += 1
        return command

    def _remember_reversed(self, position: int, command: Command) -> None:
        """Keeps the state of the transfer that a command reverses, from now on."""
        if isinstance(command, reversal.ReverseTransfer):
            stream_id = transfer_stream(command.transfer_id)
            if (found := self._recalled.get(stream_id)) and found[0] < position:
                del self._recalled[stream_id]
                self.states[stream_id] = fold_of(stream_id).evolve(fold_of(stream_id).initial, found[1])

    def states_of(self, command: Command, now: str) -> dict[str, Any]:
        """Returns the states that the command depends on, as of a moment."""
        states = {stream_id: at_moment(self.states[stream_id], now) for stream_id in command.streams()}
        return states | {stream_id: at_moment(self.states[stream_id], now) for stream_id in command.further_streams(states)}


def command_of(event: Event) -> Command:  # noqa: C901, PLR0912 # a case for each event: the type check names a new one
    """Returns the command that an event came from.

    Raises:
        ValidationError: a field of the event has a value that no command can have.
    """
    if isinstance(event, schedule_events.ScheduleEvent):
        return _of_schedule(event)
    match event:
        case (
            user_events.UserCreated()
            | user_events.UserChanged()
            | user_events.UserDeactivated()
            | user_events.UserReactivated()
            | user_events.UserErased()
        ):
            return _of_user(event)
        case account_events.AccountOpened():
            return _opening(event)
        case account_events.AccountFrozen():
            return account.FreezeAccount(account_id=event.account_id)
        case account_events.AccountUnfrozen():
            return account.UnfreezeAccount(account_id=event.account_id)
        case account_events.AccountClosed():
            return account.CloseAccount(account_id=event.account_id)
        case (
            account_events.OverdraftLimitChanged()
            | account_events.AccountLimitsChanged()
            | account_events.AccountMetadataChanged()
        ):
            return _of_terms(event)
        case hold_events.HoldPlaced() | money_events.HoldCaptured() | hold_events.HoldReleased() | hold_events.HoldExpired():
            return _of_hold(event)
        case money_events.FundsDeposited() | money_events.FundsWithdrawn() | money_events.FundsTransferred():
            return _of_two_ends(event)
        case money_events.TransferReversed():
            return _reversal(event)
        case money_events.FundsExchanged():
            return _exchange(event)
        case money_events.FundsMoved():
            return _postings(event)
        case projection_events.ProjectionEventSkipped():
            return projection.SkipProjectionEvent(projection=event.projection, position=event.position, reason=event.reason)
        case day_events.DayClosed():
            return day.CloseDay.recording(event)
        case ledger_events.LedgerCreated() | ledger_events.LedgerChanged() | ledger_events.LedgerClosed():
            return _of_ledger(event)
        case _:
            assert_never(event)


def _of_user(event: user_events.UserEvent) -> Command:
    match event:
        case user_events.UserCreated():
            pairs = user_events.metadata_pairs(event.metadata)
            new = user.NewUser(id=event.user_id, name=event.name, email=event.email, metadata=pairs)
            return user.CreateUser(user=new, email_hash=event.email_hash)
        case user_events.UserChanged():
            return user.ChangeUser(
                user_id=event.user_id,
                changes=user.UserChanges(name=event.name, email=event.email, metadata=user_events.metadata_pairs(event.metadata)),
                email_hash=event.email_hash,
            )
        case user_events.UserDeactivated():
            return user.DeactivateUser(user_id=event.user_id)
        case user_events.UserReactivated():
            return user.ReactivateUser(user_id=event.user_id)
        case user_events.UserErased():
            return user.EraseUser(user_id=event.user_id)
        case _:
            assert_never(event)


def _opening(event: account_events.AccountOpened) -> account.OpenAccount:
    return account.OpenAccount(
        id=event.account_id,
        owner_id=event.owner_id,
        currency=event.currency,
        overdraft_limit=event.overdraft_limit,
        metadata=event.metadata,
    )


def _of_ledger(event: ledger_events.LedgerEvent) -> Command:
    match event:
        case ledger_events.LedgerCreated():
            settings = ledger.LedgerSettings(
                time_zone=event.time_zone, currencies=event.currencies, transfer_max=event.transfer_max
            )
            return ledger.CreateLedger(name=event.name, settings=settings)
        case ledger_events.LedgerChanged():
            rules = ledger.LedgerRules(currencies=event.currencies, transfer_max=event.transfer_max)
            return ledger.ChangeLedger(name=event.name, rules=rules)
        case ledger_events.LedgerClosed():
            return ledger.CloseLedger()
        case _:
            assert_never(event)


def _of_terms(
    event: account_events.OverdraftLimitChanged | account_events.AccountLimitsChanged | account_events.AccountMetadataChanged,
) -> Command:
    match event:
        case account_events.OverdraftLimitChanged():
            return account.ChangeOverdraftLimit(account_id=event.account_id, overdraft_limit=event.overdraft_limit)
        case account_events.AccountLimitsChanged():
            limits = msgspec.structs.asdict(account.limits_of(event))
            return account_limits.ChangeLimits(account_id=event.account_id, limits=account_limits.NewLimits(**limits))
        case account_events.AccountMetadataChanged():
            return account_metadata.ChangeAccountMetadata(account_id=event.account_id, metadata=event.metadata)
        case _:
            assert_never(event)


def _of_hold(
    event: hold_events.HoldPlaced | money_events.HoldCaptured | hold_events.HoldReleased | hold_events.HoldExpired,
) -> Command:
    match event:
        case hold_events.HoldPlaced():
            return hold.PlaceHold(
                id=event.hold_id,
                account_id=event.from_account_id,
                to_account_id=event.to_account_id,
                amount=event.amount,
                currency=event.currency,
                expires_at=event.expires_at,
                reference=event.reference,
                metadata=event.metadata,
            )
        case money_events.HoldCaptured():
            return _capture(event)
        case hold_events.HoldReleased():
            return hold.ReleaseHold(hold_id=event.hold_id)
        case hold_events.HoldExpired():
            return hold.ExpireHold(hold_id=event.hold_id)
        case _:
            assert_never(event)


def _run(transfer_id: str, run: ScheduledRun) -> schedule.RunSchedule:
    return schedule.RunSchedule(id=transfer_id, schedule_id=run.schedule_id, number=run.number, recorded=run.next_run)


def _of_schedule(event: schedule_events.ScheduleEvent) -> Command:
    match event:
        case schedule_events.ScheduleCreated():
            new = schedule.NewSchedule(
                id=event.schedule_id, transfer=schedule.PlannedTransfer(**_planned(event)), **_timing(event.rule, event.next_run)
            )
            return schedule.CreateSchedule(schedule=new, recorded=event.next_run)
        case schedule_events.ScheduleChanged():
            transfer_changes = schedule.TransferChanges(to_account_id=event.to_account_id, amount=event.amount)
            changes = schedule.ScheduleChanges(transfer=transfer_changes, **_timing(event.rule, event.next_run))
            return schedule.ChangeSchedule(schedule_id=event.schedule_id, changes=changes, recorded=event.next_run)
        case schedule_events.ScheduleCancelled():
            return schedule.CancelSchedule(schedule_id=event.schedule_id)
        case schedule_events.ScheduleRunRefused():
            return schedule.RunSchedule(id=new_id(), schedule_id=event.schedule_id, number=event.number, recorded=event.next_run)
        case _:
            assert_never(event)


def _planned(event: schedule_events.ScheduleCreated) -> dict[str, Any]:
    return {name: getattr(event, name) for name in schedule.PlannedTransfer.model_fields}


def _timing(rule: ScheduleRule | None, next_run: PlannedRun) -> dict[str, Any]:
    """Returns the moment or the rule of a schedule, as a request names it."""
    return {"rule": schedule.RequestedRule(**msgspec.structs.asdict(rule))} if rule else {"at": next_run.due_at}


def _capture(event: money_events.HoldCaptured) -> hold.CaptureHold:
    capture = hold.HoldCapture(
        id=event.transfer_id,
        amount=event.amount,
        to_account_id=event.to_account_id,
        final=event.remaining == 0,
        occurred_at=event.occurred_at,
        reference=event.reference,
        metadata=event.metadata,
    )
    return hold.CaptureHold(hold_id=event.hold_id, capture=capture)


def _reversal(event: money_events.TransferReversed) -> reversal.ReverseTransfer:
    moved = reversal.Reversal(
        id=event.transfer_id,
        amount=event.amount,
        occurred_at=event.occurred_at,
        reference=event.reference,
        metadata=event.metadata,
    )
    return reversal.ReverseTransfer(transfer_id=event.reverses, reversal=moved)


def _postings(event: money_events.FundsMoved) -> postings.MoveFunds:
    wanted = [
        postings.RequestedPosting(account_id=leg.account_id, amount=leg.amount, currency=leg.currency) for leg in event.legs
    ]
    return postings.MoveFunds(
        id=event.transfer_id,
        postings=tuple(wanted),
        occurred_at=event.occurred_at,
        reference=event.reference,
        metadata=event.metadata,
    )


def _exchange(event: money_events.FundsExchanged) -> exchange.ExchangeFunds:
    if len(event.legs) < _LEGS_OF_EXCHANGE:
        raise EventImpossible("an exchange has four legs or five")
    payer, house_from, house_to, payee = event.legs[:_LEGS_OF_EXCHANGE]
    return exchange.ExchangeFunds.model_validate(
        {
            "id": event.transfer_id,
            "from_account_id": payer.account_id,
            "to_account_id": payee.account_id,
            "house_from_account_id": house_from.account_id,
            "house_to_account_id": house_to.account_id,
            "remainder_account_id": event.remainder_account_id,
            "from_currency": payer.currency,
            "to_currency": payee.currency,
            "rate": event.rate,
            "from_amount": -payer.amount,
            "occurred_at": event.occurred_at,
            "reference": event.reference,
            "metadata": event.metadata,
        }
    )


def _of_two_ends(
    event: money_events.FundsDeposited | money_events.FundsWithdrawn | money_events.FundsTransferred,
) -> Command:
    match event:
        case money_events.FundsDeposited():
            return transfer.Deposit(account_id=event.account_id, **_money(event))
        case money_events.FundsWithdrawn():
            return transfer.Withdraw(account_id=event.account_id, **_money(event))
        case money_events.FundsTransferred() if event.run:
            return _run(event.transfer_id, event.run)
        case money_events.FundsTransferred():
            ends: dict[str, Any] = {"from_account_id": event.from_account_id, "to_account_id": event.to_account_id}
            return transfer.TransferFunds(**ends, **_money(event))
        case _:
            assert_never(event)


def _money(event: money_events.FundsDeposited | money_events.FundsWithdrawn | money_events.FundsTransferred) -> dict[str, Any]:
    return {
        "id": event.transfer_id,
        "amount": event.amount,
        "currency": event.currency,
        "occurred_at": event.occurred_at,
        "reference": event.reference,
        "metadata": event.metadata,
    }


def _without_names(position: int, event: Event) -> Event:
    """Returns the event with stand-ins for its name, address and metadata, so that nothing personal is kept in memory.

    The stand-in for a name is a new one each time, because an event of an erased person does not show if the name changed.
    """
    if not isinstance(event, user_events.UserCreated | user_events.UserChanged):
        return event
    if not _EMAIL_HASH.fullmatch(event.email_hash):
        raise EventImpossible("its hash of an address is not one that Daybook makes")
    metadata = user_events.metadata_text({"number": str(position)}) if event.metadata else ""
    return msgspec.structs.replace(event, name=f"name {position}", email=f"{event.email_hash}@example.com", metadata=metadata)


def _require_personal_form(event: Event, pepper: bytes | None) -> None:
    """Validates the name, the address and the metadata of an event as those of a request, if they can be read.

    Raises:
        ValidationError: no request could have them.
        EventImpossible: the hash of the address is that of another one, so nobody could log in with it, or the metadata are not
            written as Daybook writes them.
    """
    if not isinstance(event, user_events.UserCreated | user_events.UserChanged):
        return
    readable: dict[str, Any] = {name: value for name in ("name", "email") if (value := getattr(event, name)) != ERASED}
    try:
        readable["metadata"] = user_events.metadata_pairs(event.metadata)
    except msgspec.DecodeError:
        raise EventImpossible("its metadata are not pairs of texts") from None
    user.UserChanges(**readable)
    if event.metadata not in {ERASED, user_events.metadata_text(readable["metadata"])}:
        raise EventImpossible("its metadata are not written as Daybook writes them")
    if pepper and event.email != ERASED and event.email_hash != user.hash_email(str(event.email), pepper):
        raise EventImpossible("its hash of an address is that of another address")


def _faults(invalid: ValidationError) -> str:
    """Returns what is wrong with which fields, without their values."""
    errors = invalid.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'fields'}: {error['msg']}" for error in errors)


def _first_difference(decided: list[Event], event: Event) -> str:
    """Returns what a command would have recorded instead of the event. Names no value, because it may be a person's."""
    if len(decided) != 1 or type(decided[0]) is not type(event):
        names = ", ".join(type(each).__name__ for each in decided)
        return f"its command would record {names or 'nothing'} here"
    fields = [name for name in event.__struct_fields__ if getattr(decided[0], name) != getattr(event, name)]
    return f"its command would record another {', '.join(fields)} here"
