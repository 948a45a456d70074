"""Forged histories: events with valid hashes that no command could have recorded. Also writes them to ledger files."""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.ledger_file.format import LedgerFileWriter, person_key_lines
from shared.log.account_events import (
    AccountClosed,
    AccountFrozen,
    AccountLimitsChanged,
    AccountMetadataChanged,
    AccountOpened,
    AccountUnfrozen,
)
from shared.log.day_events import CurrencyTotals, DayClosed
from shared.log.encoding import canonical, encode
from shared.log.event_struct import Spent
from shared.log.events import Event
from shared.log.hash_chain import event_hash
from shared.log.heads import Head
from shared.log.hold_events import HoldExpired, HoldPlaced
from shared.log.ledger_events import LedgerChanged, LedgerClosed, LedgerCreated
from shared.log.money_events import (
    FundsDeposited,
    FundsExchanged,
    FundsMoved,
    FundsTransferred,
    FundsWithdrawn,
    HoldCaptured,
    TransferReversed,
)
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.read import StoredEvent
from shared.log.schedule_events import ScheduleCancelled, ScheduleChanged, ScheduleCreated, ScheduleRunRefused
from shared.log.stored_replies import StoredReply
from shared.log.user_events import UserChanged, UserCreated, UserDeactivated, UserErased, UserReactivated
from shared.privacy.person_keys import ADDRESSES
from shared.proof.merkle import EMPTY_ROOT
from shared.schedule_rules import PlannedRun, ScheduleRule
from tests.harness.log import NEW_YEAR, PERSON_KEY, Book, wrapped_keys

METADATA: Final = {"principal": "test"}
BEYOND: Final = 2**53


DAILY: Final = ScheduleRule("day", "09:00", "UTC")


def day_of(day: int) -> PlannedRun:
    """Returns the run of `DAILY` on a day of the month in which the events are."""
    return PlannedRun(f"2026-01-{day:02d}T09:00:00.000000Z", f"2026-01-{day:02d}")


