"""The read model `statistics`: counts of users, accounts and transfers, sums of money, and rankings, as keys in Redis."""

from typing import Final, assert_never, get_args

from projector.projections.changes import KeyChanges
from projector.projections.money_movements import postings, volumes
from projector.projections.projection import Projection
from shared.log.account_events import AccountClosed, AccountFrozen, AccountOpened, AccountUnfrozen
from shared.log.events import RecordedEvent
from shared.log.money_events import (
    FundsDeposited,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    MoneyEvent,
    TransferReversed,
)
from shared.log.user_events import UserChanged, UserCreated, UserDeactivated, UserErased, UserEvent, UserReactivated
from shared.read_models.shapes import STATISTICS
from shared.timestamps import timestamp

AccountStatusEvent = AccountOpened | AccountFrozen | AccountUnfrozen | AccountClosed


def project_statistics(changes: KeyChanges, recorded: RecordedEvent, event: MoneyEvent | UserEvent | AccountStatusEvent) -> None:
    # The most frequent event comes first: testing a class that does not match costs more than testing one that does.
    match event:
        case FundsTransferred() | FundsDeposited() | FundsWithdrawn() | HoldCaptured() | TransferReversed() | FundsMoved():
            _count_movement(changes, recorded, event)
        case UserCreated():
            changes.count("users", {"active": 1})
        case UserChanged():
            pass
        case UserDeactivated():
            changes.count("users", {"active": -1, "inactive": 1})
        case UserReactivated():
            changes.count("users", {"active": 1, "inactive": -1})
        case UserErased():
            changes.count("users", {event.status_before: -1, "erased": 1})
        case AccountOpened() | AccountFrozen() | AccountUnfrozen() | AccountClosed():
            _count_account(changes, event)
        case _:
            assert_never(event)


def _count_account(changes: KeyChanges, event: AccountStatusEvent) -> None:
    """Moves an account from one count to another. The event tells the status before: only open accounts can be closed."""
    is_open, frozen, closed = (f"{event.currency}:{status}" for status in ("open", "frozen", "closed"))
    match event:
        case AccountOpened():
            changes.count("accounts", {is_open: 1})
            changes.add("sums", {event.currency: 0})
            changes.add("outside", {event.currency: 0})
            changes.score(f"ranking:{event.currency}", event.account_id, 0)
        case AccountFrozen():
            changes.count("accounts", {is_open: -1, frozen: 1})
        case AccountUnfrozen():
            changes.count("accounts", {is_open: 1, frozen: -1})
        case AccountClosed():
            changes.count("accounts", {is_open: -1, closed: 1})
            changes.score(f"ranking:{event.currency}", event.account_id, None)
        case _:
            assert_never(event)


def _count_movement(changes: KeyChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    day = (event.occurred_at or timestamp(recorded.recorded_at))[:10]
    changes.count("transfers", {day: 1})
    changes.add("volumes", {f"{day}:{currency}": amount for currency, amount in volumes(event).items()})
    for account_id, currency, amount, balance, _ in postings(event):
        changes.add("sums", {currency: amount})
        changes.score(f"ranking:{currency}", account_id, balance)
        changes.count_score("busiest", account_id)
    for posting in event.postings():
        if posting.account_id is None:  # counted on its own, so that a lost entry shows: the sums of both must be opposite
            changes.add("outside", {posting.currency: posting.amount})


STATISTICS_PROJECTION: Final = Projection(
    STATISTICS,
    KeyChanges,
    handles=frozenset((*get_args(MoneyEvent), *get_args(UserEvent), *get_args(AccountStatusEvent))),
    project=project_statistics,
)
