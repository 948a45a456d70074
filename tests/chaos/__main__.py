"""Runs Daybook while faults strike it: `python -m tests.chaos --seed 7 --minutes 10`.

Prints one line at the end, and ends with 1 if anything was lost, doubled or skipped, or is wrong in another way.
A seed repeats the order of the faults and of the commands. What meets what also depends on the machine.
"""

import argparse
import asyncio
import sys
import time
from functools import partial

from tests.chaos.cluster import new_cluster
from tests.chaos.run import run_chaos


async def _run(seed: int, minutes: float) -> bool:
    async with new_cluster() as cluster:
        report = await run_chaos(cluster, seed, minutes * 60, partial(print, flush=True))
    print("\n".join([*report.findings.lines(), report.line()]), flush=True)  # noqa: T201 # a command
    return report.findings.is_good


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 1_000_000, help="repeats a run; by default another each time"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201 # so that an interrupted run can be repeated too
    sys.exit(0 if asyncio.run(_run(options.seed, options.minutes)) else 1)


if __name__ == "__main__":
    main()
