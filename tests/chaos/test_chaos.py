"""A short run of chaos, which `make chaos` does for longer, and proof that its checker sees what it is for."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.checker import Findings, LoggedEvent, check_attempts, check_reads, check_times
from tests.chaos.cluster import running_cluster
from tests.chaos.load import Attempted, BalanceRead
from tests.chaos.run import run_chaos
from tests.harness.clocks import LIBRARIES, JumpingClock

SECONDS: Final = 5.0


@pytest.mark.services
async def test_faults_in_random_order_lose_double_and_skip_nothing(migrated_postgres: Path, tmp_path: Path) -> None:
    async with running_cluster(tmp_path, migrated_postgres) as cluster:
        report = await run_chaos(cluster, seed=1, seconds=SECONDS)
    assert report.findings.lines() == [], report.line()
    assert report.struck
    assert report.outcomes["ok"] > 10
    assert report.reads


needs_faketime = pytest.mark.skipif(not LIBRARIES, reason="needs Debian's package faketime: apt install faketime")


@needs_faketime
@pytest.mark.slow
@pytest.mark.services
async def test_clocks_that_jump_by_hours_stamp_nothing_wrong_and_make_nothing_early_or_twice(
    migrated_postgres: Path, tmp_path: Path
) -> None:
    async with running_cluster(tmp_path, migrated_postgres) as cluster:
        report = await run_chaos(cluster, seed=1, seconds=20, only="turn the clock", faults_min=3)
    assert report.findings.lines() == [], report.line()
    assert report.outcomes["ok"] > 10


@needs_faketime
def test_a_process_sees_its_clock_jump_and_its_monotonic_clock_go_on(tmp_path: Path) -> None:
    clock, look = JumpingClock(tmp_path), "import time; print(time.time() - float(input()), time.monotonic())"
    for hours in (3, -3):
        clock.jump_to(hours * 3_600)
        process = subprocess.run(
            [sys.executable, "-S", "-c", look],
            input=str(time.time()),
            env=os.environ | clock.environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        ahead, monotonic = map(float, process.stdout.split())
        assert abs(ahead - hours * 3_600) < 1_800
        assert abs(monotonic - time.monotonic()) < 1_800


@needs_faketime
def test_a_process_sleeps_on_while_its_clock_jumps_back(tmp_path: Path) -> None:
    clock = JumpingClock(tmp_path)
    clock.jump_to(3_600)
    sleep = "import time; print(flush=True); [time.sleep(0.01) for _ in range(300)]; print(time.time())"
    command = [sys.executable, "-c", sleep]
    with subprocess.Popen(command, env=os.environ | clock.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        clock.jump_to(-3_600)
        ended = float(process.stdout.read())
    assert process.returncode == 0
    assert ended < time.time() - 1_800


DEPOSIT: Final[dict[str, Any]] = {"transfer_id": "t", "account_id": "a", "amount": 5, "balance": 5}
RECORDED: Final = [LoggedEvent(1, "AccountOpened", {"account_id": "a"}), LoggedEvent(2, "FundsDeposited", DEPOSIT)]
OK: Final = Attempted("key", "/v1/deposits", "t", "ok", 201, b"", 2)


def found(attempted: Attempted, *more: LoggedEvent, events: list[LoggedEvent] = RECORDED) -> Findings:
    findings = Findings([], [], [], [])
    check_attempts([attempted], [*events, *more], findings)
    return findings


def test_the_checker_takes_what_is_right() -> None:
    assert found(OK).is_good
    assert found(Attempted("key", "/v1/deposits", "t")).is_good, "what is unknown may be in the log"
    assert found(Attempted("key", "/v1/deposits", "other")).is_good, "or not"


def test_the_checker_finds_an_acknowledged_command_that_is_not_in_the_log() -> None:
    assert found(OK, events=RECORDED[:1]).lost


def test_the_checker_finds_an_effect_that_came_twice() -> None:
    assert found(OK, LoggedEvent(3, "FundsDeposited", DEPOSIT)).doubled


def test_the_checker_finds_a_refused_command_that_is_in_the_log() -> None:
    assert found(Attempted("key", "/v1/deposits", "t", "refused", 409)).other


def test_the_checker_finds_a_run_that_was_made_twice() -> None:
    runs = [
        LoggedEvent(
            position, "FundsTransferred", DEPOSIT | {"transfer_id": str(position), "run": {"schedule_id": "s", "number": 1}}
        )
        for position in (3, 4)
    ]
    assert found(OK, *runs).doubled


HOLD: Final = LoggedEvent(1, "HoldPlaced", {"hold_id": "h", "expires_at": "2026-01-01T12"}, "2026-01-01T11")
PLAN: Final = LoggedEvent(1, "ScheduleCreated", {"schedule_id": "s", "next_run": {"due_at": "2026-01-01T12"}}, "2026-01-01T11")


@pytest.mark.parametrize(
    ("events", "is_right"),
    [
        ([HOLD, LoggedEvent(2, "HoldExpired", {"hold_id": "h"}, "2026-01-01T12")], True),
        ([HOLD, LoggedEvent(2, "HoldExpired", {"hold_id": "h"}, "2026-01-01T11")], False),
        ([PLAN, LoggedEvent(2, "FundsTransferred", {"run": {"schedule_id": "s"}}, "2026-01-01T12")], True),
        ([PLAN, LoggedEvent(2, "FundsTransferred", {"run": {"schedule_id": "s"}}, "2026-01-01T11")], False),
        ([HOLD, LoggedEvent(2, "FundsDeposited", DEPOSIT, "2026-01-01T10")], False),
        ([LoggedEvent(1, "FundsDeposited", DEPOSIT, "2026-01-01T14")], False),
    ],
)
def test_the_checker_finds_what_was_stamped_wrong_or_made_early(events: list[LoggedEvent], is_right: bool) -> None:  # noqa: FBT001
    findings = Findings([], [], [], [])
    check_times(events, "2026-01-01T13", findings)
    assert findings.is_good == is_right


@pytest.mark.parametrize(
    ("read", "is_right"),
    [
        (BalanceRead("a", 0, 1), True),
        (BalanceRead("a", 5, 2), True),
        (BalanceRead("all", 5, 2), True),
        (BalanceRead("a", 5, 1), False),
        (BalanceRead("a", 0, 2), False),
        (BalanceRead("all", 4, 2), False),
        (BalanceRead("a", 5, 3), False),
    ],
)
def test_the_checker_finds_a_balance_that_was_never_true(read: BalanceRead, is_right: bool) -> None:  # noqa: FBT001
    findings = Findings([], [], [], [])
    check_reads([read], RECORDED, findings)
    assert findings.is_good == is_right
