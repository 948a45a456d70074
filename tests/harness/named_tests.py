"""The names of all tests, for documents that name some of them."""

import ast
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]


def names_of_tests() -> set[str]:
    """Returns the names of all functions that pytest runs as tests."""
    found = set()
    for file in TESTS.rglob("test_*.py"):
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        found |= {node.name for node in ast.parse(file.read_text()).body if isinstance(node, functions)}
    return found