class Scene:
    """A right history of eight events: two users, two accounts in EUR and one in JPY, two deposits and a transfer."""

    def __init__(self, seed: int = 0) -> None:
        self.book = Book(seed)
        self.ada, self.eve = self.book.create_user(), self.book.create_user()
        self.one = self.book.open_account(self.ada.user_id, overdraft_limit=100)
        self.two = self.book.open_account(self.eve.user_id)
        self.yen = self.book.open_account(self.eve.user_id, "JPY")
        ids = self.one.account_id, self.two.account_id
        self.events: list[Event] = [
            *(self.ada, self.eve, self.one, self.two, self.yen),
            *(self.book.deposit(account_id, 1_000) for account_id in ids),
            self.book.transfer(*ids, 10, reference="rent"),
        ]

    def deposit(self, amount: int = 10, **fields: Any) -> FundsDeposited:
        return msgspec.structs.replace(self.book.deposit(self.one.account_id, amount), **fields)

    def pay(self, amount: int = 10, **fields: Any) -> FundsTransferred:
        paid: FundsTransferred = self.book.transfer(self.one.account_id, self.two.account_id, amount)
        return msgspec.structs.replace(paid, **fields)

    def withdraw(self, amount: int = 10, **fields: Any) -> FundsWithdrawn:
        return msgspec.structs.replace(self.book.withdraw(self.one.account_id, amount), **fields)

    @property
    def paid(self) -> FundsTransferred:
        """The transfer of 10 from account one to account two."""
        return next(each for each in self.events if isinstance(each, FundsTransferred))

    def reversal(self, amount: int, **fields: Any) -> TransferReversed:
        return msgspec.structs.replace(self.book.reverse(self.paid, amount), **fields)

    def deposited_back(self, amount: int) -> TransferReversed:
        return self.book.reverse(next(each for each in self.events if isinstance(each, FundsDeposited)), amount)

    def moved(self, **of_last: Any) -> FundsMoved:
        """Makes a transfer of 5 from account one to account two with postings. The arguments change the last posting."""
        moved = self.book.move((self.one.account_id, -5), (self.two.account_id, 5))
        legs = (*moved.legs[:-1], msgspec.structs.replace(moved.legs[-1], **of_last))
        return msgspec.structs.replace(moved, transfer_id=str(uuid.UUID(int=77)), legs=legs)

    def exchanged(self, rate: str = "105.25", **fields: Any) -> list[Event]:
        """Makes an exchange of 150 cents of account one into yen, and before it the accounts and the money that it needs."""
        opened = [self.book.open_account(self.eve.user_id, "JPY", 5) for _ in range(2)]
        ids = self.one.account_id, self.two.account_id, self.yen.account_id, *(each.account_id for each in opened)
        filled = self.book.deposit(self.yen.account_id, 500)
        return [*opened, filled, msgspec.structs.replace(self.book.exchange(*ids, amount=150, rate=rate), **fields)]

    def misposted(self, place: int, **fields: Any) -> list[Event]:
        """Makes an exchange with another leg in one place."""
        *before, exchange = self.exchanged()
        assert isinstance(exchange, FundsExchanged)
        legs = [*exchange.legs]
        legs[place] = msgspec.structs.replace(legs[place], **fields)
        return [*before, msgspec.structs.replace(exchange, legs=tuple(legs))]

    @property
    def hold_id(self) -> str:
        return next(reversed(self.book.holds))

    def hold(self, expires_at: str | None = None) -> HoldPlaced:
        """Makes a hold of 100 for account two, as the event at position 9, recorded at 00:00:09."""
        return self.book.place_hold(self.one.account_id, 100, self.two.account_id, expires_at=expires_at)

    def plan(self, **fields: Any) -> ScheduleCreated:
        """Plans one transfer for the moment of the event after this one, which is the tenth."""
        planned = self.book.plan(self.one, self.two.account_id, 10, "2026-01-01T00:00:10.000000Z")
        self.planned = msgspec.structs.replace(planned, **fields)
        return self.planned

    def ran(self, planned: ScheduleCreated, number: int = 1, next_run: PlannedRun | None = None) -> FundsTransferred:
        return self.book.run(planned, number, planned.next_run.due_at, next_run)

    def refused(self, code: str) -> ScheduleRunRefused:
        planned = self.planned
        return ScheduleRunRefused(schedule_id=planned.schedule_id, number=1, due_at=planned.next_run.due_at, code=code)

    def changed(self, amount: int) -> ScheduleChanged:
        planned = self.planned
        return ScheduleChanged(
            schedule_id=planned.schedule_id, to_account_id=planned.to_account_id, amount=amount, next_run=planned.next_run
        )

    def cancelled(self, runs: int = 0) -> ScheduleCancelled:
        return ScheduleCancelled(schedule_id=self.planned.schedule_id, runs=runs)

    def expired(self, amount: int) -> HoldExpired:
        return HoldExpired(hold_id=self.hold_id, from_account_id=self.one.account_id, amount=amount, currency="EUR")

    def limits(self, **fields: Any) -> AccountLimitsChanged:
        return AccountLimitsChanged(account_id=self.one.account_id, currency="EUR", **fields)

    def metadata(self, metadata: dict[str, str] | None) -> AccountMetadataChanged:
        return AccountMetadataChanged(account_id=self.one.account_id, currency="EUR", metadata=metadata)

    def spent(self, today: int) -> Spent:
        """Returns what is spent on the day of the events."""
        return Spent("2026-01-01", today)

    def of_one(self, kind: type[AccountFrozen | AccountUnfrozen | AccountClosed], **fields: Any) -> Any:
        return msgspec.structs.replace(kind(account_id=self.one.account_id, currency="EUR"), **fields)


Forge = Callable[[Scene], list[Event]]

