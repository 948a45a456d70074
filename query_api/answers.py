"""What questions are answered with: the shapes for the OpenAPI document, each with an example. Answers are encoded without them.

A test holds real answers against these shapes.
"""

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

AsOfPosition = Annotated[int, Field(description="The answer holds everything up to this position of the ledger's log.")]
FactPosition = Annotated[int, Field(description="Where in the ledger's log this fact stands.")]
MinorUnits = Annotated[int, Field(description="Minor units of the currency.")]
Moment = Annotated[str, Field(description="RFC 3339 in UTC, with microseconds.")]
Version = Annotated[int, Field(description="How many events this has; send it as `If-Match` with a command.")]
Account = Annotated[str | None, Field(description="null is the outside world.")]

ADA: Final = "0198c5a0-0000-7000-8000-00000000ada0"
EUROS: Final = "0198c5a0-0000-7000-8000-0000000000e1"
SAVINGS: Final = "0198c5a0-0000-7000-8000-0000000000e2"
TRANSFER: Final = "0198c5a0-0000-7000-8000-000000000042"
EVENT: Final = "0198c5a0-0000-7000-8000-0000000000ee"
MOMENT: Final = "2026-11-21T09:30:00.000000Z"


class Answer(BaseModel):
    """All members are always there; one that has no value is null."""

    model_config = ConfigDict(extra="forbid")


class UserItem(Answer):
    id: str
    name: Annotated[str | None, Field(description="null where the user was erased.")]
    email: Annotated[str | None, Field(description="null where the user was erased.")]
    status: Literal["active", "inactive", "erased"]
    created_at: Moment
    changed_at: Moment
    version: Version


class UserAnswer(UserItem):
    position: AsOfPosition


class Balance(Answer):
    """`available` is what can be taken now: posted, less what is held, plus the overdraft limit."""

    account_id: str
    currency: str
    posted: MinorUnits
    held: MinorUnits
    available: MinorUnits


class BalanceAnswer(Balance):
    position: AsOfPosition


class AccountItem(Answer):
    id: str
    owner_id: str
    currency: str
    status: Literal["open", "frozen", "closed"]
    overdraft_limit: MinorUnits
    opened_at: Moment
    changed_at: Moment
    version: Version
    balance: Balance


class AccountAnswer(AccountItem):
    position: AsOfPosition


class Activity(Answer):
    id: str
    kind: Literal["deposit", "withdrawal", "transfer"]
    from_account_id: Account
    to_account_id: Account
    amount: MinorUnits
    currency: str
    occurred_at: Moment
    recorded_at: Moment
    reference: str | None
    position: FactPosition


class TransferAnswer(Activity):
    metadata: dict[str, str] | None


class EntryItem(Answer):
    """One side of a movement of money: `amount` is negative where it left the account, `balance` what was there after it."""

    account_id: str
    transfer_id: str
    kind: Literal["deposit", "withdrawal", "transfer"]
    amount: MinorUnits
    balance: MinorUnits
    currency: str
    counterparty_account_id: Account
    occurred_at: Moment
    recorded_at: Moment
    reference: str | None
    position: FactPosition


class EventItem(Answer):
    """An event as it was stored: what is personal in it stays sealed."""

    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    metadata: dict[str, Any]
    recorded_at: Moment
    hash: Annotated[str, Field(description="SHA-256 over the hash before it and this event, hexadecimal.")]


class StreamEventItem(EventItem):
    version: Annotated[int, Field(description="The event's place in the stream.")]


class SealItem(Answer):
    """The signature (Ed25519, hexadecimal) covers six lines: `daybook-seal-1`, ledger, position, root, key id, time."""

    ledger_id: str
    position: Annotated[int, Field(description="The seal covers the events 1 to this; the size of the tree.")]
    root: Annotated[str, Field(description="RFC 6962 Merkle tree root over the events' hashes, hexadecimal.")]
    signature: str
    key_id: Annotated[str, Field(description="The first 16 digits of the SHA-256 of the public key.")]
    sealed_at: Moment


class RefusalItem(Answer):
    """What is not known is an empty text. `*` in a path hides what is none of our words and no id."""

    refused_at: Moment
    code: str
    api: Literal["commands", "queries"]
    method: str
    path: str
    address: str
    principal: str
    key_id: Annotated[str, Field(description="Of a credential that was not valid: the id that stands in it.")]
    ledger_id: str
    request_id: Annotated[str, Field(description="Of the first.")]
    count: Annotated[int, Field(description="How often, within a second.")]


