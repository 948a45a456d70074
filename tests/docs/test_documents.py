"""The documents are complete: settings, error codes, commands of the CLI, links, the list of pages, the glossary."""

import re
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.app import app
from cli.command_line import SUBCOMMANDS
from cli.exit_codes import ExitCode
from shared.errors import DaybookError
from shared.settings import Settings
from shared.web.problems import ERROR_OF_CODE, STATUS, problem

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


ROOMS = "bench|cli|command_api|dev|docs|importers|migrations|projector|query_api|shared|tests"
COLUMNS_MAX = 100


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


@pytest.mark.parametrize("code", STATUS)
def test_every_error_code_is_documented_with_its_title(code: str) -> None:
    error = ERROR_OF_CODE[code]
    retryable = "yes" if error.retryable else "no"
    assert f"| `{code}` | {STATUS[code]} | {retryable} | {error.title()} |" in (ROOT / "docs/problems.md").read_text()


def test_the_page_of_problems_and_the_answers_agree() -> None:
    """For every error that an API can raise, the row of its code has the status and `retryable` of the answer."""
    rows = {}
    for line in (ROOT / "docs/problems.md").read_text().splitlines():
        if found := re.match(r"\| `([a-z-]+)` \| (\d+) \| (yes|no) \|", line):
            rows[found[1]] = (int(found[2]), found[3] == "yes")
    assert rows.keys() == STATUS.keys()
    answered = {error.code: problem(error()) for error in _errors_with(STATUS)}
    assert {code: (answer["status"], answer["retryable"]) for code, answer in answered.items()} == rows


def _errors_with(codes: Container[str]) -> Iterator[type[DaybookError]]:
    waiting = [DaybookError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if getattr(error, "code", None) in codes:
            yield error


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| ", (ROOT / "docs/problems.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def test_every_variable_that_anything_reads_is_documented() -> None:
    """Those of the settings, and those of the command line, the Procfile and the Makefile."""
    rooms = ("cli", "command_api", "dev", "importers", "migrations", "projector", "query_api", "shared")
    read_by = [ROOT / "Procfile", ROOT / "Makefile", *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    named = {name for path in read_by for name in re.findall(r"\bDAYBOOK_[A-Z_]+[A-Z]\b", path.read_text())}
    documented = set(re.findall(r"^\| `(DAYBOOK_[A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    assert named - documented == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def _prose(document: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without tables, blocks of code and lines that are one link."""
    in_code = False
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith("|") and len(line.split("](")[-1].split()) > 1:
            yield number, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_wider_than_100_columns(document: Path) -> None:
    assert [(number, line) for number, line in _prose(document) if len(line) > COLUMNS_MAX] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_ours_that_is_named_exists(document: Path) -> None:
    named = re.findall(rf"`((?:{ROOMS})/[\w/]+\.(?:py|json|lua|md))`", document.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_begins_as_a_riddle(document: Path) -> None:
    text = "\n".join(line for _, line in _prose(document))
    assert re.findall(r"(?:^|[.:;!?] |\n- |\n\n)((?:Who|Whoever|Whosever|What is|That which|Those)\b[^?.]{0,40})", text) == []


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


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_list_of_commands_says_of_each_what_its_own_help_says(name: str) -> None:
    help_ = get_command(app).commands[name].help  # type: ignore[attr-defined]
    assert help_.startswith(SUBCOMMANDS[name].help)


def test_the_list_of_commands_is_shown_without_the_libraries_of_the_stores() -> None:
    drivers = "'alembic', 'fastapi', 'pymongo', 'redis', 'sqlalchemy'"
    code = f"import sys; import cli.app; print({{{drivers}}} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_the_list_of_pages_names_every_page() -> None:
    listed = set(re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs/README.md").read_text()))
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".py"}} - {"README.md"}
    assert pages - listed == set()
    assert "decisions/README.md" in listed


def test_the_list_of_decisions_names_every_decision() -> None:
    listed = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "docs/decisions/README.md").read_text()))
    assert {path.name for path in (ROOT / "docs/decisions").glob("0*.md")} == listed


GLOSSARY = re.findall(r"^- \*\*(.+?)\*\* \((.+?)\):", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)


def test_the_glossary_defines_each_word_once() -> None:
    words = [word for word, _ in GLOSSARY]
    assert len(words) > 80
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(("word", "rooms"), GLOSSARY, ids=[word for word, _ in GLOSSARY])
def test_the_room_that_the_glossary_names_exists(word: str, rooms: str) -> None:
    paths = re.findall(r"`([^`]+)`", rooms)
    assert paths, word
    assert [path for path in paths if not (ROOT / path).exists()] == []
