"""The catalogue of faults is whole, and each of its rows names tests that exist."""

import re
from pathlib import Path

from tests.harness.named_tests import names_of_tests

DOCUMENT = (Path(__file__).parents[2] / "docs/faults.md").read_text()
ROWS = [line for line in DOCUMENT.splitlines() if re.match(r"\| \d+ \|", line)]


def test_no_number_is_missing() -> None:
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 96


def test_each_row_names_tests_that_exist() -> None:
    named = {row: re.findall(r"`(test_[a-z0-9_]+)`", row.split("|")[4]) for row in ROWS}
    assert [row for row, names in named.items() if not names] == []
    assert {name for names in named.values() for name in names} - names_of_tests() == set()
