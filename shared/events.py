"""Every fact that Daybook records. The class names and field names below are the storage format: never rename one.

A fact is one event, whatever it touches: a transfer is one `FundsTransferred` that belongs to the streams of both accounts
and to its own. `streams()` names them; the first is the one the fact is about. Events of money carry the balances after
them, so that no reader has to ask for the state before. To change an event's fields, raise its `schema_version` and add an
upcaster; old versions decode forever.

A field that is marked `Personal` is stored sealed (see `shared.personal_data`). Mark everything that tells who a person is.

No I/O here, no clock, no ids made.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from shared.errors import UnknownEvent
from shared.personal_data import Keys, Personal, Place, SealBroken, opened_members, personal_fields, sealed_members

# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def user_stream(user_id: str) -> str:
    return f"user-{user_id}"


def email_stream(email_hash: str) -> str:
    """Holds who has the address. Being a stream, it is unique under every race without a table of its own."""
    return f"email-{email_hash}"


def account_stream(account_id: str) -> str:
    return f"account-{account_id}"


def transfer_stream(transfer_id: str) -> str:
    """Makes a transfer's id unique forever, also after its idempotency key is forgotten by the client.

    All that happens in it happens to the accounts of the transfer too.
    """
    return f"transfer-{transfer_id}"


def projection_stream(projection: str) -> str:
    """Holds what operators decided about one read model of the ledger."""
    return f"projection-{projection}"


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all events have in common: immutable, compared by value, stored without the fields that stand at their default."""

    schema_version: ClassVar[int] = 1

    def streams(self) -> tuple[str, ...]:
        """The streams that this fact belongs to, the one it is about first."""
        raise NotImplementedError


OfUser = Annotated[str, Personal("user_id")]


class UserCreated(Fact, frozen=True):
    """`email_hash` is keyed (see `shared.person_keys.ADDRESSES`): it names a stream without telling the address."""

    user_id: str
    name: OfUser
    email: OfUser
    email_hash: str

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.user_id), email_stream(self.email_hash)


class UserChanged(Fact, frozen=True):
    """All fields as they are after the change; the address before it names the stream that is released."""

    user_id: str
    name: OfUser
    email: OfUser
    email_hash: str
    email_hash_before: str

    def streams(self) -> tuple[str, ...]:
        if self.email_hash == self.email_hash_before:
            return (user_stream(self.user_id),)
        return user_stream(self.user_id), email_stream(self.email_hash_before), email_stream(self.email_hash)


class UserDeactivated(Fact, frozen=True):
    user_id: str

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)


class UserReactivated(Fact, frozen=True):
    user_id: str

    def streams(self) -> tuple[str, ...]:
        return (user_stream(self.user_id),)


class UserErased(Fact, frozen=True):
    """The key of the user is destroyed with it. The accounts stay, and so does their money; the address is free."""

    user_id: str
    email_hash: str
    status_before: Literal["active", "inactive"]

    def streams(self) -> tuple[str, ...]:
        return user_stream(self.user_id), email_stream(self.email_hash)


