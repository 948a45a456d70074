"""The rules of money, written a second time and much simpler than in the product: the simulation compares the two."""

from typing import Any

from shared.log.account_events import AccountOpened
from shared.log.events import Event
from shared.log.hold_events import HoldExpired, HoldPlaced, HoldReleased
from shared.log.money_events import FundsDeposited, FundsTransferred, FundsWithdrawn, HoldCaptured
from shared.log.schedule_events import ScheduleCreated, ScheduleRunRefused


class WrongError(AssertionError):
    """The history breaks a promise."""


def require(is_right: bool, what: str) -> None:  # noqa: FBT001 # it reads as an assertion
    if not is_right:
        raise WrongError(what)


class Hold:
    """What a hold still holds, in minor units, and when it ends."""

    def __init__(self, account_id: str, amount: int, expires_at: str | None) -> None:
        self.account_id = account_id
        self.amount = amount
        self.expires_at = expires_at
        self.is_over = False

    def counts(self, now: str) -> bool:
        return not self.is_over and (self.expires_at is None or now < self.expires_at)


class Money:
    """Balances, holds and schedules after the events so far."""

    def __init__(self) -> None:
        self.posted: dict[str, int] = {}
        self.outside = 0
        self.holds: dict[str, Hold] = {}
        self.due: dict[str, str | None] = {}
        """The moment of the only run of each schedule, or None if it has run."""

    def available(self, account_id: str, now: str) -> int:
        held = sum(hold.amount for hold in self.holds.values() if hold.account_id == account_id and hold.counts(now))
        return self.posted[account_id] - held

    def apply(self, event: Event, now: str) -> None:  # noqa: C901 # a case for each type of event
        """Applies an event that was recorded at `now`, if the rules allow it."""
        match event:
            case AccountOpened():
                self.posted[event.account_id] = 0
            case FundsDeposited():
                self._move(None, event.account_id, event.amount)
                require(event.balance == self.posted[event.account_id], "a deposit records another balance")
            case FundsWithdrawn():
                self._require_available(event.account_id, event.amount, now)
                self._move(event.account_id, None, event.amount)
                require(event.balance == self.posted[event.account_id], "a withdrawal records another balance")
            case FundsTransferred():
                self._require_run(event, now)
                self._require_available(event.from_account_id, event.amount, now)
                self._move(event.from_account_id, event.to_account_id, event.amount)
                balances = self.posted[event.from_account_id], self.posted[event.to_account_id]
                require((event.from_balance, event.to_balance) == balances, "a transfer records other balances")
            case HoldPlaced():
                self._require_available(event.from_account_id, event.amount, now)
                self.holds[event.hold_id] = Hold(event.from_account_id, event.amount, event.expires_at)
            case HoldCaptured():
                hold = self._active(event.hold_id, now)
                require(event.amount <= hold.amount, "more was captured than was held")
                hold.amount -= event.amount
                hold.is_over = hold.amount == 0
                self._move(event.from_account_id, event.to_account_id, event.amount)
            case HoldReleased():
                self._active(event.hold_id, now).is_over = True
            case HoldExpired():
                hold = self.holds[event.hold_id]
                require(not hold.is_over and not hold.counts(now), "a hold expired that was over, or too early")
                hold.is_over = True
            case ScheduleCreated():
                self.due[event.schedule_id] = event.next_run.due_at
            case ScheduleRunRefused():
                self._run(event.schedule_id, event.number, now)
            case _:
                raise NotImplementedError(event)
        require(sum(self.posted.values()) + self.outside == 0, "money appeared or vanished")

    def may_be_refused(self, wish: dict[str, Any], code: str, now: str) -> bool:
        """True if the rules refuse this command of a client with this code."""
        hold = self.holds.get(wish.get("hold_id", ""))
        match code:
            case "insufficient-funds":
                return bool(self.available(wish["account_id"], now) < wish["amount"])
            case "hold-not-active":
                return hold is not None and not hold.counts(now)
            case "hold-amount-exceeded":
                return hold is not None and hold.counts(now) and bool(hold.amount < wish["amount"])
            case "not-found":
                return "hold_id" in wish and hold is None
            case "hold-expiry-passed":
                return bool(wish["expires_at"] <= now)
            case "schedule-never-due":
                return bool(wish["at"] <= now)
            case _:
                return False

    def _move(self, payer_id: str | None, payee_id: str | None, amount: int) -> None:
        for account_id, change in ((payer_id, -amount), (payee_id, amount)):
            if account_id is None:
                self.outside += change
            else:
                self.posted[account_id] += change

    def _require_available(self, account_id: str, amount: int, now: str) -> None:
        require(self.available(account_id, now) >= amount, f"{account_id} spent what it had not")

    def _active(self, hold_id: str, now: str) -> Hold:
        hold = self.holds[hold_id]
        require(hold.counts(now), "a hold was used that is over")
        return hold

    def _require_run(self, event: FundsTransferred, now: str) -> None:
        if event.run:
            self._run(event.run.schedule_id, event.run.number, now)

    def _run(self, schedule_id: str, number: int, now: str) -> None:
        due_at = self.due[schedule_id]
        require(number == 1 and due_at is not None, "a run of a schedule started twice")
        require(due_at is not None and due_at <= now, "a run of a schedule started too early")
        self.due[schedule_id] = None
