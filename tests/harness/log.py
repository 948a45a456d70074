"""Makes events for tests and appends them to a log without the command API.

`Book` makes events with correct balances, as the deciders would. `append` writes them as the command API does, with correct
versions, heads, snapshots and hashes.
"""

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any, Final, get_args

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.domain.stream_folds import fold_of
from command_api.domain.user import hash_email
from shared.log.account_events import (
    AccountClosed,
    AccountFrozen,
    AccountLimitsChanged,
    AccountOpened,
    AccountUnfrozen,
    OverdraftLimitChanged,
)
from shared.log.append import NewEvent, StreamEvent, append_prepared, prepare_append
from shared.log.day_events import DayClosed
from shared.log.event_struct import ScheduledRun
from shared.log.events import Event, RecordedEvent
from shared.log.heads import Head, StreamHead, lock_streams
from shared.log.hold_events import HoldPlaced, HoldReleased
from shared.log.money_events import (
    FundsDeposited,
    FundsExchanged,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    Leg,
    MoneyEvent,
    TransferReversed,
)
from shared.log.schedule_events import ScheduleCreated
from shared.log.snapshots import make_head, read_state
from shared.log.user_events import (
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserReactivated,
    metadata_text,
)
from shared.money import exponent
from shared.privacy.encryption import KeysByPerson
from shared.privacy.master_keys import master_key_id, wrap
from shared.privacy.person_keys import PersonKeys, WrappedKey
from shared.proof.merkle import EMPTY_ROOT
from shared.schedule_rules import PlannedRun
from shared.setting_values import read_master_keys
from shared.settings import Settings
from shared.stores.postgres import driver_of

MASTER_KEY: Final = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
PERSON_KEY: Final = b"k" * 32
"""The key of each person in forged ledgers. It also keys the hashes of addresses in the events of `Book`."""
# Only the master key of these settings is used.
PERSON_KEYS: Final = PersonKeys(Settings(database_url="", mongo_url="", redis_url="", secret="x" * 32, master_keys=MASTER_KEY))
NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
APPEND_MAX: Final = 2_000
_ADDRESSES: Final[dict[str, str]] = {}
"""The addresses of all books, by their hashes with `PERSON_KEY`."""


