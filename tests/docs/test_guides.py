"""What docs/events.md and docs/projections.md print for a shell does what they say, in the order in which it stands there."""

import asyncio
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from dev.data_folder import ROOT
from projector.projections.registry import PROJECTIONS_BY_NAME
from shared.settings import Settings
from tests.harness.keys import OPERATOR
from tests.harness.log import Book
from tests.harness.projecting import open_ledger
from tests.harness.running import Stack, environment_of

pytestmark = pytest.mark.services

ENDLESS: Final = ("curl -N", "daybook projections status --watch")
ENDLESS_SECONDS: Final = 15
DIFFERENT: Final = "daybook projections diff balances january live"


class Shell:
    """A shell in a folder of its own, where `daybook` is this one."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        (folder / "bin").mkdir(exist_ok=True)
        daybook = folder / "bin" / "daybook"
        daybook.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}:{ROOT}/clients/python exec {sys.executable} -m cli.app "$@"\n')
        daybook.chmod(daybook.stat().st_mode | stat.S_IXUSR)
        self._environment = environment_of(settings) | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "DAYBOOK_API_KEY": OPERATOR,
            "DAYBOOK_DATA_DIR": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    async def run(self, command: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr. What would not end is ended."""
        if command.startswith(ENDLESS):
            command = f"timeout {ENDLESS_SECONDS} {command}"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, cwd=self._folder, env=self._environment, stdout=pipe, stderr=pipe
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


def shell_lines(document: str) -> list[str]:
    """The commands of all `sh` blocks, without what is said beside them."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    return [line.partition("  #")[0].rstrip() for block in blocks for line in block.splitlines()]


def table_lines(document: str) -> list[str]:
    """The commands of `daybook projections` in tables."""
    rows = [line for line in (ROOT / "docs" / document).read_text().splitlines() if line.startswith("|")]
    return [command for row in rows for command in re.findall(r"`(daybook projections [^`]+)`", row)]


async def done(shell: Shell, command: str, allowed: Mapping[str, int]) -> str:
    code, out, err = await shell.run(command)
    expected = 124 if command.startswith(ENDLESS) else allowed.get(command, 0)
    assert code == expected, f"{command}\n{out}\n{err}"
    return out


@pytest.mark.slow
async def test_the_guide_to_read_models_runs_as_it_is_printed(stack: Stack, tmp_path: Path) -> None:
    async with open_ledger(stack.settings) as ledger:
        await ledger.caught_up(await ledger.append(Book(seed=1).history(150)))
    shell = Shell(tmp_path, stack.settings)
    commands = table_lines("projections.md")
    assert len(commands) >= 11
    # Nothing was recorded by the end of that January, so the copy is an empty one.
    out = {command: await done(shell, command, {DIFFERENT: 1}) for command in commands}
    assert out["daybook projections list"].count(" live ") == len(PROJECTIONS_BY_NAME)
    assert "lag" in out["daybook projections status --watch"]
    assert "150 events at" in out["daybook projections rebuild balances --dry-run"]
    assert "all content is equal" in out["daybook projections rebuild balances"]
    assert "is live again" in out["daybook projections rollback balances"]
    assert "all content is equal" in out["daybook projections diff balances previous live"]
    assert re.fullmatch(r"(balances \d+\n)+", out["daybook projections prune balances"])
    assert "paused since" in out["daybook projections pause balances"]
    assert "follows the log again" in out["daybook projections resume balances"]
    assert "balances@january 1 (copy): 0 at 0" in out[DIFFERENT]


@pytest.mark.slow
async def test_the_guide_to_events_runs_as_it_is_printed(stack: Stack, elsewhere: Settings, tmp_path: Path) -> None:
    async with open_ledger(stack.settings) as ledger:
        await ledger.append(Book(seed=1).history(40))
    here, there = Shell(tmp_path, stack.settings), Shell(tmp_path, elsewhere)
    subscribe, export, *move, cloud_events = shell_lines("events.md")
    out = await done(here, subscribe, {})
    assert re.search(r"^retry: 1000\n\nid: 1\nevent: UserCreated\ndata: \{\"position\":1,", out, re.MULTILINE)
    assert out.count("\nevent: ") == 40
    await done(here, export, {})
    assert [command.split()[1] for command in move] == ["events", "replay", "verify"]
    for command in move:
        await done(there, command, {})
    await done(here, cloud_events, {})
    assert (tmp_path / "events.jsonl").read_text().count('{"specversion":"1.0"') == 40