class AccountOpened(Fact, frozen=True):
    """`overdraft_limit` in minor units, 0 or more: the balance never goes below its negative."""

    account_id: str
    owner_id: str
    currency: str
    overdraft_limit: int

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountFrozen(Fact, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountUnfrozen(Fact, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class AccountClosed(Fact, frozen=True):
    account_id: str
    currency: str

    def streams(self) -> tuple[str, ...]:
        return (account_stream(self.account_id),)


class FundsDeposited(Fact, frozen=True):
    """Money from the outside world. `balance` is what the account has after it, in minor units.

    `occurred_at`, here and below, is RFC 3339 in UTC, or None where the fact happened when it was recorded.
    """

    transfer_id: str
    account_id: str
    amount: int
    currency: str
    balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), account_stream(self.account_id)


class FundsWithdrawn(Fact, frozen=True):
    """Money to the outside world. `balance` is what the account has after it."""

    transfer_id: str
    account_id: str
    amount: int
    currency: str
    balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return transfer_stream(self.transfer_id), account_stream(self.account_id)


class FundsTransferred(Fact, frozen=True):
    """`from_balance` and `to_balance` are what the accounts have after it."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: int
    currency: str
    from_balance: int
    to_balance: int
    occurred_at: str | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None

    def streams(self) -> tuple[str, ...]:
        return (
            transfer_stream(self.transfer_id),
            account_stream(self.from_account_id),
            account_stream(self.to_account_id),
        )


class ProjectionEventSkipped(Fact, frozen=True):
    """The event at `position` could not be applied to the read model and is left out of it for good, in every generation.

    Who decided it stands in the metadata, as with every event.
    """

    projection: str
    position: int
    reason: str

    def streams(self) -> tuple[str, ...]:
        return (projection_stream(self.projection),)


UserEvent = UserCreated | UserChanged | UserDeactivated | UserReactivated | UserErased
MoneyEvent = FundsDeposited | FundsWithdrawn | FundsTransferred
AccountEvent = AccountOpened | AccountFrozen | AccountUnfrozen | AccountClosed | MoneyEvent
ProjectionEvent = ProjectionEventSkipped
Event = UserEvent | AccountEvent | ProjectionEvent

EVENT_TYPES: Final[dict[str, type[Event]]] = {
    event_type.__name__: event_type
    for event_type in (
        UserCreated,
        UserChanged,
        UserDeactivated,
        UserReactivated,
        UserErased,
        AccountOpened,
        AccountFrozen,
        AccountUnfrozen,
        AccountClosed,
        FundsDeposited,
        FundsWithdrawn,
        FundsTransferred,
        ProjectionEventSkipped,
    )
}

# ── storage ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: Final[dict[tuple[str, int], Upcaster]] = {}
"""(type, schema version) → what turns its data into those of the next version."""


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event at its place in a ledger's log.

    `metadata` says who caused it and how; `hash` covers the event and
    the hash before it.
    """

    ledger_id: str
    position: int
    event_id: str
    event: Event
    metadata: dict[str, Any]
    recorded_at: datetime
    hash: bytes


canonical: Final = msgspec.json.Encoder(order="sorted", enc_hook=int).encode
"""Canonical JSON: sorted keys, no white space. There are no floats in it, so it is the same bytes everywhere.

What is no JSON but an integer, as MongoDB's driver reads one of 64 bits, is written as one.
"""


def encode(ledger_id: str, event_id: str, event: Event, keys: Keys) -> bytes:
    """Canonical JSON of the event, as it is stored and hashed.

    Raises:
        KeyError: a person's key is missing.
    """
    kind = type(event)
    if not personal_fields(kind):
        return canonical(event)
    return canonical(sealed_members(event, _place(ledger_id, event_id, kind.__name__), keys))


def _place(ledger_id: str, event_id: str, type_name: str) -> Place:
    return "event", ledger_id, event_id, type_name


class Sealed(msgspec.Struct, frozen=True):
    """What it takes to read the personal fields of a stored event."""

    ledger_id: str
    event_id: str
    keys: Keys


NO_KEYS: Final = Sealed("", "", {})
"""With these, all that is personal reads as if it were erased."""


def decode(type_name: str, schema_version: int, data: str | bytes, sealed: Sealed) -> Event:
    """The event that was stored as this JSON, brought up to today's schema version.

    Raises:
        UnknownEvent: the type is unknown, the version is newer than this code, or the data do not fit.
    """
    event_type = EVENT_TYPES.get(type_name)
    if event_type is None:
        msg = f"event type {type_name!r} is unknown to this version of Daybook; deploy the code that wrote it"
        raise UnknownEvent(msg)
    try:
        if schema_version == event_type.schema_version and not personal_fields(event_type):
            return _DECODERS[type_name].decode(data)
        return _upcast(event_type, schema_version, msgspec.json.decode(data), sealed)
    except (msgspec.ValidationError, SealBroken) as invalid:
        msg = f"{type_name} does not fit its definition: {invalid}"
        raise UnknownEvent(msg) from invalid


_DECODERS: Final = {name: msgspec.json.Decoder(event_type) for name, event_type in EVENT_TYPES.items()}


def _upcast(event_type: type[Event], schema_version: int, data: dict[str, Any], sealed: Sealed) -> Event:
    name = event_type.__name__
    if schema_version > event_type.schema_version:
        known = f"this code knows up to {event_type.schema_version}"
        msg = f"{name} has schema version {schema_version}, {known}; deploy the code that wrote it"
        raise UnknownEvent(msg)
    data = upcasted(name, schema_version, event_type.schema_version, data, UPCASTERS)
    place = _place(sealed.ledger_id, sealed.event_id, name)
    return msgspec.convert(opened_members(event_type, data, place, sealed.keys), event_type)


def upcasted(
    name: str, version: int, to: int, data: dict[str, Any], upcasters: Mapping[tuple[str, int], Upcaster]
) -> dict[str, Any]:
    """The data of an event as its schema version `to` has them, one version after another.

    Raises:
        UnknownEvent: there never was such a version.
    """
    for step in range(version, to):
        if (name, step) not in upcasters:
            raise UnknownEvent(f"{name} never had schema version {version}")
        data = upcasters[name, step](data)
    return data


@lru_cache(maxsize=256)  # events of one transaction share their moment
def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, always 27 characters: sorts as text, and no store rounds it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
