"""The worked example of `docs/extending.md`: applied to a copy of the code, type-checked there, and run."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import httpx2
import pytest

from shared.settings import Settings
from tests.clients import created
from tests.running import run_stack

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "command_api", "dev", "projector", "query_api", "shared", "tests", "migrations")


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the code with all steps applied."""
    copy = tmp_path / "copy"
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "alembic.ini"):
        shutil.copy(ROOT / file, copy)
    steps = re.findall(r"```diff\n(.*?\n)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    subprocess.run(["git", "apply", "-C1", "-"], input="".join(steps), text=True, cwd=copy, check=True)
    return copy


def in_copy(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


async def test_the_example_type_checks_and_works_end_to_end(
    extended: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = in_copy(extended, "mypy", "shared", "command_api", "projector", "query_api")
    assert types.returncode == 0, types.stdout
    rules = in_copy(extended, "pytest", "-q", "tests/test_events.py", "tests/test_deciders.py", "-p", "no:cacheprovider")
    assert rules.returncode == 0, rules.stdout

    monkeypatch.chdir(extended)  # where `python -m` looks first
    async with run_stack(settings, tmp_path) as stack, httpx2.AsyncClient(timeout=30) as client:
        user = {"name": "Ada", "email": "ada@example.com"}
        user_id = created(await client.post(f"{stack.command.url}/v1/users", json=user))
        account = {"owner_id": user_id, "currency": "EUR"}
        account_id = created(await client.post(f"{stack.command.url}/v1/accounts", json=account))
        path = f"/v1/accounts/{account_id}/label"
        for label in ("rent", "food", "food"):
            answer = await client.put(f"{stack.command.url}{path}", json={"label": label})
            assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 3, "the last one changed nothing"
        wait = {"Daybook-Min-Position": answer.headers["daybook-position"], "Prefer": "wait=10"}
        shown = await client.get(f"{stack.query.url}{path}", headers=wait)
        assert shown.json()["label"] == "food"
        assert (await client.get(f"{stack.query.url}/v1/accounts/{account_id}", headers=wait)).json()["version"] == 3
        missing = await client.get(f"{stack.query.url}/v1/accounts/{uuid.uuid4()}/label")
        assert missing.status_code == 404
