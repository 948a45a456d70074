"""docs/architecture.md names functions that exist, a deposit's way is short, and the pictures show what there is."""

import ast
import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from shared.log.tables import metadata

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/architecture.md").read_text()
FUNCTIONS = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", DOCUMENT)))
ROOMS = ("bench", "cli", "command_api", "dev", "importers", "projector", "query_api", "shared")
PICTURES = sorted((ROOT / "docs/pictures").glob("*.svg"))
DEPOSIT_FUNCTIONS_MAX = 25
DEPOSIT_FILES_MAX = 10


@cache
def definitions(path: Path) -> frozenset[str]:
    """The qualified names of all functions, methods and classes of a module."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(path.read_text()).body, "")
    return frozenset(found)


def steps(heading: str) -> list[tuple[str, str]]:
    """The functions that the numbered list below a heading names, in its order."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    items = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]
    return [found for item in items for found in re.findall(r"`([\w/]+\.py):([\w.]+)`", item)]


@pytest.mark.parametrize(("path", "name"), FUNCTIONS, ids=lambda part: part)
def test_every_function_that_is_named_exists(path: str, name: str) -> None:
    assert name in definitions(ROOT / path)


@pytest.mark.parametrize(
    "heading", ["A deposit", "An event becomes part of the read models", "A query", "A rebuild"], ids=lambda heading: heading
)
def test_every_way_is_told_function_by_function(heading: str) -> None:
    assert len(steps(heading)) > 5


def test_a_deposit_takes_at_most_25_functions_in_10_files() -> None:
    way = set(steps("A deposit"))
    assert len(way) <= DEPOSIT_FUNCTIONS_MAX
    assert len({path for path, _ in way}) <= DEPOSIT_FILES_MAX


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_every_picture_is_shown_and_has_a_title(picture: Path) -> None:
    root = ET.fromstring(picture.read_text())
    assert root.findtext("{http://www.w3.org/2000/svg}title")
    assert f"](pictures/{picture.name})" in DOCUMENT


def test_the_picture_of_the_tables_shows_every_column() -> None:
    texts = [element.text for element in ET.parse(ROOT / "docs/pictures/tables.svg").iter("{http://www.w3.org/2000/svg}text")]
    for table in metadata.tables.values():
        start = texts.index(table.name)
        columns = [column.name for column in table.columns]
        assert texts[start + 2 : start + 2 + len(columns)] == columns, "after the name comes one line that says what it holds"


def test_every_room_is_in_the_table_of_what_may_never_be_done() -> None:
    named = set(re.findall(r"^\| `([\w/]+)`", DOCUMENT, re.MULTILINE))
    packages = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    rooms = {str(package) for package in packages if len(package.parts) == 1 or package.parts[0] not in {"bench", "migrations"}}
    assert rooms - {"shared"} == named, "`shared` holds rooms, and what stands at its top has no rule of its own"
