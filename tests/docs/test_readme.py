"""The tutorial of the README, run as it is printed: each `$` line in one shell, each answer against what stands below it."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
DONE = "-- done --"


def steps(markdown: str) -> list[tuple[str, str]]:
    """(command, what it prints) of all console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", markdown, re.DOTALL)
    return [
        (command, "\n".join(output))
        for block in blocks
        for command, *output in (part.rstrip("\n").split("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:])
    ]


def as_pattern(printed: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, printed.split("…"))), re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in a folder of its own, with the virtual environment that `make install` has made."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
    environment["DAYBOOK_DATA_DIR"] = str(tmp_path / "data")
    with subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        subprocess.run([ROOT / ".venv/bin/daybook", "down"], env=environment, cwd=tmp_path, check=True)


def run(shell: subprocess.Popen[str], command: str) -> tuple[int, str]:
    assert shell.stdin
    assert shell.stdout
    shell.stdin.write(f"{command}\ncode=$?; echo; echo '{DONE}' $code\n")
    shell.stdin.flush()
    lines: list[str] = []
    for line in shell.stdout:
        if line.startswith(DONE):
            return int(line.split()[-1]), "".join(lines).strip()
        lines.append(line)
    pytest.fail(f"the shell ended during {command!r}: {''.join(lines)}")


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(shell: subprocess.Popen[str]) -> None:
    (installed, _), *tutorial = steps((ROOT / "README.md").read_text())
    assert installed == "make install", "which is how this test came to run"
    assert len(tutorial) > 15
    beside_another_stack = {"daybook dev --detach": "daybook dev --detach --command-port 0 --query-port 0"}
    for command, printed in tutorial:
        code, output = run(shell, beside_another_stack.get(command, command))
        assert code == 0, f"{command}\n{output}"
        assert as_pattern(printed).fullmatch(output), f"{command}\nprinted  {output}\nexpected {printed}"