class HashedEvent(Answer):
    """Everything that an event's hash covers."""

    hash_before: Annotated[str, Field(description="The hash of the event before; empty for the first.")]
    ledger_id: str
    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    metadata: dict[str, Any]
    recorded_at: Moment


class ReceiptAnswer(Answer):
    """Proof that a transfer is in the sealed log; `docs/verify_receipt.py` checks it offline."""

    format: Literal["daybook-receipt-1"]
    position: FactPosition
    event: HashedEvent
    hash: Annotated[str, Field(description="SHA-256 over `event`, hexadecimal: the leaf of the tree.")]
    leaf_index: Annotated[int, Field(description="Position − 1.")]
    audit_path: Annotated[list[str], Field(description="From the leaf up, as in RFC 6962, hexadecimal.")]
    seal: SealItem


class ConsistencyAnswer(Answer):
    """Proof (RFC 6962, 2.1.2) that nothing that `from` covers is different in `to`."""

    from_: Annotated[SealItem, Field(alias="from")]
    to: SealItem
    path: list[str]
    position: AsOfPosition


class ProgressItem(Answer):
    name: str
    generation: Annotated[int | None, Field(description="The one that readers see, or that is being built for want of one.")]
    state: Annotated[
        Literal["live", "degraded", "behind", "rebuilding", "paused", "failed"],
        Field(
            description="`degraded`: events that could not be applied are put aside, with what came after them in their "
            "streams. `behind`: an event has waited for 2 seconds. `paused`: by an operator. `failed`: something keeps it from "
            "going on."
        ),
    ]
    position: int | None
    lag_events: int | None
    lag_seconds: Annotated[float | None, Field(description="The age of the oldest event that is not in yet.")]
    dead_letters: Annotated[int, Field(description="Events that could not be applied.")]
    parked_streams: Annotated[int, Field(description="Streams of which nothing more is taken in because of them.")]
    cause: Annotated[str | None, Field(description="Why it is not further.")]


class PersonalEvent(Answer):
    """An event as its person may read it: opened, and without who else had to do with it."""

    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    recorded_at: Moment


class ExportAnswer(Answer):
    """All that is held about a person. `events` are those of the person and of the person's accounts."""

    user: UserItem
    accounts: list[AccountItem]
    transfers: list[TransferAnswer]
    events: list[PersonalEvent]
    position: AsOfPosition


ItemT = TypeVar("ItemT")


class Page(Answer, Generic[ItemT]):
    items: list[ItemT]
    next: Annotated[str | None, Field(description="Send it as `cursor` for the next page; null on the last one.")]
    position: AsOfPosition


class AccountsByStatus(Answer):
    open: int
    frozen: int
    closed: int


class UsersByStatus(Answer):
    active: int
    inactive: int
    erased: int


class CurrencyStatistics(Answer):
    currency: str
    accounts: AccountsByStatus
    posted: Annotated[int, Field(description="The sum of all balances, in minor units.")]
    outside: Annotated[int, Field(description="The balance of the outside world; with `posted` it is zero.")]


class DayStatistics(Answer):
    day: Annotated[str, Field(description="Of `occurred_at`, in UTC.")]
    transfers: Annotated[int, Field(description="Deposits and withdrawals included.")]
    amounts: Annotated[dict[str, int], Field(description="What moved, by currency, in minor units.")]


class BusyAccount(Answer):
    account_id: str
    transfers: int


class RankedAccount(Answer):
    account_id: str
    posted: MinorUnits


class StatisticsAnswer(Answer):
    users: UsersByStatus
    currencies: list[CurrencyStatistics]
    days: Annotated[list[DayStatistics], Field(description="The latest days on which money moved, newest first.")]
    busiest: Annotated[list[BusyAccount], Field(description="Accounts by number of transfers.")]
    ranking: Annotated[list[RankedAccount] | None, Field(description="Accounts by balance; null without `currency`.")]
    position: AsOfPosition


# ── examples (FastAPI leaves nulls out of them, so there are none) ───────────────────────────────────────────────────