FORGED_EVENTS: Final[dict[str, Forge]] = {
    "an amount below zero": lambda s: [s.deposit(-5)],
    "an amount of zero": lambda s: [s.deposit(0)],
    "a transfer of an amount below zero": lambda s: [s.pay(-5)],
    "a withdrawal of an amount below zero": lambda s: [s.withdraw(-5)],
    "an amount beyond 2^53": lambda s: [s.deposit(BEYOND)],
    "a balance beyond 2^53": lambda s: [s.deposit(BEYOND - 1)],
    "a balance that does not follow": lambda s: [s.deposit(10, balance=7)],
    "a balance below the limit": lambda s: [s.withdraw(5_000)],
    "money that appears": lambda s: [s.pay(10, to_balance=5_000)],
    "another currency than the account's": lambda s: [s.deposit(currency="JPY")],
    "a transfer between currencies": lambda s: [s.book.transfer(s.one.account_id, s.yen.account_id, 1)],
    "an account that pays itself": lambda s: [s.book.transfer(s.one.account_id, s.one.account_id, 1)],
    "money of a missing account": lambda s: [s.deposit(account_id=str(uuid.UUID(int=9)))],
    "money on a frozen account": lambda s: [s.of_one(AccountFrozen), s.deposit()],
    "money from a frozen account": lambda s: [s.of_one(AccountFrozen), s.withdraw()],
    "money on a closed account": lambda s: [s.withdraw(990), s.of_one(AccountClosed), s.deposit()],
    "an account that is closed with money": lambda s: [s.of_one(AccountClosed)],
    "an account that is closed twice": lambda s: [s.withdraw(990), s.of_one(AccountClosed), s.of_one(AccountClosed)],
    "an account that is frozen twice": lambda s: [s.of_one(AccountFrozen), s.of_one(AccountFrozen)],
    "an open account that is unfrozen": lambda s: [s.of_one(AccountUnfrozen)],
    "an event of an account with another currency": lambda s: [s.of_one(AccountFrozen, currency="JPY")],
    "an unknown currency": lambda s: [s.book.open_account(s.ada.user_id, "EURO")],
    "a currency without a minor unit": lambda s: [s.book.open_account(s.ada.user_id, "XXX")],
    "an unknown owner": lambda s: [s.book.open_account(str(uuid.UUID(int=9)))],
    "an inactive owner": lambda s: [UserDeactivated(user_id=s.ada.user_id), s.book.open_account(s.ada.user_id)],
    "an erased owner": lambda s: [s.book.erase_user(s.ada.user_id), s.book.open_account(s.ada.user_id)],
    "a limit below zero": lambda s: [s.book.open_account(s.ada.user_id, overdraft_limit=-1)],
    "a limit beyond 2^53": lambda s: [s.book.open_account(s.ada.user_id, overdraft_limit=BEYOND)],
    "a limit that is changed to what it was": lambda s: [s.book.change_limit(s.one.account_id, 100)],
    "a limit before that was another": lambda s: [
        msgspec.structs.replace(s.book.change_limit(s.one.account_id, 5), overdraft_limit_before=7)
    ],
    "a limit that the balance is below": lambda s: [s.withdraw(1_050), s.book.change_limit(s.one.account_id, 50)],
    "a changed limit below zero": lambda s: [s.book.change_limit(s.one.account_id, -1)],
    "limits that are changed to what they were": lambda s: [s.limits(per_day=50), s.limits(per_day=50)],
    "metadata that are changed to what they were": lambda s: [s.metadata({"a": "b"}), s.metadata({"a": "b"})],
    "no metadata that are removed": lambda s: [s.metadata(None)],
    "metadata that no request can have": lambda s: [s.metadata({"a b": "c"})],
    "crossed limits": lambda s: [s.limits(per_transfer_min=2, per_transfer_max=1)],
    "spending beyond the limit of a day": lambda s: [s.limits(per_day=50), s.withdraw(51, spent=s.spent(51))],
    "spending that is not counted": lambda s: [s.limits(per_day=50), s.withdraw(10)],
    "spending that is counted as less": lambda s: [s.limits(per_day=50), s.pay(10, spent=s.spent(9))],
    "spending that is counted on another day": lambda s: [s.limits(per_day=50), s.pay(10, spent=Spent("2026-01-02", 10))],
    "spending that no limit counts": lambda s: [s.pay(10, spent=s.spent(10))],
    "limits that forget what was spent": lambda s: [
        *(s.limits(per_day=50), s.pay(10, spent=s.spent(10))),
        s.limits(per_day=60, spent=s.spent(0)),
    ],
    "a transfer that is larger than its account allows": lambda s: [s.limits(per_transfer_max=5), s.pay(6)],
    "a hold of more than is available": lambda s: [s.book.place_hold(s.one.account_id, 5_000)],
    "a hold of an amount below zero": lambda s: [s.book.place_hold(s.one.account_id, -5)],
    "a hold that had expired already": lambda s: [
        s.book.place_hold(s.one.account_id, 5, expires_at="2026-01-01T00:00:01.000000Z")
    ],
    "a hold for the account itself": lambda s: [s.book.place_hold(s.one.account_id, 5, s.one.account_id)],
    "a hold for a missing account": lambda s: [s.book.place_hold(s.one.account_id, 5, str(uuid.UUID(int=9)))],
    "a hold for an account in another currency": lambda s: [s.book.place_hold(s.one.account_id, 5, s.yen.account_id)],
    "a hold on a frozen account": lambda s: [s.of_one(AccountFrozen), s.book.place_hold(s.one.account_id, 5)],
    "a hold with the id of another": lambda s: [s.hold(), s.book.holds[s.hold_id]],
    "a capture of more than is held": lambda s: [s.hold(), s.book.capture(s.hold_id, 101)],
    "a capture of an amount below zero": lambda s: [s.hold(), s.book.capture(s.hold_id, -1)],
    "a capture that leaves more": lambda s: [s.hold(), msgspec.structs.replace(s.book.capture(s.hold_id, 10), remaining=95)],
    "a capture that releases more": lambda s: [
        s.hold(),
        msgspec.structs.replace(s.book.capture(s.hold_id, 10, final=True), released=95),
    ],
    "a capture that goes elsewhere": lambda s: [
        s.hold(),
        msgspec.structs.replace(s.book.capture(s.hold_id, 10), to_account_id=s.yen.account_id),
    ],
    "a capture after the hold was captured": lambda s: [
        s.hold(),
        s.book.capture(s.hold_id, 10, final=True),
        s.book.capture(s.hold_id, 0),
    ],
    "a capture after the hold was released": lambda s: [
        s.hold(),
        s.book.release(s.hold_id),
        msgspec.structs.replace(s.book.capture(s.hold_id, 10), remaining=0),
    ],
    "a capture after the hold has expired": lambda s: [s.hold("2026-01-01T00:00:10.000000Z"), s.book.capture(s.hold_id, 10)],
    "a capture with another moment than the hold": lambda s: [
        s.hold(),
        msgspec.structs.replace(s.book.capture(s.hold_id, 10), expires_at="2026-01-01T00:00:10.000000Z"),
    ],
    "a capture of no hold": lambda s: [msgspec.structs.replace(_captured(s), hold_id=str(uuid.UUID(int=9)))],
    "a hold that is released twice": lambda s: [s.hold(), s.book.release(s.hold_id), s.book.release(s.hold_id)],
    "a release of another amount": lambda s: [s.hold(), msgspec.structs.replace(s.book.release(s.hold_id), amount=99)],
    "a hold that expires too early": lambda s: [s.hold("2026-01-01T00:00:11.000000Z"), s.expired(100)],
    "a hold that expires and does not end": lambda s: [s.hold(), s.expired(100)],
    "a hold that expires with another amount": lambda s: [s.hold("2026-01-01T00:00:10.000000Z"), s.expired(99)],
    "an account that is closed with a hold": lambda s: [s.hold(), s.withdraw(990), s.of_one(AccountClosed)],
    "money that is held is spent": lambda s: [s.hold(), s.withdraw(1_000)],
    "a schedule of an amount below zero": lambda s: [s.plan(amount=-5)],
    "a schedule for the account itself": lambda s: [s.plan(to_account_id=s.one.account_id)],
    "a schedule for a missing account": lambda s: [s.plan(to_account_id=str(uuid.UUID(int=9)))],
    "a schedule of another owner": lambda s: [s.plan(owner_id=s.eve.user_id)],
    "a schedule that was due already": lambda s: [s.plan(next_run=PlannedRun("2026-01-01T00:00:09.000000Z"))],
    "a schedule whose first run skips a date": lambda s: [s.plan(rule=DAILY, next_run=day_of(3))],
    "a schedule whose first run is at no time of the rule": lambda s: [
        s.plan(rule=DAILY, next_run=PlannedRun("2026-01-02T09:00:00.000000Z", "2026-01-01"))
    ],
    "a schedule by a rule that means nothing": lambda s: [s.plan(rule=ScheduleRule("week", "09:00", "UTC"), next_run=day_of(1))],
    "a schedule with the id of another": lambda s: [s.plan(), s.planned],
    "a change of a schedule that changes nothing": lambda s: [s.plan(), s.changed(10)],
    "a change to an amount of zero": lambda s: [s.plan(), s.changed(0)],
    "a schedule that is cancelled twice": lambda s: [s.plan(), s.cancelled(), s.cancelled()],
    "a schedule that is cancelled with other runs": lambda s: [s.plan(), s.cancelled(1)],
    "a run of no schedule": lambda s: [s.ran(s.plan())],
    "a run before it is due": lambda s: [s.plan(next_run=PlannedRun("2026-01-01T00:00:11.000000Z")), s.ran(s.planned)],
    "a run that is made twice": lambda s: [s.plan(), s.ran(s.planned), s.ran(s.planned)],
    "a run of another number": lambda s: [s.plan(), s.ran(s.planned, number=2)],
    "a run of another amount": lambda s: [s.plan(), s.ran(msgspec.structs.replace(s.planned, amount=11))],
    "a run at another moment": lambda s: [s.plan(), msgspec.structs.replace(s.ran(s.planned), occurred_at=None)],
    "a run after which another comes": lambda s: [s.plan(), s.ran(s.planned, next_run=day_of(2))],
    "a run after the schedule was cancelled": lambda s: [s.plan(), s.cancelled(), s.ran(s.planned)],
    "a run that is refused for nothing": lambda s: [s.plan(), s.refused("insufficient-funds")],
    "a run that is refused for another reason": lambda s: [s.plan(amount=5_000), s.refused("account-frozen")],
    "a run of more than is available": lambda s: [s.plan(amount=5_000), s.ran(s.planned)],
    "a limit that a hold is below": lambda s: [
        s.book.place_hold(s.one.account_id, 1_050),
        s.book.change_limit(s.one.account_id, 50),
    ],
    "a reversal of a reversal": lambda s: [back := s.reversal(6), s.book.reverse(back, 6)],
    "a reversal of more than was moved": lambda s: [s.reversal(11)],
    "a reversal of an amount below zero": lambda s: [s.reversal(-1)],
    "reversals of more than was moved": lambda s: [s.reversal(6), s.reversal(5)],
    "a reversal that leaves more": lambda s: [s.reversal(6, remaining=5)],
    "a reversal that forgets the one before": lambda s: [s.reversal(6), s.reversal(4, reversed=4)],
    "a reversal of no transfer": lambda s: [s.reversal(6, reverses=str(uuid.UUID(int=9)))],
    "a reversal of itself": lambda s: [s.reversal(6, transfer_id=s.paid.transfer_id)],
    "a reversal that goes elsewhere": lambda s: [s.reversal(6, to_account_id=None, to_balance=None)],
    "a reversal of money that is gone": lambda s: [s.withdraw(1_000), s.deposited_back(1_000)],
    "a reversal of money that is held": lambda s: [s.book.place_hold(s.one.account_id, 500), s.deposited_back(600)],
    "postings that make money": lambda s: [s.book.move((s.one.account_id, -5), (s.two.account_id, 6))],
    "postings of two currencies that only sum to zero together": lambda s: [
        s.book.move((s.one.account_id, -5), (s.yen.account_id, 5))
    ],
    "two postings of an account": lambda s: [s.book.move((s.one.account_id, -5), (s.two.account_id, 10), (s.one.account_id, -5))],
    "two postings of the outside world": lambda s: [s.book.move((s.one.account_id, -5), (None, 3), (None, 2))],
    "a single posting": lambda s: [s.book.move((s.one.account_id, 0))],
    "no postings": lambda s: [msgspec.structs.replace(s.moved(), legs=())],
    "a posting of nothing": lambda s: [s.book.move((s.one.account_id, -5), (s.two.account_id, 0), (None, 5))],
    "postings of more than is available": lambda s: [s.book.move((s.one.account_id, -5_000), (s.two.account_id, 5_000))],
    "postings on a frozen account": lambda s: [s.of_one(AccountFrozen), s.moved()],
    "postings with another balance": lambda s: [s.moved(balance=7)],
    "postings in another currency than the account's": lambda s: [s.moved(currency="JPY")],
    "a reversal of postings": lambda s: [s.moved(), s.reversal(5, reverses=str(uuid.UUID(int=77)))],
    "an exchange at another rate": lambda s: _at_another_rate(s.exchanged(), "105.26"),
    "an exchange at no rate": lambda s: _at_another_rate(s.exchanged(), "0"),
    "an exchange at a rate that is no number": lambda s: _at_another_rate(s.exchanged(), "105,25"),
    "an exchange that forgets its remainder": lambda s: s.exchanged(remainder="0"),
    "an exchange that carries nothing": lambda s: s.exchanged(carried="0"),
    "an exchange with the remainder of a missing account": lambda s: s.exchanged(remainder_account_id=str(uuid.UUID(int=9))),
    "an exchange whose payee gets more": lambda s: s.misposted(3, amount=159, balance=159),
    "an exchange from the outside world": lambda s: s.misposted(0, account_id=None, balance=None),
    "an exchange with another balance": lambda s: s.misposted(2, balance=7),
    "an exchange of one currency": lambda s: s.misposted(3, currency="EUR"),
    "an exchange without legs": lambda s: s.exchanged(legs=()),
    "a reversal of an exchange": lambda s: [*(e := s.exchanged()), s.reversal(5, reverses=getattr(e[-1], "transfer_id", ""))],
    "an account that is opened twice": lambda s: [s.one],
    "an id with a line feed": lambda s: [msgspec.structs.replace(s.book.open_account(s.ada.user_id), account_id="a\nb")],
    "an id in upper case": lambda s: [_in_upper_case(s.book.open_account(s.ada.user_id))],
    "an id that is empty": lambda s: [msgspec.structs.replace(s.book.open_account(s.ada.user_id), account_id="")],
    "a transfer's id with a line feed": lambda s: [s.deposit(transfer_id=str(uuid.UUID(int=5)) + "\n")],
    "a transfer with the id of another": lambda s: [s.deposit(transfer_id=getattr(s.events[-1], "transfer_id", ""))],
    "a moment that is none": lambda s: [s.deposit(occurred_at="yesterday")],
    "a moment of another form": lambda s: [s.deposit(occurred_at="2026-01-01T00:00:00Z")],
    "a moment of another age": lambda s: [s.deposit(occurred_at="1026-01-01T00:00:00.000000Z")],
    "a reference with a line feed": lambda s: [s.deposit(reference="a\nb")],
    "an empty reference": lambda s: [s.deposit(reference="")],
    "a reference that is too long": lambda s: [s.deposit(reference="r" * 141)],
    "metadata with a bad key": lambda s: [s.deposit(metadata={"a b": "c"})],
    "too much metadata": lambda s: [s.deposit(metadata={f"k{n}": "v" for n in range(21)})],
    "a user who is created twice": lambda s: [s.ada],
    "an address that two users have": lambda s: [_with_address_of(s.ada, s.book.create_user())],
    "a hash of another address": lambda s: [msgspec.structs.replace(s.book.create_user(), email_hash="0" * 32)],
    "a change with the hash of another address": lambda s: [
        msgspec.structs.replace(s.book.change_user(s.ada.user_id, "B", "b@example.com"), email_hash="0" * 32)
    ],
    "a hash of an address that is none": lambda s: [msgspec.structs.replace(s.book.create_user(), email_hash="x\n")],
    "a user with an empty name": lambda s: [s.book.create_user(name="")],
    "a name with a line feed": lambda s: [s.book.create_user(name="a\nb")],
    "an address that is none": lambda s: [msgspec.structs.replace(s.book.create_user(), email="nobody")],
    "metadata of a user with a bad key": lambda s: [s.book.change_user(s.ada.user_id, "B", **{"a b": "c"})],
    "metadata of a user that are no pairs": lambda s: [_described(s, "[]")],
    "metadata of a user in another order": lambda s: [_described(s, '{"b":"2","a":"1"}')],
    "metadata of a user that are no JSON": lambda s: [_described(s, "nothing")],
    "an active user who is reactivated": lambda s: [UserReactivated(user_id=s.ada.user_id)],
    "a missing user who is deactivated": lambda _: [UserDeactivated(user_id=str(uuid.UUID(int=9)))],
    "a change of an inactive user": lambda s: [UserDeactivated(user_id=s.ada.user_id), s.book.change_user(s.ada.user_id, "B")],
    "an address before that was another": lambda s: [
        msgspec.structs.replace(s.book.change_user(s.ada.user_id, "B"), email_hash_before="0" * 32)
    ],
    "an erasure of another address": lambda s: [
        UserErased(user_id=s.ada.user_id, email_hash=s.eve.email_hash, status_before="active")
    ],
    "an erasure with another status": lambda s: [
        msgspec.structs.replace(s.book.erase_user(s.ada.user_id), status_before="inactive")
    ],
    "a ledger that is created after its first event": lambda _: [LedgerCreated(name="Acme")],
    "a change of a ledger that changes nothing": lambda _: [LedgerChanged(name="Acme"), LedgerChanged(name="Acme")],
    "a change of a closed ledger": lambda _: [LedgerClosed(), LedgerChanged(name="Acme")],
    "a deposit of more than the ledger allows": lambda s: [LedgerChanged(name="Acme", transfer_max={"EUR": 9}), s.deposit()],
    "a hold of more than the ledger allows": lambda s: [LedgerChanged(name="Acme", transfer_max={"EUR": 99}), s.hold()],
    "a limit of nothing": lambda _: [LedgerChanged(name="Acme", transfer_max={})],
    "a limit in no currency": lambda _: [LedgerChanged(name="Acme", transfer_max={"XXX": 1})],
    "a ledger that is closed twice": lambda _: [LedgerClosed(), LedgerClosed()],
    "money in a closed ledger": lambda s: [LedgerClosed(), s.deposit()],
    "an account in a closed ledger": lambda s: [LedgerClosed(), s.book.open_account(s.ada.user_id)],
    "a skip of an event to come": lambda _: [ProjectionEventSkipped(projection="balances", position=500, reason="r")],
    "a day that is closed twice": lambda s: [closed := s.book.close_day(), closed],
    "a day that is closed before the one before": lambda s: [s.book.close_day(), s.book.close_day(), _closed("1999-12-31")],
    "a day that is closed although the one before is not": lambda s: [s.book.close_day(), _closed("2000-01-03")],
    "a day that is closed before its end": lambda _: [_closed("2026-01-01")],
    "a day that is none": lambda _: [_closed("2025-02-29")],
    "a closed day in another zone": lambda _: [_closed("2025-12-31", time_zone="Europe/Berlin")],
    "a closed day with events to come": lambda _: [_closed("2025-12-31", up_to=500)],
    "a closed day with a root that is none": lambda _: [_closed("2025-12-31", root="0")],
    "a closed day with an amount that is none": lambda _: [
        _closed("2025-12-31", totals=(CurrencyTotals("EUR", 1, "-1", "0", "0"),))
    ],
    "a skip of no read model": lambda _: [ProjectionEventSkipped(projection="a\nb", position=1, reason="r")],
    "a skip at zero": lambda _: [ProjectionEventSkipped(projection="balances", position=0, reason="r")],
}
"""Events that follow a right history, the last of them wrong, by the name of the fault."""