class Book:
    """Makes events as the deciders would. Ids come from a seed, so the same calls make the same events."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.emails: dict[str, str] = {}
        self.accounts: dict[str, str] = {}
        self.balances: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self.holds: dict[str, HoldPlaced] = {}
        self.remaining: dict[str, int] = {}
        self.reversed: dict[str, int] = {}
        self.day = date(1999, 12, 31) + timedelta(days=300 * (seed % 25))  # so that two books of a ledger close different days
        self.carried: dict[str, Fraction] = {}
        self._reversible: list[MoneyEvent] = []
        self._histories: dict[int, Iterator[Event]] = {}

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def create_user(self, name: str = "Ada", email: str | None = None) -> UserCreated:
        user_id = self.new_id()
        self.emails[user_id] = email or f"{user_id}@example.com"
        return UserCreated(user_id=user_id, name=name, email=self.emails[user_id], email_hash=_hash(self.emails[user_id]))

    def change_user(self, user_id: str, name: str, email: str | None = None, **metadata: str) -> UserChanged:
        before = self.emails[user_id]
        after = self.emails[user_id] = email or before
        return UserChanged(
            user_id=user_id,
            name=name,
            email=after,
            email_hash=_hash(after),
            email_hash_before=_hash(before),
            metadata=metadata_text(metadata),
        )

    def close_day(self) -> DayClosed:
        """Makes the event that closes the next of some days of which no log of these tests has an event."""
        self.day += timedelta(days=1)
        return DayClosed(day=self.day.isoformat(), time_zone="UTC", up_to=0, events=0, root=EMPTY_ROOT.hex())

    def erase_user(self, user_id: str) -> UserErased:
        """Makes the event that erases an active user."""
        return UserErased(user_id=user_id, email_hash=_hash(self.emails.pop(user_id)), status_before="active")

    def open_account(self, owner_id: str, currency: str = "EUR", overdraft_limit: int = 0) -> AccountOpened:
        account_id = self.new_id()
        self.accounts[account_id] = currency
        self.balances[account_id] = 0
        self.limits[account_id] = overdraft_limit
        return AccountOpened(account_id=account_id, owner_id=owner_id, currency=currency, overdraft_limit=overdraft_limit)

    def change_limit(self, account_id: str, overdraft_limit: int) -> OverdraftLimitChanged:
        before, self.limits[account_id] = self.limits[account_id], overdraft_limit
        return OverdraftLimitChanged(
            account_id=account_id,
            currency=self.accounts[account_id],
            overdraft_limit=overdraft_limit,
            overdraft_limit_before=before,
        )

    def limit_spending(self, account_id: str, **limits: Any) -> AccountLimitsChanged:
        return AccountLimitsChanged(account_id=account_id, currency=self.accounts[account_id], **limits)

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

    def place_hold(self, payer: str, amount: int, payee: str | None = None, **details: Any) -> HoldPlaced:
        placed = HoldPlaced(
            hold_id=self.new_id(),
            from_account_id=payer,
            to_account_id=payee,
            amount=amount,
            currency=self.accounts[payer],
            **details,
        )
        self.holds[placed.hold_id], self.remaining[placed.hold_id] = placed, amount
        return placed

    def capture(self, hold_id: str, amount: int, *, final: bool = False, **details: Any) -> HoldCaptured:
        hold = self.holds[hold_id]
        left = self.remaining[hold_id] - amount
        self.remaining[hold_id] = 0 if final else left
        self.balances[hold.from_account_id] -= amount
        if hold.to_account_id:
            self.balances[hold.to_account_id] += amount
        return HoldCaptured(
            transfer_id=self.new_id(),
            hold_id=hold_id,
            from_account_id=hold.from_account_id,
            to_account_id=hold.to_account_id,
            amount=amount,
            currency=hold.currency,
            from_balance=self.balances[hold.from_account_id],
            to_balance=self.balances[hold.to_account_id] if hold.to_account_id else None,
            remaining=self.remaining[hold_id],
            released=left if final else 0,
            expires_at=hold.expires_at,
            **details,
        )

    def release(self, hold_id: str) -> HoldReleased:
        hold = self.holds[hold_id]
        amount, self.remaining[hold_id] = self.remaining[hold_id], 0
        return HoldReleased(hold_id=hold_id, from_account_id=hold.from_account_id, amount=amount, currency=hold.currency)

    def plan(self, payer: AccountOpened, payee: str, amount: int, due_at: str = "2199-01-01T00:00:00.000000Z") -> ScheduleCreated:
        """Makes the event that plans one transfer."""
        return ScheduleCreated(
            schedule_id=self.new_id(),
            owner_id=payer.owner_id,
            from_account_id=payer.account_id,
            to_account_id=payee,
            amount=amount,
            currency=payer.currency,
            next_run=PlannedRun(due_at),
        )

    def run(self, planned: ScheduleCreated, number: int, due_at: str, next_run: PlannedRun | None = None) -> FundsTransferred:
        """Makes the event of a run of a schedule."""
        made = self.transfer(planned.from_account_id, planned.to_account_id, planned.amount, occurred_at=due_at)
        return msgspec.structs.replace(made, run=ScheduledRun(planned.schedule_id, number, next_run))

    def reverse(self, moved: MoneyEvent, amount: int, **details: Any) -> TransferReversed:
        """Makes the event that reverses a part of a transfer."""
        posted = {each.account_id: each.amount for each in moved.postings()}
        payer, payee = next(each for each in posted if posted[each] > 0), next(each for each in posted if posted[each] < 0)
        before, whole = self.reversed.get(moved.transfer_id, 0), max(posted.values())
        self.reversed[moved.transfer_id] = before + amount
        for account_id, change in ((payer, -amount), (payee, amount)):
            if account_id:
                self.balances[account_id] += change
        return TransferReversed(
            transfer_id=self.new_id(),
            reverses=moved.transfer_id,
            from_account_id=payer,
            to_account_id=payee,
            amount=amount,
            currency=moved.currency,
            from_balance=self.balances[payer] if payer else None,
            to_balance=self.balances[payee] if payee else None,
            reversed=before + amount,
            remaining=whole - before - amount,
            **details,
        )

    def move(self, *legs: tuple[str | None, int], currency: str = "EUR", **details: Any) -> FundsMoved:
        """Makes a transfer with postings from accounts and amounts. `currency` is that of the outside world."""
        for account_id, amount in legs:
            if account_id:
                self.balances[account_id] += amount
        moved = tuple(
            Leg(each, self.accounts[each], amount, self.balances[each]) if each else Leg(None, currency, amount, None)
            for each, amount in legs
        )
        return FundsMoved(transfer_id=self.new_id(), legs=moved, **details)

    def exchange(self, *accounts: str, amount: int, rate: str, **details: Any) -> FundsExchanged:
        """Makes an exchange between five accounts, in the order of its legs. The last one is the remainder account."""
        source, target = self.accounts[accounts[0]], self.accounts[accounts[3]]
        worth = amount * Fraction(rate) * Fraction(10) ** (exponent(target) - exponent(source))
        carried = self.carried.get(accounts[4], Fraction(0)) + worth - round(worth)
        whole = int(carried)
        self.carried[accounts[4]] = carried - whole
        amounts = -amount, amount, -round(worth) - whole, round(worth), *((whole,) if whole else ())
        moved = self.move(*zip(accounts, amounts, strict=False))
        remainder, carries = (
            f"{Decimal(each.numerator) / each.denominator:f}" for each in (worth - round(worth), carried - whole)
        )
        return FundsExchanged(
            transfer_id=moved.transfer_id,
            legs=moved.legs,
            rate=rate,
            remainder_account_id=accounts[4],
            remainder=remainder,
            carried=carries,
            **details,
        )

    def held(self, account_id: str) -> int:
        return sum(self.remaining[hold_id] for hold_id, hold in self.holds.items() if hold.from_account_id == account_id)

    def history(self, count: int, accounts: int = 10) -> Iterator[Event]:
        """Yields `count` random events: first users and accounts, then everything that can happen to them.

        A further call continues with the same users and accounts.
        """
        # The same generator goes on, because some of its events need the next one: an account that is frozen is unfrozen.
        return islice(self._histories.setdefault(accounts, self._endless(accounts)), count)

    def seldom(self, count: int = 10) -> list[Event]:
        """Returns closed days and schedules with runs, of which `history` has few or none.

        The runs are not due, so no command could have recorded them. They are for tests of read models.
        """
        user = self.create_user()
        payer, payee = (self.open_account(user.user_id) for _ in range(2))
        events: list[Event] = [user, payer, payee, self.deposit(payer.account_id, count)]
        for _ in range(count):
            planned = self.plan(payer, payee.account_id, 1)
            events += [planned, self.run(planned, 1, "2199-01-01T00:00:00.000000Z"), self.close_day()]
        return events

    def _endless(self, accounts: int) -> Iterator[Event]:
        for number in range(len(self.accounts), accounts):
            created = self.create_user(name=f"User {number}")
            yield created
            opened = self.open_account(created.user_id, self.random.choice(("EUR", "EUR", "JPY")), 1_000)
            yield opened
            yield self.deposit(opened.account_id, self.random.randrange(1, 100_000))
        while True:
            for event in self._anything():
                yield event
                if isinstance(event, MoneyEvent) and not isinstance(event, TransferReversed | FundsMoved):
                    self._reversible.append(event)

    def _anything(self) -> Iterator[Event]:  # noqa: C901 # a branch for each thing that can happen
        chance = self.random.random()
        user_id, account_id = self.random.choice(list(self.emails)), self.random.choice(list(self.accounts))
        currency = self.accounts[account_id]
        if chance < 0.02:
            yield UserDeactivated(user_id=user_id)
            yield UserReactivated(user_id=user_id)
        elif chance < 0.04:
            yield self.change_user(user_id, f"Ada {self.random.random()}", f"{self.new_id()}@example.com", number=user_id)
        elif chance < 0.06:
            yield AccountFrozen(account_id=account_id, currency=currency)
            yield AccountUnfrozen(account_id=account_id, currency=currency)
        elif chance < 0.07:
            closing = self.open_account(user_id)
            yield closing
            yield AccountClosed(account_id=closing.account_id, currency=self.accounts.pop(closing.account_id))
        elif chance < 0.09:
            least = max(0, self.held(account_id) - self.balances[account_id])
            limit = self.random.randint(least, least + 2_000)
            if limit != self.limits[account_id]:
                yield self.change_limit(account_id, limit)
        elif chance < 0.14:
            yield from self._hold(account_id)
        elif chance > 0.98:
            yield from self._postings(account_id)
        elif chance > 0.96 and self._reversible:
            yield from self._reversal()
        elif 0.955 < chance <= 0.96:  # a limit that no transfer of a history reaches
            yield self.limit_spending(account_id, per_transfer_max=self.random.randrange(10**6, 10**12))
        elif 0.94 < chance <= 0.955:
            yield from self._exchange(account_id)
        else:
            yield from self._money(account_id)

    def _hold(self, account_id: str) -> Iterator[Event]:
        """Places a hold, or captures or releases one that was placed before."""
        held = [hold_id for hold_id, remaining in self.remaining.items() if remaining]
        available = self.balances[account_id] + self.limits[account_id] - self.held(account_id)
        others = [other for other in self.accounts if other != account_id and self._same_currency(other, account_id)]
        if (not held or self.random.random() < 0.5) and available > 0:
            payee = self.random.choice([None, *others])
            expires_at = self.random.choice([None, "2199-12-31T23:59:59.999999Z"])
            yield self.place_hold(account_id, self.random.randint(1, min(available, 500)), payee, expires_at=expires_at)
        elif held and self.random.random() < 0.8:
            hold_id = self.random.choice(held)
            amount = self.random.randint(1, self.remaining[hold_id])
            yield self.capture(hold_id, amount, final=self.random.random() < 0.5, reference="captured")
        elif held:
            yield self.release(self.random.choice(held))

    def _reversal(self) -> Iterator[Event]:
        """Reverses all or a part of a transfer, if it has something left and the money is there."""
        moved = self.random.choice(self._reversible[-100:])
        [payer] = [each.account_id for each in moved.postings() if each.amount > 0]
        left = moved.amount - self.reversed.get(moved.transfer_id, 0)
        available = self.balances[payer] + self.limits[payer] - self.held(payer) if payer else left
        if min(left, available) > 0 and (not payer or payer in self.accounts):
            yield self.reverse(moved, self.random.choice([min(left, available), 1]), reference="reversed")

    def _postings(self, account_id: str) -> Iterator[Event]:
        """Moves money from one account to all others in its currency and to the outside world, and some into another currency."""
        others = [other for other in self.accounts if other != account_id and self._same_currency(other, account_id)][:50]
        foreign = [other for other in self.accounts if not self._same_currency(other, account_id)][:1]
        amount = len(others) + 1
        if self.balances[account_id] + self.limits[account_id] - self.held(account_id) >= amount:
            legs: list[tuple[str | None, int]] = [(account_id, -amount), *((other, 1) for other in others), (None, 1)]
            moved = self.move(*legs, currency=self.accounts[account_id], reference="shared")
            abroad = [Leg(None, self.accounts[each], -7, None) for each in foreign]
            for each in foreign:
                self.balances[each] += 7
                abroad.append(Leg(each, self.accounts[each], 7, self.balances[each]))
            yield msgspec.structs.replace(moved, legs=(*moved.legs, *abroad))

    def _exchange(self, account_id: str) -> Iterator[Event]:
        """Changes money of an account into another currency, at a rate that leaves a remainder."""
        others = [other for other in self.accounts if other != account_id and self._same_currency(other, account_id)][:1]
        foreign = [other for other in self.accounts if not self._same_currency(other, account_id)][:3]
        if len(others) + len(foreign) == 4 and self._same_currency(foreign[0], foreign[2]):
            rate, amount = ("105.25", 150) if self.accounts[account_id] == "EUR" else ("0.0525", 30)
            needs = ((account_id, amount), (foreign[0], 200), (foreign[2], 1))
            if all(self.balances[each] + self.limits[each] - self.held(each) >= needed for each, needed in needs):
                yield self.exchange(account_id, *others, *foreign, amount=amount, rate=rate, reference="changed")

    def _money(self, account_id: str) -> Iterator[Event]:
        available = self.balances[account_id] + self.limits[account_id] - self.held(account_id)
        others = [other for other in self.accounts if other != account_id and self._same_currency(other, account_id)]
        if available < 1 or self.random.random() < 0.1:
            yield self.deposit(account_id, self.random.randrange(1, 10_000), reference="salary")
        elif not others or self.random.random() < 0.1:
            yield self.withdraw(account_id, self.random.randint(1, available), occurred_at="2020-02-29T12:00:00.000000Z")
        else:
            payee = self.random.choice(others)
            yield self.transfer(account_id, payee, self.random.randint(1, min(available, 1_000)), metadata={"k-y_1": "v"})

    def _same_currency(self, one: str, other: str) -> bool:
        return self.accounts[one] == self.accounts[other]


def _hash(email: str) -> str:
    hashed = hash_email(email, PERSON_KEY)
    _ADDRESSES[hashed] = email
    return hashed


def _with_hashes(event: Event, pepper: bytes) -> Event:
    """Returns the event with the hashes that addresses have in a ledger, in place of those with `PERSON_KEY`."""
    hashes = {
        name: hash_email(_ADDRESSES[getattr(event, name)], pepper)
        for name in ("email_hash", "email_hash_before")
        if getattr(event, name, None) in _ADDRESSES
    }
    return msgspec.structs.replace(event, **hashes) if hashes else event


def wrapped_keys(ledger_id: str, people: set[str]) -> list[WrappedKey]:
    """Returns `PERSON_KEY` as the stored key of each of these people."""
    master_key = read_master_keys(MASTER_KEY)[0]
    return [
        (person_id, wrap(PERSON_KEY, master_key, ("person-key", ledger_id, person_id)), master_key_id(master_key))
        for person_id in sorted(people)
    ]


def recorded(events: Iterable[Event], first: int = 1) -> list[RecordedEvent]:
    """Converts events to recorded events, one second apart, as a read of the log would return them. Needs no database."""
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
    """Appends events in transactions of up to `APPEND_MAX` events, and returns the new head's position.

    It does not check that the events fit the log.
    """
    position = 0
    rest = iter(events)
    while batch := list(islice(rest, APPEND_MAX)):
        async with engine.begin() as connection:
            # On a busy machine, folding a batch can take longer than a transaction of Daybook may stand idle.
            await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
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
    """Appends events in the caller's transaction, and returns the new head's position."""
    pepper = await PERSON_KEYS.pepper(connection, ledger_id)
    events = [_with_hashes(event, pepper) for event in events]
    stream_ids = sorted({stream_id for event in events for stream_id in event.streams()})
    head, locked = await lock_streams(connection, ledger_id, stream_ids)
    created = {event.user_id for event in events if isinstance(event, UserCreated)}
    people = {event.user_id for event in events if isinstance(event, get_args(UserEvent))}
    keys = await PERSON_KEYS.require(connection, ledger_id, people, created)
    streams = {stream_id: _loaded(ledger_id, stream_id, locked.get(stream_id), keys) for stream_id in stream_ids}
    members = list(_evolve(streams, head, events))
    new_events = [NewEvent(str(uuid.uuid4()), event, {"principal": "test"}) for event in events]
    heads = [
        make_head(fold_of(stream_id), ledger_id, stream_id, stream.version, stream.position, stream.state, keys)
        for stream_id, stream in streams.items()
    ]
    prepared = prepare_append(ledger_id, head, new_events, members, heads, [], keys)
    await append_prepared(await driver_of(connection), prepared)
    await PERSON_KEYS.forget(connection, ledger_id, {event.user_id for event in events if isinstance(event, UserErased)})
    return head.position + len(events)


def _loaded(ledger_id: str, stream_id: str, head: StreamHead | None, keys: KeysByPerson) -> _Stream:
    fold = fold_of(stream_id)
    if head is None:
        return _Stream(0, 0, fold.initial)
    return _Stream(head.version, head.position, read_state(fold, ledger_id, head, keys))


def _evolve(streams: dict[str, _Stream], head: Head, events: Sequence[Event]) -> Iterator[StreamEvent]:
    for position, event in enumerate(events, head.position + 1):
        for stream_id in event.streams():
            stream = streams[stream_id]
            stream.version += 1
            stream.position = position
            stream.state = fold_of(stream_id).evolve(stream.state, event)
            yield StreamEvent(stream_id, stream.version, position)