USER_EXAMPLE: Final = {
    "id": ADA,
    "name": "Ada",
    "email": "ada@example.com",
    "status": "active",
    "created_at": MOMENT,
    "changed_at": MOMENT,
    "version": 1,
}
BALANCE_EXAMPLE: Final = {"account_id": EUROS, "currency": "EUR", "posted": 1250, "held": 0, "available": 1250}
ACCOUNT_EXAMPLE: Final = {
    "id": EUROS,
    "owner_id": ADA,
    "currency": "EUR",
    "status": "open",
    "overdraft_limit": 0,
    "opened_at": MOMENT,
    "changed_at": MOMENT,
    "version": 2,
    "balance": BALANCE_EXAMPLE,
}
ACTIVITY_EXAMPLE: Final = {
    "id": TRANSFER,
    "kind": "transfer",
    "from_account_id": EUROS,
    "to_account_id": SAVINGS,
    "amount": 1250,
    "currency": "EUR",
    "occurred_at": MOMENT,
    "recorded_at": MOMENT,
    "reference": "rent",
    "position": 5,
}
TRANSFER_EXAMPLE: Final = {**ACTIVITY_EXAMPLE, "metadata": {"order": "1042"}}
ENTRY_EXAMPLE: Final = {
    "account_id": EUROS,
    "transfer_id": TRANSFER,
    "kind": "transfer",
    "amount": -1250,
    "balance": 0,
    "currency": "EUR",
    "counterparty_account_id": SAVINGS,
    "occurred_at": MOMENT,
    "recorded_at": MOMENT,
    "reference": "rent",
    "position": 5,
}
EVENT_EXAMPLE: Final = {
    "position": 4,
    "event_id": EVENT,
    "type": "FundsDeposited",
    "schema_version": 1,
    "data": {"account_id": EUROS, "amount": 1250, "balance": 1250, "currency": "EUR", "transfer_id": TRANSFER},
    "metadata": {"command": "Deposit"},
    "recorded_at": MOMENT,
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
SEAL_EXAMPLE: Final = {
    "ledger_id": "main",
    "position": 4,
    "root": "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456",
    "signature": "d2c1a0b9" * 16,
    "key_id": "8d3f6e2b1c0a9f47",
    "sealed_at": MOMENT,
}
REFUSAL_EXAMPLE: Final = {
    "refused_at": MOMENT,
    "code": "forbidden",
    "api": "commands",
    "method": "POST",
    "path": "/v1/deposits",
    "address": "192.0.2.7",
    "principal": "ada",
    "key_id": "k3vq7m2xnp",
    "ledger_id": "main",
    "request_id": "0198c5a0-0000-7000-8000-0000000000f1",
    "count": 1,
}
RECEIPT_EXAMPLE: Final = {
    "format": "daybook-receipt-1",
    "position": 4,
    "event": {
        "hash_before": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ledger_id": "main",
        **{name: value for name, value in EVENT_EXAMPLE.items() if name != "hash"},
    },
    "hash": EVENT_EXAMPLE["hash"],
    "leaf_index": 3,
    "audit_path": ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"],
    "seal": SEAL_EXAMPLE,
}
CONSISTENCY_EXAMPLE: Final = {
    "from": SEAL_EXAMPLE,
    "to": SEAL_EXAMPLE,
    "path": ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"],
}
EXPORT_EXAMPLE: Final = {
    "user": USER_EXAMPLE,
    "accounts": [ACCOUNT_EXAMPLE],
    "transfers": [TRANSFER_EXAMPLE],
    "events": [
        {
            "position": 1,
            "event_id": EVENT,
            "type": "UserCreated",
            "schema_version": 1,
            "data": {"user_id": ADA, "name": "Ada", "email": "ada@example.com", "email_hash": "9f86d081884c7d659a2feaa0c55ad015"},
            "recorded_at": MOMENT,
        }
    ],
}
STREAM_EVENT_EXAMPLE: Final = {"version": 2, **EVENT_EXAMPLE}
PROGRESS_EXAMPLE: Final = {
    "name": "accounts",
    "generation": 1,
    "state": "behind",
    "position": 40,
    "lag_events": 2,
    "lag_seconds": 3.25,
    "dead_letters": 0,
    "parked_streams": 0,
    "cause": "event 41, recorded 3 s ago, is not in: writing to MongoDB takes 94% of the time, at 310 events/s",
}
STATISTICS_EXAMPLE: Final = {
    "users": {"active": 1, "inactive": 0, "erased": 0},
    "currencies": [{"currency": "EUR", "accounts": {"open": 2, "frozen": 0, "closed": 0}, "posted": 1250, "outside": -1250}],
    "days": [{"day": "2026-11-21", "transfers": 2, "amounts": {"EUR": 2500}}],
    "busiest": [{"account_id": EUROS, "transfers": 2}],
    "ranking": [{"account_id": SAVINGS, "posted": 1250}, {"account_id": EUROS, "posted": 0}],
}


def as_of(example: dict[str, Any]) -> dict[str, Any]:
    return {**example, "position": 42}


def page_of(example: dict[str, Any]) -> dict[str, Any]:
    return {"items": [example], "next": "Ct9FmEcvrOb9gOdN8fORwFs0MV0", "position": 42}
