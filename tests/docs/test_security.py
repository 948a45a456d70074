"""What docs/security.md promises has a test that exists."""

import re

import pytest

from tests.harness.named_tests import TESTS, names_of_tests

DOCUMENT = (TESTS.parent / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_[a-z0-9_]+)`", DOCUMENT)))


@pytest.fixture(scope="module")
def tests() -> set[str]:
    return names_of_tests()


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name: str, tests: set[str]) -> None:
    assert name in tests


@pytest.mark.parametrize("heading", ["What is promised", "OWASP API Security Top 10 (2023)"])
def test_every_claim_names_a_test(heading: str) -> None:
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    assert [row for row in rows if not re.search(r"`test_[a-z0-9_]+`[^|]*\|$", row)] == []


def test_all_ten_risks_are_there() -> None:
    assert re.findall(r"^\| API(\d+) ", DOCUMENT, re.MULTILINE) == [str(number) for number in range(1, 11)]


def test_every_file_of_tests_that_is_named_exists() -> None:
    assert [name for name in re.findall(r"`tests/(test_[a-z_]+\.py)`", DOCUMENT) if not (TESTS / name).exists()] == []