def _closed(day: str, **fields: Any) -> DayClosed:
    """Makes the closing of a day without events."""
    closed = DayClosed(day=day, time_zone="UTC", up_to=0, events=0, root=EMPTY_ROOT.hex())
    return msgspec.structs.replace(closed, **fields)


def _captured(s: Scene) -> HoldCaptured:
    s.hold()
    return s.book.capture(s.hold_id, 10)


def _at_another_rate(events: Sequence[Event], rate: str) -> list[Event]:
    return [*events[:-1], msgspec.structs.replace(events[-1], rate=rate)]


def _described(s: Scene, metadata: str) -> UserChanged:
    return msgspec.structs.replace(s.book.change_user(s.ada.user_id, "B"), metadata=metadata)


def _in_upper_case(opened: AccountOpened) -> AccountOpened:
    return msgspec.structs.replace(opened, account_id=str(uuid.UUID(int=0xABC)).upper())


def _with_address_of(one: UserCreated, other: UserCreated) -> UserCreated:
    return msgspec.structs.replace(other, email=one.email, email_hash=one.email_hash)


def stored_events(events: Sequence[Event], ledger_id: str = "main") -> list[StoredEvent]:
    """Returns the events as rows of a log, one second apart, with valid hashes."""
    keys = {getattr(event, "user_id", ""): PERSON_KEY for event in events}
    rows = []
    for position, event in enumerate(events, 1):
        event_id, name = str(uuid.UUID(int=position)), type(event).__name__
        data = encode(ledger_id, event_id, event, keys).decode()
        recorded_at, metadata = NEW_YEAR + timedelta(seconds=position), canonical(METADATA).decode()
        version = type(event).schema_version
        rows.append(StoredEvent(ledger_id, position, event_id, name, version, data, metadata, recorded_at, b""))
    return chained(rows)


