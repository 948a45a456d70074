"""The read models as functions of the log. Pure: no clock, no I/O, nothing read back.

A projection gets the events that it handles, in order, and says what each changes. Events carry the balances after them;
what is counted is a difference. The result may depend on nothing but the events: a read model built anew must be the same
byte for byte. Raise a read model's `version` when its projection changes. A new event belongs to one of the groups in
`shared.events`; the type check then names every projection here that has to consider it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, assert_never, get_args

import msgspec

from projector.changes import Document, DocumentChanges, KeyChanges
from shared import read_models
from shared.events import (
    AccountClosed,
    AccountEvent,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    MoneyEvent,
    RecordedEvent,
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
    account_stream,
    timestamp,
    transfer_stream,
    user_stream,
)
from shared.read_models import ACTIVITY_MAX, Entry, ReadModel, entry_id, entry_position, search_words

C = TypeVar("C", DocumentChanges, KeyChanges)


class Projection(msgspec.Struct, Generic[C], frozen=True):
    """`write_once`: no document changes after it was inserted, so that they can be verified without all being in memory.

    `makes` says how many documents or keys each event makes, and `origin` which events make the one of a name: those of a stream,
    or the one at a position. Where a read model's parts are made of the whole log, it has neither.
    """

    model: ReadModel
    new_changes: type[C]
    handles: frozenset[type]
    project: Callable[[C, RecordedEvent, Any], None]
    write_once: bool = False
    makes: Mapping[Any, int] = {}
    origin: Callable[[str], str | int] | None = None

    @property
    def name(self) -> str:
        return self.model.name

    def fold(self, changes: C, recorded_events: Iterable[RecordedEvent]) -> None:
        """Adds to `changes` what these events do. Events that it does not handle do nothing."""
        for recorded in recorded_events:
            if type(recorded.event) in self.handles:
                self.project(changes, recorded, recorded.event)


# In a `match`, the most frequent event stands first: a class that does not fit costs more than one that does.

# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def project_users(changes: DocumentChanges, recorded: RecordedEvent, event: UserEvent) -> None:
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    match event:
        case UserCreated():
            created = {"status": "active", "created_at": changed["changed_at"], "version": 1}
            changes.insert(event.user_id, _user_fields(event) | created | changed)
        case UserChanged():
            changes.change(event.user_id, _user_fields(event) | changed, {"version": 1})
        case UserDeactivated():
            changes.change(event.user_id, {"status": "inactive"} | changed, {"version": 1})
        case UserReactivated():
            changes.change(event.user_id, {"status": "active"} | changed, {"version": 1})
        case UserErased():
            # Empty and not None: lists are ordered by name, and MongoDB compares texts with texts only.
            changes.change(event.user_id, {"status": "erased", "name": "", "email": "", "search": []} | changed, {"version": 1})
        case _:
            assert_never(event)


def _user_fields(event: UserCreated | UserChanged) -> Document:
    return {"name": event.name, "email": event.email, "search": search_words(f"{event.name} {event.email}")}


# ── accounts, and the same in Redis: balances ────────────────────────────────────────────────────────────────────────


def project_accounts(changes: DocumentChanges, recorded: RecordedEvent, event: AccountEvent) -> None:
    for account_id, fields in _account_fields(recorded, event):
        if type(event) is AccountOpened:
            changes.insert(account_id, fields | {"version": 1})
        else:
            changes.change(account_id, fields, {"version": 1})


def project_balances(changes: KeyChanges, recorded: RecordedEvent, event: AccountEvent) -> None:
    for account_id, fields in _account_fields(recorded, event):
        key = f"account:{account_id}"
        changes.set(key, fields)
        changes.count(key, {"version": 1})


def _account_fields(recorded: RecordedEvent, event: AccountEvent) -> Iterator[tuple[str, Document]]:
    """The fields that the event sets, for each account that it touches."""
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    match event:
        case FundsTransferred():
            yield event.from_account_id, {"posted": event.from_balance} | changed
            yield event.to_account_id, {"posted": event.to_balance} | changed
        case FundsDeposited() | FundsWithdrawn():
            yield event.account_id, {"posted": event.balance} | changed
        case AccountOpened():
            yield event.account_id, _opened_fields(event) | {"opened_at": changed["changed_at"]} | changed
        case AccountFrozen():
            yield event.account_id, {"status": "frozen"} | changed
        case AccountUnfrozen():
            yield event.account_id, {"status": "open"} | changed
        case AccountClosed():
            yield event.account_id, {"status": "closed"} | changed
        case _:
            assert_never(event)


def _opened_fields(event: AccountOpened) -> Document:
    return {
        "owner_id": event.owner_id,
        "currency": event.currency,
        "status": "open",
        "overdraft_limit": event.overdraft_limit,
        "posted": 0,
        "held": 0,
    }


# ── transfers, entries, recent activity ──────────────────────────────────────────────────────────────────────────────


class Movement(msgspec.Struct, frozen=True):
    """What the three ways in which money moves have in common. None is the outside world."""

    kind: str
    from_account_id: str | None
    to_account_id: str | None


def _movement(event: MoneyEvent) -> Movement:
    match event:
        case FundsTransferred():
            return Movement("transfer", event.from_account_id, event.to_account_id)
        case FundsDeposited():
            return Movement("deposit", None, event.account_id)
        case FundsWithdrawn():
            return Movement("withdrawal", event.account_id, None)
        case _:
            assert_never(event)


def _transfer_fields(recorded: RecordedEvent, event: MoneyEvent) -> Document:
    movement, recorded_at = _movement(event), timestamp(recorded.recorded_at)
    return {
        "kind": movement.kind,
        "from_account_id": movement.from_account_id,
        "to_account_id": movement.to_account_id,
        "amount": event.amount,
        "currency": event.currency,
        "occurred_at": event.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        "reference": event.reference,
        "position": recorded.position,
    }


def _text(item: Any) -> str:
    """As the query API answers it."""
    return msgspec.json.encode(item).decode()


def project_transfers(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    fields = _transfer_fields(recorded, event)
    account_ids = [account_id for account_id in (fields["from_account_id"], fields["to_account_id"]) if account_id]
    changes.insert(event.transfer_id, fields | {"account_ids": account_ids, "metadata": event.metadata})


def project_activity(changes: KeyChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    item = {"id": event.transfer_id} | _transfer_fields(recorded, event)
    changes.push("recent", _text(item), ACTIVITY_MAX)


def project_entries(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    kind, recorded_at, position = _movement(event).kind, timestamp(recorded.recorded_at), recorded.position
    for account_id, amount, balance, counterparty_account_id in _postings(event):
        entry = Entry(
            account_id=account_id,
            transfer_id=event.transfer_id,
            kind=kind,
            amount=amount,
            balance=balance,
            currency=event.currency,
            counterparty_account_id=counterparty_account_id,
            occurred_at=event.occurred_at or recorded_at,
            recorded_at=recorded_at,
            reference=event.reference,
            position=position,
        )
        fields = {"amount": amount, "recorded_at": recorded_at, "position": position, "item": _text(entry)}
        changes.insert(entry_id(account_id, position), fields)


def _postings(event: MoneyEvent) -> Iterator[tuple[str, int, int, str | None]]:
    """Account, signed amount, balance after it, and the account on the other side; without the outside world's own."""
    match event:
        case FundsTransferred():
            yield event.from_account_id, -event.amount, event.from_balance, event.to_account_id
            yield event.to_account_id, event.amount, event.to_balance, event.from_account_id
        case FundsDeposited():
            yield event.account_id, event.amount, event.balance, None
        case FundsWithdrawn():
            yield event.account_id, -event.amount, event.balance, None
        case _:
            assert_never(event)


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


