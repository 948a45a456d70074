"""Repeats histories: `python -m tests.simulation SEED [COUNT]` runs COUNT histories from SEED on, or one.

With `--digest` in place of COUNT it prints the digest of the history, by which two runs can be compared.
"""

import sys
import time

from tests.simulation.histories import run_history


def main() -> None:
    first, *further = sys.argv[1:]
    if further == ["--digest"]:
        print(run_history(int(first)).digest)  # noqa: T201 # a command
    else:
        run(int(first), int(further[0]) if further else 1)


def run(first: int, count: int) -> None:
    """Runs histories one after another, and ends with one line about them."""
    commands, attempts, strikes, slowest = 0, 0, 0, 0.0
    for seed in range(first, first + count):
        history = run_history(seed)
        commands, attempts = commands + history.commands, attempts + history.attempts
        strikes, slowest = strikes + history.strikes, max(slowest, history.settled_seconds)
    print(  # noqa: T201 # a command
        f"{count} histories from seed {first} in {time.process_time():.0f} s of processor time: {strikes} faults, "
        f"{commands} commands in {attempts} attempts, 0 lost, 0 doubled, 0 skipped; slowest recovery {slowest:.1f} virtual s"
    )


if __name__ == "__main__":
    main()