def chained(rows: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Returns the rows with valid positions and hashes."""
    last, done = b"", []
    for position, row in enumerate(rows, 1):
        data, metadata = (canonical(msgspec.json.decode(part)).decode() for part in (row.data, row.metadata))
        parts = row.event_id, row.type, row.schema_version, data, metadata, row.recorded_at
        last = event_hash(last, row.ledger_id, position, *parts)
        done.append(msgspec.structs.replace(row, position=position, hash=last))
    return done


def _with(row: StoredEvent, **data: Any) -> StoredEvent:
    members = {**msgspec.json.decode(row.data), **data}
    return msgspec.structs.replace(row, data=canonical(members).decode())


def _metadata(value: Any) -> Callable[[StoredEvent], StoredEvent]:
    return lambda row: msgspec.structs.replace(row, metadata=canonical(value).decode())


def _recorded_at(moment: datetime) -> Callable[[StoredEvent], StoredEvent]:
    return lambda row: msgspec.structs.replace(row, recorded_at=moment)


FORGED_ROWS: Final[dict[str, Callable[[StoredEvent], StoredEvent]]] = {
    "metadata that are a list": _metadata([1, 2]),
    "metadata that are a text": _metadata("text"),
    "metadata that are nothing": _metadata(None),
    "metadata without a member": _metadata({}),
    "metadata with a number": _metadata({"principal": 5}),
    "metadata with a list": _metadata({"principal": ["a"]}),
    "metadata with a line feed": _metadata({"principal": "a\nb"}),
    "metadata with a strange name": _metadata({"principal": "a", "A b\n": "c"}),
    "metadata with many members": _metadata({f"m{n}": "a" for n in range(50)}),
    "metadata that are long": _metadata({"principal": "a" * 100_000}),
    "a time that runs backwards": _recorded_at(NEW_YEAR - timedelta(days=1)),
    "a time in the future": _recorded_at(NEW_YEAR.replace(year=2200)),
    "a time before computers": _recorded_at(NEW_YEAR.replace(year=1800)),
    "a member that is not stored": lambda row: _with(row, reference=None),
    "a member that nobody knows": lambda row: _with(row, color="red"),
    "a number that is a text": lambda row: _with(row, amount="10"),
    "a number that is true": lambda row: _with(row, amount=True),
    "data that are a list": lambda row: msgspec.structs.replace(row, data="[]"),
    "a type that nobody knows": lambda row: msgspec.structs.replace(row, type="MoneyMade"),
    "a schema version of later": lambda row: msgspec.structs.replace(row, schema_version=2),
    "a schema version of before": lambda row: msgspec.structs.replace(row, schema_version=0),
}
"""Changes that make the row of a deposit wrong, by the name of the fault."""


def reply_of(row: StoredEvent, **changes: Any) -> StoredReply:
    """Returns a stored reply about an event with a body that looks right, but is not that of the event."""
    body = canonical({"id": "x", "position": row.position})
    return msgspec.structs.replace(StoredReply("test", "key-1", b"h" * 32, 201, body, row.position), **changes)


def problem_body(**changes: Any) -> bytes:
    members = {
        "type": "/problems/account-frozen",
        "title": "The account is frozen",
        "status": 409,
        "detail": "The account is frozen",
        "code": "account-frozen",
        "retryable": True,
        "request_id": "r",
    }
    return canonical(members | changes)


FORGED_REPLIES: Final[dict[str, dict[str, Any]]] = {
    "a body that is not about the event": {},
    "a body that is not JSON": {"body": b"hello"},
    "a body that is empty": {"body": b""},
    "a body that is a list": {"body": b"[]"},
    "a body of many results": {"body": b'{"results":[1,2,3]}', "status": 200},
    "a body of results that are none": {"body": b'{"results":5}', "status": 200},
    "a body that only looks encrypted": {"body": b"sealed:"},
    "a body that is encrypted for nobody": {"body": b'sealed:{"person_id":[],"body":[]}'},
    "a body of any depth": {"body": b"[" * 5_000},
    "a problem of any depth": {"body": b'{"x":' * 5_000, "position": None},
    "an event that does not exist": {"position": 10_000},
    "an event below the first": {"position": 0},
    "a rejection of no kind": {"position": None, "status": 409},
    "a rejection that is accepted": {"position": None, "status": 201, "body": problem_body()},
    "a rejection with a code that nobody knows": {"position": None, "status": 409, "body": problem_body(code="no-way")},
    "a rejection with another title": {"position": None, "status": 409, "body": problem_body(title="Pay here")},
    "a rejection with another status": {"position": None, "status": 404, "body": problem_body()},
    "a principal without a name": {"principal": ""},
    "a principal with a line feed": {"principal": "a\nb"},
    "a key with a line feed": {"key": "a\nb"},
    "a key that is empty": {"key": ""},
    "a key that is long": {"key": "k" * 1_000},
    "a hash of no request": {"request_hash": b""},
}
"""The members of a wrong stored reply, by the name of the fault."""


def write_ledger(folder: Path, rows: Sequence[StoredEvent], replies: Sequence[StoredReply] = ()) -> tuple[Path, Path]:
    """Writes a ledger file with valid hashes, and a file of the keys of its people. Returns both paths."""
    file, keys_file = folder / "forged.jsonl", folder / "forged.keys"
    ledger_id = rows[0].ledger_id
    lines = LedgerFileWriter()
    parts = [lines.begin(ledger_id, Head(len(rows), rows[-1].hash, NEW_YEAR))]
    parts += [*map(lines.event, rows), *map(lines.reply, replies), lines.end()]
    file.write_bytes(b"".join(parts))
    keys_file.write_bytes(b"".join(person_key_lines(ledger_id, wrapped_keys(ledger_id, people_of(rows) | {ADDRESSES}))))
    return file, keys_file


def people_of(rows: Sequence[StoredEvent]) -> set[str]:
    """Returns the ids of the users that events of these types name, also of those that other code would refuse."""
    members = [msgspec.json.decode(row.data) for row in rows if row.type.startswith("User")]
    return {str(each.get("user_id")) for each in members if isinstance(each, dict)}
