"""The decider for ledgers, and what a ledger allows. A ledger is created by the first event of its log.

The stream of a ledger is `ledger`. Every command is decided by `decide_in`, which knows the state of this stream.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from command_api.domain.command import Command, States
from command_api.domain.command_fields import PositiveAmount, StrictFields
from shared.errors import IdTaken, Rejection
from shared.input_types import Currency, LedgerId, TimeZone
from shared.ledger_errors import CurrencyNotAllowed, LedgerIsClosed, LedgerLimitExceeded
from shared.log.account_events import AccountOpened
from shared.log.events import Event
from shared.log.hold_events import HoldPlaced
from shared.log.ledger_events import LedgerChanged, LedgerClosed, LedgerCreated
from shared.log.ledger_state import LedgerState, evolve_ledger
from shared.log.money_events import HoldCaptured, TransferReversed
from shared.log.stream_fold import StreamFold
from shared.log.streams import LEDGER_STREAM
from shared.money import AMOUNT_MAX
from shared.text_types import Reference

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LEDGER_FOLD: Final = StreamFold(1, LedgerState(), evolve_ledger)

# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def decide_in(ledger: LedgerState, recorded: int, command: Command, states: States) -> list[Event]:
    """Decides a command as its ledger allows, and returns the events. `recorded` is how many events the log has.

    Raises:
        IdTaken: the command creates a ledger, and the log has events already.
        LedgerIsClosed: the ledger is closed, and the command is not one of the few that a closed ledger takes.
        CurrencyNotAllowed: the command would open an account in another currency than those of the ledger.
        LedgerLimitExceeded: the command would move or hold more than the ledger allows.
        Rejection: the decision of the command itself.
    """
    if command.creates_ledger and recorded:
        raise IdTaken
    if ledger.status == "closed" and not command.suits_closed_ledgers:
        raise LedgerIsClosed
    events = command.decide(states)
    try:
        for event in events:
            _require_allowed(ledger, event)
    except Rejection as rejection:
        return command.rejected(states, rejection)
    return events


def _require_allowed(ledger: LedgerState, event: Event) -> None:
    if isinstance(event, AccountOpened) and ledger.currencies is not None and event.currency not in ledger.currencies:
        raise CurrencyNotAllowed(currencies=", ".join(ledger.currencies))
    if ledger.transfer_max:
        _require_within(ledger.transfer_max, event)


def _require_within(transfer_max: Mapping[str, int], event: Event) -> None:
    """Checks the amounts that an event moves or holds.

    A capture and a reversal are free of the limit: it was checked when the money was held or moved, and may be lower by now.
    """
    if isinstance(event, HoldPlaced):
        moved = [(event.currency, event.amount)]
    elif isinstance(event, HoldCaptured | TransferReversed):
        moved = []
    else:
        moved = [(posting.currency, abs(posting.amount)) for posting in event.postings()]
    for currency, amount in moved:
        if amount > transfer_max.get(currency, AMOUNT_MAX):
            raise LedgerLimitExceeded(transfer_max=transfer_max[currency], currency=currency)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sorted(currencies: tuple[str, ...]) -> tuple[str, ...]:
    """Checks that there is one, and sorts them. `min_length` would also complain if a currency is unknown."""
    if not currencies:
        code, message = "too_short", "Must have at least 1 item"
        raise PydanticCustomError(code, message)
    return tuple(sorted(set(currencies)))


Currencies = Annotated[
    tuple[Currency, ...],
    Field(max_length=200, strict=False, description="Those in which accounts can be opened. Without it, all."),
    AfterValidator(_sorted),
]


class LedgerRules(StrictFields):
    """What a ledger allows. A rule that is null or left out does not exist."""

    currencies: Currencies | None = None
    transfer_max: Annotated[
        dict[Currency, PositiveAmount] | None,
        Field(max_length=200, description="The largest amount of a transfer by currency, in minor units."),
    ] = None


class LedgerSettings(LedgerRules):
    """The settings of a ledger."""

    time_zone: TimeZone = "UTC"


class ChangedLedger(LedgerRules):
    """The new settings of a ledger. They replace all that it has but the time zone. Without `name`, it is called by its id."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "Acme", "transfer_max": {"EUR": 1_000_000}}})

    name: Reference | None = None


class NewLedger(LedgerSettings):
    """The fields of a new ledger. Without `name`, it is called by its id."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": "acme", "name": "Acme", "time_zone": "Europe/Berlin", "currencies": ["EUR", "USD"]}}
    )

    id: LedgerId
    name: Reference | None = None


class CreateLedger(Command):
    """Creates the ledger whose log it is recorded in. Rejections: id-taken (the log has events)."""

    creates_ledger: ClassVar[bool] = True

    name: Reference
    settings: LedgerSettings

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)

    def decide(self, states: States) -> list[Event]:  # noqa: ARG002 # `decide_in` has checked that the log is empty
        return [LedgerCreated(name=self.name, time_zone=self.settings.time_zone, **_rules(self.settings))]


def _rules(rules: LedgerRules) -> dict[str, Any]:
    """Returns the fields of an event that has these rules."""
    return {"currencies": rules.currencies, "transfer_max": rules.transfer_max or None}


class ChangeLedger(Command):
    """Replaces the name and the rules of the ledger. What was recorded before stays, also if it would be rejected now.

    The time zone stays, because the days that were reported were days of that zone. The command is never rejected while the
    ledger is open.
    """

    name: Reference
    rules: LedgerRules

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)

    def decide(self, states: States) -> list[Event]:
        before: LedgerState = states[LEDGER_STREAM]
        changed = LedgerChanged(name=self.name, **_rules(self.rules))
        return [] if evolve_ledger(before, changed) == before else [changed]


class CloseLedger(Command):
    """Closes the ledger permanently: from now on it takes no commands. It can still be read. The command is never rejected."""

    suits_closed_ledgers: ClassVar[bool] = True

    def streams(self) -> tuple[str, ...]:
        return (LEDGER_STREAM,)

    def decide(self, states: States) -> list[Event]:
        return [] if states[LEDGER_STREAM].status == "closed" else [LedgerClosed()]
