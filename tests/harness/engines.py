"""Optional engines for tests: a test of an engine that is missing is skipped, or fails if this run must not be without it."""

import asyncio
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, NoReturn, TypeVar

import pytest

from dev.servers import Server, start_all, stop_all
from shared.errors import StackError

VARIABLE: Final = "ENGINES_REQUIRED"
"""The environment variable with the engines that must be there, separated by commas. `.ci/run` sets it."""
ENGINES: Final = frozenset(
    {
        *("cassandra", "chromium", "elasticsearch", "examples", "kafka", "mariadb", "nats", "opensearch", "patroni", "pgbouncer"),
        "typescript",
    }
)
"""What a test may need besides what pip installs. `examples` are the libraries of the programs in `examples/`, and
`typescript` is the compiler in `clients/typescript`."""

AServer = TypeVar("AServer", bound=Server)


def read_required(names: str) -> frozenset[str]:
    """Returns the names in the value of `VARIABLE`. Raises `pytest.UsageError` if there is no such engine."""
    required = frozenset(filter(None, names.split(",")))
    if unknown := sorted(required - ENGINES):
        raise pytest.UsageError(f"{VARIABLE} names {unknown[0]!r}; the engines are {', '.join(sorted(ENGINES))}")
    return required


REQUIRED: Final = read_required(os.environ.get(VARIABLE, ""))


def lacks(engine: str, how: str, required: Collection[str] = REQUIRED) -> NoReturn:
    """Skips the test that needs this engine, or lets it fail if the engine is required. `how` says how to install it."""
    if engine in required:
        pytest.fail(f"{VARIABLE} names {engine}, which is missing: {how}", pytrace=False)
    pytest.skip(how)


@contextmanager
def running(server: AServer, required: Collection[str] = REQUIRED) -> Iterator[AServer]:
    """Runs an optional server, from an event loop of its own, so that any test can ask it. See `lacks`."""
    try:
        server.require_installed()
    except StackError as missing:
        lacks(server.engine, str(missing), required)
    # The thread stays until the end: a child process ends with the thread that started it.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, start_all(server)).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, stop_all(server)).result()


def needs(engine: str, how: str, *, is_there: bool) -> pytest.MarkDecorator:
    """Returns the mark of tests that need an engine which is no server. See `lacks`."""
    return pytest.mark.engine(engine, "" if is_there else how)
