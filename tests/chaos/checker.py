"""Compares what the clients saw with the log, after a run: nothing lost, nothing doubled, nothing skipped."""

from collections import Counter
from typing import Any, Final

import msgspec
from sqlalchemy import text

from shared.stores.postgres import open_postgres_as_owner
from shared.timestamps import timestamp
from tests.chaos.cluster import Cluster
from tests.chaos.load import Attempted, BalanceRead, Load

SHOWN_MAX: Final = 5

_EVENTS: Final = "SELECT position, type, CAST(data AS text), recorded_at FROM events WHERE ledger_id = 'main' ORDER BY position"
_CHANGED: Final = "SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'events'"
# Every process is still running, so a transaction may be between two statements. One that was left open stays so.
_LEFT_OPEN: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '3 seconds'
"""
_ID_OF: Final = {
    "UserCreated": "user_id",
    "AccountOpened": "account_id",
    "HoldPlaced": "hold_id",
    "ScheduleCreated": "schedule_id",
}
"""The field with the id that a client chose, for events that are no transfers."""


class Findings(msgspec.Struct):
    """The faults that were found, in words. Each list is empty after a good run."""

    lost: list[str]
    doubled: list[str]
    skipped: list[str]
    other: list[str]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.skipped or self.other)

    def in_words(self) -> str:
        return f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.skipped)} skipped"

    def lines(self) -> list[str]:
        named = {"lost": self.lost, "doubled": self.doubled, "skipped": self.skipped, "wrong": self.other}
        return [f"{name}: {text}" for name, texts in named.items() for text in texts[:SHOWN_MAX]]


class LoggedEvent(msgspec.Struct, frozen=True):
    """An event as it is stored."""

    position: int
    type: str
    data: dict[str, Any]
    recorded_at: str = ""

    @property
    def thing_id(self) -> str | None:
        field = _ID_OF.get(self.type, "transfer_id")
        thing_id: str | None = self.data.get(field)
        return thing_id

    def changes(self) -> dict[str, int]:
        """Returns by how much the event changes the balance of each account."""
        ends = {"FundsDeposited": (None, "account_id"), "FundsWithdrawn": ("account_id", None)}
        payer, payee = ends.get(self.type, ("from_account_id", "to_account_id"))
        if "transfer_id" not in self.data:
            return {}
        both = ((payer, -self.data["amount"]), (payee, self.data["amount"]))
        return {self.data[field]: change for field, change in both if field and self.data.get(field)}


async def check(cluster: Cluster, load: Load) -> Findings:
    """Checks the history of a run that is over. Everything must run, and the read models must be at the head of the log."""
    async with open_postgres_as_owner(cluster.settings) as engine, engine.connect() as connection:
        rows = (await connection.execute(text(_EVENTS))).all()
        now = timestamp((await connection.execute(text("SELECT clock_timestamp()"))).scalar_one())
        changed, left_open = await connection.scalar(text(_CHANGED)), await connection.scalar(text(_LEFT_OPEN))
    events = [LoggedEvent(row[0], row[1], msgspec.json.decode(row[2]), timestamp(row[3])) for row in rows]
    findings = Findings([], [], [], list(load.wrongs))
    if [event.position for event in events] != list(range(1, len(events) + 1)):
        findings.skipped.append("the positions of the log have a gap")
    if changed or left_open:
        findings.other.append(f"{changed} events were changed, and {left_open} transactions were left open")
    check_attempts(load.attempted, events, findings)
    check_reads(load.reads, events, findings)
    check_times(events, now, findings)
    verify = await cluster.daybook("verify", "verify")
    if verify.process is None or verify.process.returncode:
        findings.skipped.append(f"daybook verify: {verify.last_words()}")
    return findings


def check_attempts(attempted: list[Attempted], events: list[LoggedEvent], findings: Findings) -> None:
    """Each command that was ok is in the log once, at its position; a refused one is not; an unknown one is in at most once."""
    positions: dict[str, list[int]] = {}
    for event in events:
        if event.thing_id:
            positions.setdefault(event.thing_id, []).append(event.position)
    for each in attempted:
        found = positions.get(each.thing_id, [])
        if len(found) > 1:
            findings.doubled.append(f"{each}: {found}")
        elif each.outcome == "ok" and found != [each.position]:
            findings.lost.append(f"{each}: {found}")
        elif each.outcome == "refused" and found:
            findings.other.append(f"refused and recorded: {each}: {found}")
    runs = Counter((run["schedule_id"], run["number"]) for event in events if (run := event.data.get("run")))
    findings.doubled.extend(f"run {run} of a schedule" for run, count in runs.items() if count > 1)


def check_times(events: list[LoggedEvent], now: str, findings: Findings) -> None:
    """By PostgreSQL's clock, time never goes back in the log or ahead of `now`, and nothing happens before it is due."""
    times = [event.recorded_at for event in events]
    if [*times, now] != sorted([*times, now]):
        findings.other.append("the times of the log go back, or ahead of PostgreSQL's clock")
    due: dict[str, str] = {}
    for event in events:
        match event.type:
            case "HoldPlaced":
                due[event.data["hold_id"]] = event.data["expires_at"]
            case "ScheduleCreated":
                due[event.data["schedule_id"]] = event.data["next_run"]["due_at"]
            case "HoldExpired" if event.recorded_at < due[event.data["hold_id"]]:
                findings.other.append(f"a hold expired early: {event}")
            case "FundsTransferred" if (run := event.data.get("run")) and event.recorded_at < due[run["schedule_id"]]:
                findings.other.append(f"a run of a schedule was made early: {event}")


def check_reads(reads: list[BalanceRead], events: list[LoggedEvent], findings: Findings) -> None:
    """The bank test: each balance that was read at a position is the fold of the log up to it, and so is the sum of all."""
    wanted: dict[int, set[tuple[str, int]]] = {}
    for read in reads:
        wanted.setdefault(read.position, set()).add((read.account_id, read.posted))
    balances: Counter[str] = Counter()
    for event in (None, *events):
        if event is not None:
            balances.update(event.changes())
            balances["all"] = sum(balances.values()) - balances["all"]
        for account_id, posted in wanted.pop(event.position if event else 0, ()):
            if balances[account_id] != posted:
                findings.other.append(f"{account_id} had {balances[account_id]}, and {posted} was read at {event}")
    findings.other.extend(f"a balance was read at {position}, which is not in the log" for position in wanted)
