"""Computes which fields of an account an event sets, for both the documents of `accounts` and the hashes of `balances`.

Each hold that has not ended in the log is a field of its account. A hold also ends by itself, so readers leave out those that
have expired: see `shared.read_models.holds`.
"""

from collections.abc import Iterator

import msgspec

from projector.projections.changes import REMOVED, StoredDocument
from shared.log.account_events import (
    AccountClosed,
    AccountEvent,
    AccountFrozen,
    AccountLimitsChanged,
    AccountMetadataChanged,
    AccountOpened,
    AccountUnfrozen,
    OverdraftLimitChanged,
)
from shared.log.event_struct import Spent
from shared.log.events import RecordedEvent
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import (
    FundsDeposited,
    FundsExchanged,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    TransferReversed,
)
from shared.read_models.holds import hold_field, hold_text
from shared.read_models.shapes import LIMIT_NAMES
from shared.timestamps import timestamp


def account_fields(  # noqa: C901, PLR0912 # a case for each event: the type check names a new one
    recorded: RecordedEvent, event: AccountEvent
) -> Iterator[tuple[str, StoredDocument]]:
    """Yields each account that the event touches, with the fields that it sets there.

    If an event sets no other field, it still sets `changed_at` and `position`, because it is the account's newest event.
    """
    changed = {"changed_at": timestamp(recorded.recorded_at), "position": recorded.position}
    # The most frequent event comes first: testing a class that does not match costs more than testing one that does.
    match event:
        case FundsTransferred():
            yield event.from_account_id, {"posted": event.from_balance} | spent_fields(event.spent) | changed
            yield event.to_account_id, {"posted": event.to_balance} | changed
        case FundsDeposited():
            yield event.account_id, {"posted": event.balance} | changed
        case FundsWithdrawn():
            yield event.account_id, {"posted": event.balance} | spent_fields(event.spent) | changed
        case HoldCaptured():
            held = hold_text(event.remaining, event.expires_at) if event.remaining else REMOVED
            fields = {"posted": event.from_balance, hold_field(event.hold_id): held}
            yield event.from_account_id, fields | spent_fields(event.spent) | changed
            if event.to_account_id:
                yield event.to_account_id, {"posted": event.to_balance} | changed
        case TransferReversed():
            for account_id, balance in ((event.from_account_id, event.from_balance), (event.to_account_id, event.to_balance)):
                if account_id:
                    yield account_id, {"posted": balance} | changed
        case FundsMoved():
            for leg in event.legs:
                if leg.account_id:
                    yield leg.account_id, {"posted": leg.balance} | spent_fields(leg.spent) | changed
            if isinstance(event, FundsExchanged) and event.remainder_account_id != event.legs[-1].account_id:
                yield event.remainder_account_id, changed
        case HoldPlaced():
            held = hold_text(event.amount, event.expires_at)
            yield event.from_account_id, {hold_field(event.hold_id): held} | changed
        case HoldReleased() | HoldExpired():
            yield event.from_account_id, {hold_field(event.hold_id): REMOVED} | changed
        case AccountOpened():
            yield event.account_id, _opened_fields(event) | {"opened_at": changed["changed_at"]} | changed
        case AccountFrozen():
            yield event.account_id, {"status": "frozen"} | changed
        case AccountUnfrozen():
            yield event.account_id, {"status": "open"} | changed
        case AccountClosed():
            yield event.account_id, {"status": "closed"} | changed
        case OverdraftLimitChanged():
            yield event.account_id, {"overdraft_limit": event.overdraft_limit} | changed
        case AccountLimitsChanged():
            yield event.account_id, _limit_fields(event) | changed
        case AccountMetadataChanged():
            yield event.account_id, _metadata_field(event.metadata) | changed
        case _:
            yield event.account_id, changed


def spent_fields(spent: Spent | None) -> StoredDocument:
    """Returns the field that says what an account has spent. An account whose limits count nothing has none."""
    return {"spent": f"{spent.day} {spent.today} {spent.in_month}"} if spent else {}


def _limit_fields(event: AccountLimitsChanged) -> StoredDocument:
    """Returns a field for each limit, and what they have counted. A limit that the account lacks is no field."""
    limits = {name: getattr(event, name) for name in LIMIT_NAMES}
    fields = {name: REMOVED if limit is None else limit for name, limit in limits.items()}
    return {**fields, "spent": REMOVED} | spent_fields(event.spent)


def _metadata_field(metadata: dict[str, str] | None) -> StoredDocument:
    """Returns the field with the pairs as JSON, or removes it: a hash in Redis has only texts."""
    return {"metadata": msgspec.json.encode(metadata).decode() if metadata else REMOVED}


def _opened_fields(event: AccountOpened) -> StoredDocument:
    metadata = _metadata_field(event.metadata) if event.metadata else {}
    return metadata | {
        "owner_id": event.owner_id,
        "currency": event.currency,
        "status": "open",
        "overdraft_limit": event.overdraft_limit,
        "posted": 0,
        "holds": 0,
    }


def account_counts(event: AccountEvent, account_id: str) -> dict[str, int]:
    """Returns what an event adds to the counts of an account that it touches: its version, and how many holds are fields."""
    match event:
        case HoldPlaced():
            return {"version": 1, "holds": 1}
        case HoldReleased() | HoldExpired():
            return {"version": 1, "holds": -1}
        case HoldCaptured() if not event.remaining and account_id == event.from_account_id:
            return {"version": 1, "holds": -1}
        case _:
            return {"version": 1}
