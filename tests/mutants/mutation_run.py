"""Runs mutmut on one part, in a folder of its own: it makes the mutants, tries some of them, and tells which no test noticed.

mutmut writes all mutants of a module into one file, and forks a process for each. That process chooses its mutant and runs the
tests that reach it, the fastest first. mutmut's settings are in `pyproject.toml`, so each part has a folder with its own, and
links to the rest of Daybook.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from tests.mutants.parts import Part

ROOT: Final = Path(__file__).parents[2]
WORKPLACES: Final = ROOT / ".mutants"
CODE: Final = ("command_api", "projector", "shared")
TIMEOUT: Final = "timeout_multiplier = 4.0\ntimeout_constant = 15.0"
"""A mutant has 15 s for the start of servers and the like, besides its tests, and four times what that takes otherwise."""
STOP_SECONDS: Final = 60.0
NOBODY: Final = "no_mutant_has_this_name"
_CLI: Final = "from mutmut.__main__ import cli; cli()"

Outcome = str
"""One of mutmut's words: killed, survived, timeout, no tests, suspicious, segfault, not checked."""
OUTCOMES: Final[Mapping[int | None, Outcome]] = {
    None: "not checked",
    0: "survived",
    1: "killed",
    3: "killed",
    5: "no tests",
    33: "no tests",
    -24: "timeout",
    24: "timeout",
    36: "timeout",
    152: "timeout",
    255: "timeout",
    -9: "timeout",
    -11: "segfault",
}
KILLED: Final = frozenset({"killed", "timeout", "segfault", "suspicious"})
"""A test failed, or something worse happened."""


class Tried(msgspec.Struct, frozen=True):
    """The outcomes of the mutants that were tried, by their names. `all_mutants` is how many there are."""

    outcomes: dict[str, Outcome]
    all_mutants: int

    def survivors(self) -> list[str]:
        return sorted(name for name, outcome in self.outcomes.items() if outcome in {"survived", "no tests"})

    def line(self) -> str:
        counts = Counter(self.outcomes.values())
        checked = len(self.outcomes) - counts["not checked"]
        killed = sum(counts[outcome] for outcome in KILLED)
        share = f"{100 * killed / checked:.1f} %" if checked else "none checked"
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        return f"{len(self.outcomes)} of {self.all_mutants} mutants: {words}; {share} killed"


def settings_of(part: Part) -> str:
    """Returns mutmut's section of `pyproject.toml` for a part."""
    others = sorted(path.name for path in ROOT.iterdir() if path.name not in {*CODE, "tests"} and not path.name.startswith("."))
    copied = [
        name for name in others if (ROOT / name / "__init__.py").exists() or name in {"migrations", "alembic.ini", "clients"}
    ]
    return "\n".join(
        (
            "\n[tool.mutmut]",
            f"source_paths = {json.dumps(CODE)}",
            f"only_mutate = {json.dumps(part.modules)}",
            f"also_copy = {json.dumps(copied)}",
            'pytest_add_cli_args = ["-p", "no:cacheprovider"]',
            f"pytest_add_cli_args_test_selection = {json.dumps(part.tests)}",
            'process_isolation = "forkserver"',
            "use_git_change_detection = false",
            TIMEOUT,
            "",
        )
    )


def make_workplace(name: str, part: Part) -> Path:
    """Makes the folder of a part anew, with links to all of Daybook and mutmut's settings."""
    folder = WORKPLACES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "pyproject.toml":
            (folder / path.name).symlink_to(path)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings_of(part))
    return folder


def outcomes_in(workplace: Path) -> dict[str, Outcome]:
    """Returns the outcome of every mutant that mutmut has made there."""
    found: dict[str, Outcome] = {}
    for path in sorted((workplace / "mutants").rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found |= {name: OUTCOMES.get(code, "suspicious") for name, code in codes.items()}
    return found


def sample_of(names: Sequence[str], size: int, seed: int) -> list[str]:
    """Returns the names of the mutants to try: all, or as many as `size`, chosen by the seed."""
    return sorted(names) if size >= len(names) else sorted(Random(seed).sample(sorted(names), size))


def mutmut(workplace: Path, *arguments: str, seconds: float | None = None, more: Mapping[str, str] | None = None) -> str:
    """Runs a command of mutmut and returns what it prints. After `seconds`, mutmut stops and keeps what it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLI, *arguments],
        cwd=workplace,
        env=os.environ | (more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            printed, _ = process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
    return printed


def try_part(name: str, part: Part, seed: int, seconds: float, processes: int, more: Mapping[str, str]) -> Tried:
    """Makes the mutants of a part, tries a sample of them, and returns their outcomes.

    Raises:
        RuntimeError: the tests fail without any change, or mutmut could not run for another reason.
    """
    workplace = make_workplace(name, part)
    # With a name that no mutant has, mutmut makes the mutants, runs the tests once to see what each reaches, and stops.
    printed = mutmut(workplace, "run", "--max-children", str(processes), NOBODY, more=more)
    mutants = outcomes_in(workplace)
    if NOBODY not in printed or not mutants:
        raise RuntimeError(f"mutmut made no mutants: {printed[-3_000:]}")
    tried = sample_of([*mutants], part.sample, seed)
    mutmut(workplace, "run", "--max-children", str(processes), *tried, seconds=seconds, more=more)
    outcomes = outcomes_in(workplace)
    return Tried({each: outcomes[each] for each in tried}, len(mutants))


def difference(workplace: Path, mutant: str) -> str:
    """Returns the change that a mutant makes, as a diff."""
    return mutmut(workplace, "show", mutant).strip()