def project_statistics(changes: KeyChanges, recorded: RecordedEvent, event: UserEvent | AccountEvent) -> None:
    match event:
        case FundsTransferred() | FundsDeposited() | FundsWithdrawn():
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


def _count_account(changes: KeyChanges, event: AccountOpened | AccountFrozen | AccountUnfrozen | AccountClosed) -> None:
    """A frozen account cannot be closed, so every change of status has one status before it."""
    is_open, frozen, closed = (f"{event.currency}:{status}" for status in ("open", "frozen", "closed"))
    match event:
        case AccountOpened():
            changes.count("accounts", {is_open: 1})
            changes.add("sums", {event.currency: 0})
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
    changes.add("volumes", {f"{day}:{event.currency}": event.amount})
    for account_id, amount, balance, _ in _postings(event):
        changes.add("sums", {event.currency: amount})
        changes.score(f"ranking:{event.currency}", account_id, balance)
        changes.count_score("busiest", account_id)


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────

_USER_EVENTS: Final = frozenset(get_args(UserEvent))
_ACCOUNT_EVENTS: Final = frozenset(get_args(AccountEvent))
_MONEY_EVENTS: Final = frozenset(get_args(MoneyEvent))

_USERS: Final = {UserCreated: 1}
_ACCOUNTS: Final = {AccountOpened: 1}
_TRANSFERS: Final = {FundsTransferred: 1, FundsDeposited: 1, FundsWithdrawn: 1}
_ENTRIES: Final = _TRANSFERS | {FundsTransferred: 2}


def _balance_origin(key: str) -> str:
    return account_stream(key.removeprefix("account:"))


PROJECTIONS: Final[tuple[Projection[Any], ...]] = (
    Projection(read_models.USERS, DocumentChanges, _USER_EVENTS, project_users, makes=_USERS, origin=user_stream),
    Projection(read_models.ACCOUNTS, DocumentChanges, _ACCOUNT_EVENTS, project_accounts, makes=_ACCOUNTS, origin=account_stream),
    Projection(
        read_models.TRANSFERS,
        DocumentChanges,
        _MONEY_EVENTS,
        project_transfers,
        write_once=True,
        makes=_TRANSFERS,
        origin=transfer_stream,
    ),
    Projection(
        read_models.ENTRIES,
        DocumentChanges,
        _MONEY_EVENTS,
        project_entries,
        write_once=True,
        makes=_ENTRIES,
        origin=entry_position,
    ),
    Projection(read_models.BALANCES, KeyChanges, _ACCOUNT_EVENTS, project_balances, makes=_ACCOUNTS, origin=_balance_origin),
    Projection(read_models.STATISTICS, KeyChanges, _USER_EVENTS | _ACCOUNT_EVENTS, project_statistics),
    Projection(read_models.ACTIVITY, KeyChanges, _MONEY_EVENTS, project_activity),
)
