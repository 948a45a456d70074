"""The example of `docs/extending.md`, applied to a clean checkout by the command that is printed, then `make check`, then run."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from shared.settings import Settings
from tests.harness.clients import created
from tests.harness.keys import bearer
from tests.harness.running import run_stack

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/extending.md").read_text()
PATCHES = re.findall(r"```diff\n(.*?)```", DOCUMENT, re.DOTALL)
FILES_MAX = 8
LINES_MAX = 80
TESTS_OF_EXTENSIONS = (
    "tests/command_api/test_deciders.py",
    "tests/docs/test_documents.py",
    "tests/docs/test_tidy.py",
    "tests/shared/test_events.py",
)
"""The tests without servers that look at what an extension adds."""

OTHER_NAMES = {"Labelled": "Lacquered", "labelled": "lacquered", "Label": "Lacquer", "label": "lacquer", "LABEL": "LACQUER"}
"""The example under other names: what somebody has added who began with it. In sorted lists it stands after the example."""


def hunks() -> Iterator[tuple[str, list[str]]]:
    """(file, lines of a hunk without its header) of all patches, without new files."""
    for patch in PATCHES:
        [path] = re.findall(r"^\+\+\+ b/(.*)$", patch, re.MULTILINE)
        for hunk in re.split(r"^@@ .*\n", patch, flags=re.MULTILINE)[1:]:
            yield path, hunk.splitlines()


def printed_command() -> str:
    found = re.search(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def run(folder: Path, *command: str) -> str:
    """What the command prints, with this virtual environment and the code of the folder."""
    path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
    # Mypy compares the content of files with its cache, and checks what differs. Without the cache it takes a minute more.
    environment = os.environ | {"PYTHONPATH": str(folder), "PATH": path, "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a commit of the working tree would check out, beside the virtual environment of `make install`."""
    copy = tmp_path / "checkout"
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    for file in (ROOT / name for name in names if (ROOT / name).exists()):
        (copy / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy / file.relative_to(ROOT))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    run(copy, "git", "init", "--quiet")
    (copy / ".git/info/exclude").write_text(".venv\n")
    run(copy, "git", "add", "--all")
    run(copy, "git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "--message", "All")
    return copy


def make(folder: Path, *targets: str) -> None:
    """Makes targets with what is installed."""
    run(folder, "make", "--old-file", ".venv/.installed", *targets)


def test_the_example_costs_at_most_8_files_and_80_lines() -> None:
    files = {path for path, _ in hunks() if not path.startswith("tests/")}
    added = [line for path, hunk in hunks() for line in hunk if path in files and line.startswith("+")]
    assert len(files) <= FILES_MAX
    assert len(added) <= LINES_MAX


def test_each_part_finds_its_place_by_lines_that_occur_once() -> None:
    """So it applies wherever these lines have moved to, and whatever stands around them."""
    for path, hunk in hunks():
        if replaced := "".join(f"{line[1:]}\n" for line in hunk if line[0] in " -"):
            assert f"\n{(ROOT / path).read_text()}".count(f"\n{replaced}") == 1, replaced


@pytest.mark.slow
@pytest.mark.services
async def test_the_example_passes_make_check_and_works_end_to_end(
    checkout: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkout, "bash", "-c", printed_command())
    assert run(checkout, "git", "status", "--short").count("\n") == len(PATCHES)
    make(checkout, "client")
    make(checkout, "check")

    monkeypatch.chdir(checkout)  # where `python -m` looks first
    async with run_stack(settings, tmp_path) as stack, httpx2.AsyncClient(headers=bearer(), timeout=60) as client:
        user = {"name": "Ada", "email": "ada@example.com"}
        user_id = created(await client.post(f"{stack.command.url}/v1/users", json=user))
        account = {"owner_id": user_id, "currency": "EUR"}
        account_id = created(await client.post(f"{stack.command.url}/v1/accounts", json=account))
        for label in ("rent", "food", "food"):
            answer = await client.post(f"{stack.command.url}/v1/labels", json={"account_id": account_id, "label": label})
            assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 3, "the last one changed nothing"
        wait = {"Daybook-Min-Position": answer.headers["daybook-position"], "Prefer": "wait=10"}
        shown = await client.get(f"{stack.query.url}/v1/accounts/{account_id}/label", headers=wait)
        assert shown.json()["label"] == "food"
        assert (await client.get(f"{stack.query.url}/v1/accounts/{account_id}", headers=wait)).json()["version"] == 3
        missing = await client.get(f"{stack.query.url}/v1/accounts/{uuid.uuid4()}/label")
        assert missing.status_code == 404


@pytest.mark.slow
@pytest.mark.services
def test_the_example_applies_beside_lines_of_others_and_passes_the_checks(checkout: Path, tmp_path: Path) -> None:
    others = "".join(PATCHES)
    for name, other_name in OTHER_NAMES.items():
        others = others.replace(name, other_name)
    (tmp_path / "others.diff").write_text(others)
    run(checkout, "git", "apply", "--unidiff-zero", str(tmp_path / "others.diff"))
    run(checkout, "bash", "-c", printed_command())
    make(checkout, "check-format", "check-lint", "check-types", "check-imports")
    run(checkout, ".venv/bin/pytest", "-q", "-p", "no:cacheprovider", *TESTS_OF_EXTENSIONS)
