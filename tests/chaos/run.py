"""One run of chaos: a load, a nemesis, and a check of what is left."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from shared.supervision import end_tasks
from tests.chaos.checker import Findings, check
from tests.chaos.cluster import Cluster
from tests.chaos.load import Load
from tests.chaos.nemesis import Nemesis

CLIENTS: Final = 6
READERS: Final = 2
ACCOUNTS: Final = 8
CALM_SECONDS: Final = 0.3
RECOVERED_SECONDS_MAX: Final = 240.0
"""After this long without recovery, the run has failed. It says how long it took, and no limit holds on every machine."""


class ChaosReport(msgspec.Struct):
    """The result of a run. `slowest_seconds` is the longest time from the end of a fault until everything was right again."""

    seed: int
    minutes: float
    struck: list[str]
    outcomes: dict[str, int]
    reads: int
    slowest_seconds: float
    slowest_after: str
    findings: Findings

    def line(self) -> str:
        ok, refused, unknown = (self.outcomes.get(name, 0) for name in ("ok", "refused", "unknown"))
        return (
            f"seed {self.seed}, {self.minutes:.1f} minutes, {len(self.struck)} faults, "
            f"commands {ok} ok / {refused} refused / {unknown} unknown, {self.reads} reads, {self.findings.in_words()}, "
            f"slowest recovery {self.slowest_seconds:.1f} s after: {self.slowest_after}"
        )


async def run_chaos(
    cluster: Cluster,
    seed: int,
    seconds: float,
    tell: Callable[[str], object] = str,
    *,
    only: str = "",
    faults_min: int = 1,
) -> ChaosReport:
    """Runs commands and queries while faults strike, for about `seconds`, and checks the history.

    `tell` is called with a line about each fault when it is over. The names of all faults begin with `only`. A slow machine takes
    longer than `seconds`, until `faults_min` faults have struck.
    """
    load, nemesis = Load(cluster, seed), Nemesis(cluster, seed, only)
    supervising = asyncio.create_task(nemesis.supervise())
    slowest, after = 0.0, "nothing"
    try:
        await load.open_accounts(ACCOUNTS)
        began = time.monotonic()
        working = [asyncio.create_task(load.send()) for _ in range(CLIENTS)]
        reading = [asyncio.create_task(load.read()) for _ in range(READERS)]
        while time.monotonic() - began < seconds or len(nemesis.struck) < faults_min:
            count = len(nemesis.struck)
            await nemesis.strike()
            took, faults = await recovery_seconds(load), " and ".join(nemesis.struck[count:])
            tell(f"{time.monotonic() - began:5.0f} s  {faults}: right again after {took:.1f} s")
            if took >= slowest:
                slowest, after = took, faults
            await asyncio.sleep(CALM_SECONDS)
        load.is_over = True
        await asyncio.gather(*working, *reading)
        await recovery_seconds(load)
        findings = await check(cluster, load)
    finally:
        await end_tasks(supervising)
    outcomes = {name: sum(each.outcome == name for each in load.attempted) for name in ("ok", "refused", "unknown")}
    minutes = (time.monotonic() - began) / 60
    return ChaosReport(seed, minutes, nemesis.struck, outcomes, len(load.reads), slowest, after, findings)


async def recovery_seconds(load: Load) -> float:
    """Waits until a new command is recorded and all kinds of queries show it. Returns how long that took.

    Raises:
        TimeoutError: it took longer than `RECOVERED_SECONDS_MAX`.
    """
    began = time.monotonic()
    async with asyncio.timeout(RECOVERED_SECONDS_MAX):
        deposit = await load.deposit()
        while not await load.is_readable(deposit.position):
            await asyncio.sleep(0.05)
    return time.monotonic() - began
