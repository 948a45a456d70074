"""A log for tests: events whose balances add up, and a way to append them without the command API.

`Book` makes events and keeps count, as the deciders would. `append` writes them as the command handler does: versions, heads,
snapshots and hashes are right.
"""

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, get_args

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.fold import snapshot_place
from command_api.folds import fold_of
from shared import event_store
from shared.connections import driver_of
from shared.event_store import Head, NewEvent, StreamEvent, StreamHead
from shared.events import (
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    Event,
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    RecordedEvent,
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
)
from shared.person_keys import PersonKeys
from shared.personal_data import Keys
from shared.settings import Settings

MASTER_KEY: Final = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
# Only the master key of these settings is looked at.
PERSON_KEYS: Final = PersonKeys(Settings(database_url="", mongo_url="", redis_url="", secret="x" * 32, master_keys=MASTER_KEY))
NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
APPEND_MAX: Final = 2_000


class Book:
    """Makes events as the deciders would. Ids come from a seed: the same calls make the same events."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.emails: dict[str, str] = {}
        self.accounts: dict[str, str] = {}
        self.balances: dict[str, int] = {}
        self.limits: dict[str, int] = {}

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def create_user(self, name: str = "Ada", email: str | None = None) -> UserCreated:
        user_id = self.new_id()
        self.emails[user_id] = email or f"{user_id}@example.com"
        return UserCreated(user_id=user_id, name=name, email=self.emails[user_id], email_hash=_hash(self.emails[user_id]))

    def change_user(self, user_id: str, name: str, email: str | None = None) -> UserChanged:
        before = self.emails[user_id]
        after = self.emails[user_id] = email or before
        return UserChanged(user_id=user_id, name=name, email=after, email_hash=_hash(after), email_hash_before=_hash(before))

    def erase_user(self, user_id: str) -> UserErased:
        """Of a user who is active."""
        return UserErased(user_id=user_id, email_hash=_hash(self.emails.pop(user_id)), status_before="active")

    def open_account(self, owner_id: str, currency: str = "EUR", overdraft_limit: int = 0) -> AccountOpened:
        account_id = self.new_id()
        self.accounts[account_id] = currency
        self.balances[account_id] = 0
        self.limits[account_id] = overdraft_limit
        return AccountOpened(account_id=account_id, owner_id=owner_id, currency=currency, overdraft_limit=overdraft_limit)

    def deposit(self, account_id: str, amount: int, **details: Any) -> FundsDeposited:
        self.balances[account_id] += amount
        return FundsDeposited(
            transfer_id=self.new_id(),
            account_id=account_id,
            amount=amount,
            currency=self.accounts[account_id],
            balance=self.balances[account_id],
            **details,
        )

    def withdraw(self, account_id: str, amount: int, **details: Any) -> FundsWithdrawn:
        self.balances[account_id] -= amount
        return FundsWithdrawn(
            transfer_id=self.new_id(),
            account_id=account_id,
            amount=amount,
            currency=self.accounts[account_id],
            balance=self.balances[account_id],
            **details,
        )

    def transfer(self, payer: str, payee: str, amount: int, **details: Any) -> FundsTransferred:
        self.balances[payer] -= amount
        self.balances[payee] += amount
        return FundsTransferred(
            transfer_id=self.new_id(),
            from_account_id=payer,
            to_account_id=payee,
            amount=amount,
            currency=self.accounts[payer],
            from_balance=self.balances[payer],
            to_balance=self.balances[payee],
            **details,
        )

    def history(self, count: int, accounts: int = 10) -> Iterator[Event]:
        """Any `count` events: users and accounts first, then everything that can happen to them. Called again, it goes on."""
        return islice(self._endless(accounts), count)

    def _endless(self, accounts: int) -> Iterator[Event]:
        for number in range(len(self.accounts), accounts):
            created = self.create_user(name=f"User {number}")
            yield created
            opened = self.open_account(created.user_id, self.random.choice(("EUR", "EUR", "JPY")), 1_000)
            yield opened
            yield self.deposit(opened.account_id, self.random.randrange(1, 100_000))
        while True:
            yield from self._anything()

    def _anything(self) -> Iterator[Event]:
        chance = self.random.random()
        user_id, account_id = self.random.choice(list(self.emails)), self.random.choice(list(self.accounts))
        currency = self.accounts[account_id]
        if chance < 0.02:
            yield UserDeactivated(user_id=user_id)
            yield UserReactivated(user_id=user_id)
        elif chance < 0.04:
            yield self.change_user(user_id, f"Ada {self.random.random()}", f"{self.new_id()}@example.com")
        elif chance < 0.06:
            yield AccountFrozen(account_id=account_id, currency=currency)
            yield AccountUnfrozen(account_id=account_id, currency=currency)
        elif chance < 0.07:
            closing = self.open_account(user_id)
            yield closing
            yield AccountClosed(account_id=closing.account_id, currency=self.accounts.pop(closing.account_id))
        else:
            yield from self._money(account_id)

    def _money(self, account_id: str) -> Iterator[Event]:
        available = self.balances[account_id] + self.limits[account_id]
        others = [other for other in self.accounts if other != account_id and self._same_currency(other, account_id)]
        if available < 1 or self.random.random() < 0.1:
            yield self.deposit(account_id, self.random.randrange(1, 10_000), reference="salary")
        elif not others or self.random.random() < 0.1:
            yield self.withdraw(account_id, self.random.randint(1, available), occurred_at="2020-02-29T12:00:00.000000Z")
        else:
            payee = self.random.choice(others)
            yield self.transfer(account_id, payee, self.random.randint(1, min(available, 1_000)), metadata={"k.$y": "v"})

    def _same_currency(self, one: str, other: str) -> bool:
        return self.accounts[one] == self.accounts[other]


def _hash(email: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, email).hex


def recorded(events: Iterable[Event], first: int = 1) -> list[RecordedEvent]:
    """As the log would give them, one a second; for tests without a database."""
    return [
        RecordedEvent(
            ledger_id="main",
            position=position,
            event_id=str(uuid.UUID(int=position)),
            event=event,
            metadata={},
            recorded_at=NEW_YEAR + timedelta(seconds=position),
            hash=position.to_bytes(32, "big"),
        )
        for position, event in enumerate(events, first)
    ]


async def append(engine: AsyncEngine, events: Iterable[Event], ledger_id: str = "main") -> int:
    """In transactions of up to `APPEND_MAX` events. The head after it; events that do not fit the log are not refused."""
    position = 0
    rest = iter(events)
    while batch := list(islice(rest, APPEND_MAX)):
        async with engine.begin() as connection:
            position = await append_within(connection, batch, ledger_id)
    return position


async def make_ledger(engine: AsyncEngine, ledger_id: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO log_heads (ledger_id, position, hash, recorded_at) VALUES (:id, 0, '', now())"),
            {"id": ledger_id},
        )


class _Stream(msgspec.Struct):
    version: int
    position: int
    state: Any


async def append_within(connection: AsyncConnection, events: Sequence[Event], ledger_id: str = "main") -> int:
    """In the caller's transaction."""
    stream_ids = sorted({stream_id for event in events for stream_id in event.streams()})
    head, locked = await event_store.lock(connection, ledger_id, stream_ids)
    created = {event.user_id for event in events if isinstance(event, UserCreated)}
    people = {event.user_id for event in events if isinstance(event, get_args(UserEvent))}
    keys = await PERSON_KEYS.require(connection, ledger_id, people, created)
    streams = {stream_id: _loaded(ledger_id, stream_id, locked.get(stream_id), keys) for stream_id in stream_ids}
    members = list(_evolve(streams, head, events))
    new_events = [NewEvent(str(uuid.uuid4()), event, {"principal": "test"}) for event in events]
    heads = [
        StreamHead(stream_id, s.version, s.position, fold_of(stream_id).version, _snapshot(ledger_id, stream_id, s, keys))
        for stream_id, s in streams.items()
    ]
    entry = event_store.make_entry(ledger_id, head, new_events, members, heads, [], keys)
    await event_store.append(await driver_of(connection), entry)
    await PERSON_KEYS.forget(connection, ledger_id, {event.user_id for event in events if isinstance(event, UserErased)})
    return head.position + len(events)


def _snapshot(ledger_id: str, stream_id: str, stream: _Stream, keys: Keys) -> str:
    return fold_of(stream_id).write(stream.state, snapshot_place(ledger_id, stream_id, stream.version), keys)


def _loaded(ledger_id: str, stream_id: str, head: StreamHead | None, keys: Keys) -> _Stream:
    fold = fold_of(stream_id)
    if head is None:
        return _Stream(0, 0, fold.initial)
    state = fold.read(head.snapshot, snapshot_place(ledger_id, stream_id, head.version), keys)
    return _Stream(head.version, head.position, state)


def _evolve(streams: dict[str, _Stream], head: Head, events: Sequence[Event]) -> Iterator[StreamEvent]:
    for position, event in enumerate(events, head.position + 1):
        for stream_id in event.streams():
            stream = streams[stream_id]
            stream.version += 1
            stream.position = position
            stream.state = fold_of(stream_id).evolve(stream.state, event)
            yield StreamEvent(stream_id, stream.version, position)
