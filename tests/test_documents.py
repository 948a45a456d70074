"""What can be looked up is complete: settings, error codes, commands of the CLI, links."""

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.app import app
from shared.http import STATUS
from shared.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_as_it_is(name: str) -> None:
    field = Settings.model_fields[name]
    [row] = [line for line in (ROOT / "docs/settings.md").read_text().splitlines() if f"`DAYBOOK_{name.upper()}`" in line]
    assert field.description
    assert field.description.replace("|", "\\|") in row
    if not field.is_required() and field.default is not None:
        assert f"`{field.default}`" in row


@pytest.mark.parametrize("code", STATUS)
def test_every_error_code_is_documented_with_its_status(code: str) -> None:
    rows = [line for line in (ROOT / "docs/problems.md").read_text().splitlines() if line.startswith(f"| `{code}`")]
    assert len(rows) == 1
    assert f"| {STATUS[code]} |" in rows[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def _commands() -> list[list[str]]:
    group = get_command(app)
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        subcommands = getattr(command, "commands", None)
        names += [[name, sub] for sub in subcommands] if subcommands else [[name]]
    return names


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_says_what_it_does_with_an_example(command: list[str]) -> None:
    help_ = CliRunner().invoke(app, [*command, "--help"])
    assert help_.exit_code == 0
    assert f"daybook {' '.join(command)}" in " ".join(help_.output.split())
    assert "Example:" in help_.output
