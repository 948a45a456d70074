"""Files with valid hashes that hold what no code of ours could have written: the import refuses each, and writes nothing."""

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dev.data_folder import ROOT
from shared.errors import OperatorError
from shared.ledger_file.files import LINE_BYTES_MAX
from shared.settings import Settings
from tests.cli.test_export_and_import import contents, import_from
from tests.harness.forgeries import (
    FORGED_EVENTS,
    FORGED_REPLIES,
    FORGED_ROWS,
    Scene,
    chained,
    reply_of,
    stored_events,
    write_ledger,
)
from tests.harness.running import environment_of

pytestmark = pytest.mark.services


async def refusal(settings: Settings, files: tuple[Path, Path]) -> str:
    """Imports files and returns the message with which they are refused, or an empty text if they are imported."""
    try:
        await import_from(settings, *files)
    except OperatorError as refused:
        return str(refused)
    return ""


async def test_a_right_history_is_imported(settings: Settings, tmp_path: Path) -> None:
    """The same scene without a forgery, so that the forgery is what the other tests see refused."""
    assert await refusal(settings, write_ledger(tmp_path, stored_events(Scene().events))) == ""


@pytest.mark.slow
async def test_events_that_no_command_makes_are_not_imported(settings: Settings, tmp_path: Path) -> None:
    before = await contents(settings)
    imported = []
    for name, forge in FORGED_EVENTS.items():
        scene = Scene()
        said = await refusal(settings, write_ledger(tmp_path, stored_events([*scene.events, *forge(scene)])))
        if "position" not in said and "has an event already" not in said and "cannot hold" not in said:
            imported.append((name, said))
    assert imported == []
    assert await contents(settings) == before


async def test_rows_of_a_form_that_is_never_written_are_not_imported(settings: Settings, tmp_path: Path) -> None:
    before = await contents(settings)
    imported = []
    for name, forge in FORGED_ROWS.items():
        scene = Scene()
        *rows, last = stored_events([*scene.events, scene.deposit()])
        said = await refusal(settings, write_ledger(tmp_path, chained([*rows, forge(last)])))
        if f"position {last.position}" not in said:
            imported.append((name, said))
    assert imported == []
    assert await contents(settings) == before


@pytest.mark.parametrize("event_id", ["0198C5A0-0000-7000-8000-00000000ADA0", "0198c5a000007000800000000000ada0", "a", ""])
async def test_an_event_id_of_another_form_is_not_imported(settings: Settings, tmp_path: Path, event_id: str) -> None:
    """PostgreSQL stores these ids in the usual form, and then the hash would no longer fit."""
    *rows, last = stored_events(Scene().events)
    last = msgspec.structs.replace(last, event_id=event_id)
    assert "line 9:" in await refusal(settings, write_ledger(tmp_path, chained([*rows, last])))
    assert not (await contents(settings))["events"]


async def test_replies_that_no_code_writes_are_not_imported(settings: Settings, tmp_path: Path) -> None:
    before = await contents(settings)
    rows, imported = stored_events(Scene().events), []
    for name, changes in FORGED_REPLIES.items():
        said = await refusal(settings, write_ledger(tmp_path, rows, [reply_of(rows[-1], **changes)]))
        if "stored reply" not in said:
            imported.append((name, said))
    assert imported == []
    assert await contents(settings) == before


@pytest.mark.parametrize("changes", [{"position": 2**63}, {"position": -(2**63) - 1}, {"status": 2**15}])
async def test_a_number_that_no_column_holds_is_refused_with_its_line(
    settings: Settings, tmp_path: Path, changes: dict[str, int]
) -> None:
    rows = stored_events(Scene().events)
    said = await refusal(settings, write_ledger(tmp_path, rows, [reply_of(rows[-1], **changes)]))
    assert f"line {len(rows) + 2}:" in said


async def test_a_ledger_whose_id_could_be_a_part_of_another_ones_keys_is_not_imported(settings: Settings, tmp_path: Path) -> None:
    said = await refusal(settings, write_ledger(tmp_path, stored_events(Scene().events, "main.2")))
    assert "no ledger can have this id" in said


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


@pytest.mark.parametrize("member", ["data", "metadata"])
async def test_json_of_any_depth_is_refused_with_its_line(settings: Settings, tmp_path: Path, member: str) -> None:
    file, keys = write_ledger(tmp_path, stored_events(Scene().events))
    lines = file.read_bytes().splitlines(keepends=True)
    line = json.loads(lines[3]) | {member: "DEEP"}
    lines[3] = json.dumps(line, separators=(",", ":")).encode().replace(b'"DEEP"', DEEP) + b"\n"
    file.write_bytes(b"".join(lines))
    assert "line 4:" in await refusal(settings, (file, keys))
    keys.write_bytes(DEEP)
    assert "not a file of people's keys" in await refusal(settings, (file, keys))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["ledger", "keys"])
async def test_a_small_file_that_unpacks_to_gigabytes_is_refused_in_little_memory(
    settings: Settings, tmp_path: Path, place: str
) -> None:
    files = dict(zip(("ledger", "keys"), write_ledger(tmp_path, stored_events(Scene().events)), strict=True))
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(b"0" * LINE_BYTES_MAX)
    files[place] = bomb
    arguments = ["events", "import", str(files["ledger"]), "--keys", str(files["keys"])]
    ended = subprocess.run(  # nothing else runs in this test
        [sys.executable, "-m", "cli.app", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment_of(settings)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    assert (ended.returncode, "the line is too long" in ended.stderr) == (65, True), ended.stderr


async def test_more_keys_than_a_ledger_can_have_are_not_read(settings: Settings, tmp_path: Path) -> None:
    file, keys = write_ledger(tmp_path, stored_events(Scene().events))
    head, first, *_ = keys.read_bytes().splitlines(keepends=True)
    claimed: dict[str, Any] = json.loads(head) | {"keys": 10**18}
    keys.write_bytes(json.dumps(claimed).encode() + b"\n" + first * 100_000)
    assert "all keys of ledger 'main' are needed" in await refusal(settings, (file, keys))
