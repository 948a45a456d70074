"""The read model `reports`: the rows of the tables of SQL reporting.

A row is a document whose id is the name of its table, a slash and the row's own id. `shared.reporting.tables` says what the
columns hold. A row refers only to rows that the same event makes or that one of its streams has, because an event of another
stream may be a dead letter.
"""

from typing import Final, get_args

from projector.projections.account_fields import account_counts, account_fields
from projector.projections.changes import REMOVED, DocumentChanges, StoredDocument
from projector.projections.holds import HoldEvent
from projector.projections.money_movements import movement_of, postings, transfer_fields, volumes
from projector.projections.projection import Projection
from shared.log.account_events import AccountEvent, AccountOpened
from shared.log.events import RecordedEvent
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import HoldCaptured, MoneyEvent, TransferReversed
from shared.log.streams import account_stream, hold_stream, transfer_stream, user_stream
from shared.log.user_events import (
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    metadata_pairs,
    metadata_text,
)
from shared.read_models.shapes import REPORTS, entry_id, entry_position
from shared.timestamps import timestamp

ReportedEvent = UserEvent | AccountEvent | MoneyEvent | HoldEvent

_ACCOUNT_FIELDS: Final = frozenset(
    ("owner_id", "currency", "status", "overdraft_limit", "posted", "holds", "opened_at", "changed_at", "position", "metadata")
)
_MONTH: Final = 7
_DAY: Final = 10
_UNIT: Final = 10**9
_USER_EVENTS: Final = get_args(UserEvent)
_ACCOUNT_EVENTS: Final = get_args(AccountEvent)
_MONEY_EVENTS: Final = get_args(MoneyEvent)
_HOLD_EVENTS: Final = get_args(HoldEvent)


def project_reports(changes: DocumentChanges, recorded: RecordedEvent, event: ReportedEvent) -> None:
    if isinstance(event, _USER_EVENTS):
        _project_user(changes, recorded, event)
    if isinstance(event, _ACCOUNT_EVENTS):
        _project_accounts(changes, recorded, event)
    if isinstance(event, _MONEY_EVENTS):
        _project_money(changes, recorded, event)
    if isinstance(event, _HOLD_EVENTS):
        _project_hold(changes, recorded, event)


def _project_user(changes: DocumentChanges, recorded: RecordedEvent, event: UserEvent) -> None:
    row = f"users/{event.user_id}"
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    if isinstance(event, UserCreated):
        told = {"status": "active", "created_at": changed["changed_at"], "version": 1}
        changes.insert(row, _personal_fields(event) | told | changed)
    elif isinstance(event, UserChanged):
        changes.change(row, _personal_fields(event) | changed, {"version": 1})
    elif isinstance(event, UserErased):
        empty: StoredDocument = {"name": "", "email": "", "metadata": None}
        changes.change(row, empty | {"status": "erased"} | changed, {"version": 1})
    else:
        status = "inactive" if isinstance(event, UserDeactivated) else "active"
        changes.change(row, {"status": status} | changed, {"version": 1})


def _personal_fields(event: UserCreated | UserChanged) -> StoredDocument:
    metadata = metadata_pairs(event.metadata)
    return {"name": event.name, "email": event.email, "metadata": metadata_text(metadata) or None}


def _project_accounts(changes: DocumentChanges, recorded: RecordedEvent, event: AccountEvent) -> None:
    for account_id, told in account_fields(recorded, event):
        fields = {name: None if value is REMOVED else value for name, value in told.items() if name in _ACCOUNT_FIELDS}
        if isinstance(event, AccountOpened):
            changes.insert(f"accounts/{account_id}", {"metadata": None, "version": 1} | fields)
        else:
            changes.change(f"accounts/{account_id}", fields, account_counts(event, account_id))


def _project_money(changes: DocumentChanges, recorded: RecordedEvent, event: MoneyEvent) -> None:
    movement = movement_of(event)
    told = transfer_fields(recorded, event)
    hold_id = event.hold_id if isinstance(event, HoldCaptured) else None
    reverses = event.reverses if isinstance(event, TransferReversed) else None
    more = {"hold_id": hold_id, "reverses": reverses, "metadata": metadata_text(event.metadata) or None}
    changes.insert(f"transfers/{event.transfer_id}", told | more)
    shared = {name: told[name] for name in ("kind", "occurred_at", "recorded_at", "reference", "position")}
    shared |= {"transfer_id": event.transfer_id, "month": told["occurred_at"][:_MONTH]}
    for account_id, currency, amount, balance, counterparty_account_id in postings(event):
        line = {"account_id": account_id, "currency": currency, "amount": amount, "balance": balance}
        line |= {"counterparty_account_id": counterparty_account_id}
        changes.insert(f"entries/{entry_id(account_id, recorded.position)}", shared | line)
    for currency, amount in volumes(event).items():
        billions, rest = divmod(amount, _UNIT)
        day = f"days/{told['occurred_at'][:_DAY]}/{currency}/{movement.kind}"
        changes.add(day, {"transfers": 1, "amount_billions": billions, "amount_rest": rest})


def _project_hold(changes: DocumentChanges, recorded: RecordedEvent, event: HoldEvent) -> None:
    row = f"holds/{event.hold_id}"
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    if isinstance(event, HoldPlaced):
        fields = {
            "account_id": event.from_account_id,
            "to_account_id": event.to_account_id,
            "amount": event.amount,
            "captured": 0,
            "remaining": event.amount,
            "currency": event.currency,
            "status": "active",
            "expires_at": event.expires_at,
            "placed_at": changed["changed_at"],
            "reference": event.reference,
            "version": 1,
        }
        changes.insert(row, fields | changed)
    elif isinstance(event, HoldCaptured):
        status = "active" if event.remaining else "captured"
        fields = {"remaining": event.remaining, "status": status} | changed
        changes.change(row, fields, {"captured": event.amount, "version": 1})
    elif isinstance(event, HoldReleased | HoldExpired):
        status = "released" if isinstance(event, HoldReleased) else "expired"
        changes.change(row, {"remaining": 0, "status": status} | changed, {"version": 1})


def _origin(name: str) -> str | int | None:
    table, _, row_id = name.partition("/")
    match table:
        case "users":
            return user_stream(row_id)
        case "accounts":
            return account_stream(row_id)
        case "transfers":
            return transfer_stream(row_id)
        case "holds":
            return hold_stream(row_id)
        case "entries":
            return entry_position(row_id)
        case _:  # the totals of a day come from many streams
            return None


REPORTS_PROJECTION: Final = Projection(
    REPORTS,
    DocumentChanges,
    handles=frozenset((*_USER_EVENTS, *_ACCOUNT_EVENTS, *_MONEY_EVENTS, *_HOLD_EVENTS)),
    project=project_reports,
    origin=_origin,
)
