"""Rules of the tree that no linter holds."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("bench", "cli", "command_api", "dev", "migrations", "projector", "query_api", "shared")
FUNCTION_LINES_MAX: Final = 60
MODULE_LINES_MAX: Final = 450

BANNED_WORDS: Final = frozenset({"utils", "helpers", "common", "manager", "service", "base", "process", "info", "tmp"})
"""In a file's name."""
BANNED_NAMES: Final = frozenset(
    {"pace", "tally", "rounds", "standing", "gate", "telling", "troubles", "locks", "fields", "moves"}
)
"""As a file's whole name: they do not say what is in it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules_of(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_in(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def place(path: Path, node: ast.stmt) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


@cache
def trees_of_production() -> dict[Path, ast.Module]:
    return {path: parsed(path) for path in modules_of(*ROOMS)}


@cache
def trees_of_tests() -> dict[Path, ast.Module]:
    return {path: parsed(path) for path in modules_of("tests")}


def test_no_module_imports_a_private_name() -> None:
    imports = [
        (path, node)
        for path, tree in (trees_of_production() | trees_of_tests()).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
    ]
    assert not [f"{place(path, node)}: {name.name}" for path, node in imports for name in node.names if name.name[0] == "_"]


def test_functions_and_modules_are_short() -> None:
    functions = [(path, function) for path, tree in trees_of_production().items() for function in functions_in(tree)]
    assert not [f"{place(path, each)}: {each.name}" for path, each in functions if lines_of(each) > FUNCTION_LINES_MAX]
    assert not [path for path in trees_of_production() if len(path.read_text(encoding="utf-8").splitlines()) > MODULE_LINES_MAX]


def test_the_name_of_a_file_says_what_is_in_it() -> None:
    assert not [
        path
        for path in trees_of_production() | trees_of_tests()
        if path.stem in BANNED_NAMES or BANNED_WORDS & set(path.stem.split("_"))
    ]


def test_no_name_of_a_class_or_type_alias_is_used_twice() -> None:
    """A leading underscore does not make two names different for a reader."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, tree in trees_of_production().items():
        for name, node in _named_types(tree):
            places[name.lstrip("_")].append(place(path, node))
    assert len(places) > 300, "not all were found"
    assert not {name: found for name, found in places.items() if len(found) > 1}


def _named_types(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Classes anywhere, and assignments of a module to a name in capitalized words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, node
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name.lstrip("_")[:1].isupper() and not name.isupper():
                    yield name, statement


def test_every_test_asserts_something() -> None:
    """By itself, or through a function of the tests that does: `created(answer)`, `eventually(check)`."""
    functions = [(path, function) for path, tree in trees_of_tests().items() for function in functions_in(tree)]
    asserting = {"raises", "fail"}
    for before, after in pairwise(_growing(asserting, [function for _, function in functions])):
        asserting = after
        if before == after:
            break
    tests = [(path, function) for path, function in functions if function.name.startswith("test_")]
    assert len(tests) > 600, "not all were found"
    assert not [f"{place(path, test)}: {test.name}" for path, test in tests if not _asserts(test, asserting)]


def _growing(asserting: set[str], functions: list[Function]) -> Iterator[set[str]]:
    """The names of functions that assert, then with those that call them, and so on."""
    while True:
        yield asserting
        asserting = asserting | {function.name for function in functions if _asserts(function, asserting)}


def _asserts(function: Function, asserting: set[str]) -> bool:
    return any(isinstance(node, ast.Assert) or _called(node) in asserting for node in ast.walk(function))


def _called(node: ast.AST) -> str | None:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name
    return None


ENDING: Final = {
    "command_api/writer/handover.py": 1,  # one attempt to connect
    "command_api/writer/ledger_writer.py": 1,  # one batch
    "projector/feed.py": 1,  # one read of the log
    "projector/follower.py": 1,  # the deletion of old generations
    "projector/generations/operator_rebuilds.py": 2,  # as long as a command of the operator
    "projector/operation_worker.py": 1,  # one operation
    "projector/publishing/publisher.py": 2,  # a slice of each of some ledgers
    "projector/runner.py": 1,  # the end of the followers of one ledger
    "projector/sinks/mongo_transactions.py": 1,  # one transaction
    "projector/verification_worker.py": 4,  # one verification, and what reads the pipes of its process
    "projector/webhooks/sender.py": 1,  # until nothing is due
    "projector/worker.py": 1,  # the runner, whose end is the end of the process
    "query_api/event_stream.py": 4,  # as long as one answer
    "query_api/reading.py": 1,  # one poll
    "shared/identity/api_keys.py": 1,  # one UPDATE
    "shared/identity/authentication.py": 1,  # one count of a request
    "shared/identity/credential_cache.py": 1,  # one verification
    "shared/identity/rate_limits.py": 2,  # one lease
    "shared/reporting/statements.py": 1,  # one statement of a person
    "shared/stores/kept_connection.py": 1,  # one release
    "shared/stores/shared_round_trips.py": 1,  # a few round trips
    "shared/supervision.py": 1,
    "shared/timeline/connection.py": 1,  # one connection
}
"""How many tasks the modules of the three processes start that end by themselves."""


def test_every_endless_task_is_supervised() -> None:
    """A task that is not in this list is started with `shared.supervision.keep_running`, which runs it again if it fails."""
    starts = {"create_task", "ensure_future", "TaskGroup"}
    found = {
        str(path.relative_to(ROOT)): sum(_called(node) in starts for node in ast.walk(tree))
        for path, tree in trees_of_production().items()
        if path.relative_to(ROOT).parts[0] in {"command_api", "projector", "query_api", "shared"}
    }
    assert {path: number for path, number in found.items() if number} == ENDING
