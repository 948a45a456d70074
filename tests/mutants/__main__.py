"""Changes Daybook's code in small ways, and shows each change that no test notices: `python -m tests.mutants --part domain`.

Each change is a mutant. docs/mutation.md says what the parts are and which survivors are known.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.harness.databases import make_migrated_postgres
from tests.harness.keys import OPERATOR
from tests.mutants.mutation_run import WORKPLACES, difference, try_part
from tests.mutants.parts import PARTS


def main() -> None:
    # A shell that runs this in the background makes it, and mutmut, ignore Ctrl-C, which is how mutmut is told to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--part", choices=[*PARTS], help="one part; by default all, one after another")
    parser.add_argument("--minutes", type=float, default=55.0, help="how long the mutants of a part are tried")
    parser.add_argument("--sample", type=int, help="how many mutants are tried, instead of the number of the part")
    parser.add_argument("--seed", type=int, default=1, help="chooses the sample")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="daybook-mutants-") as folder:
        postgres = asyncio.run(make_migrated_postgres(Path(folder)))
        survived = [_run(name, options, postgres) for name in ([options.part] if options.part else PARTS)]
    sys.exit(1 if any(survived) else 0)


def _run(name: str, options: argparse.Namespace, postgres: Path) -> bool:
    """Tries a part and prints its survivors as diffs and then one line. Returns True if there are any."""
    part = PARTS[name]
    if options.sample:
        part = type(part)(part.modules, part.tests, options.sample)
    began = time.monotonic()
    more = {"MIGRATED_POSTGRES": str(postgres), "OPERATOR_OF_TESTS": OPERATOR}
    tried = try_part(name, part, options.seed, options.minutes * 60, options.processes, more)
    for survivor in tried.survivors():
        print(difference(WORKPLACES / name, survivor), flush=True)  # noqa: T201 # a command
    minutes = (time.monotonic() - began) / 60
    print(f"{name}: {tried.line()}, seed {options.seed}, {minutes:.0f} minutes", flush=True)  # noqa: T201
    return bool(tried.survivors())


if __name__ == "__main__":
    main()
